"""Leaves are found on a plain ground of any colour; what is none is not."""

import numpy as np
import pytest

from csdnet_jax.data.photographs import find

import scenes

FOUR = [(60, 40, 220), (230, 290, 240), (420, 70, 230), (540, 300, 200)]


def _boxes(found):
  return [leaf.box for leaf in found.leaves]


@pytest.mark.parametrize(
  'ground', [scenes.GROUND, (255, 255, 255), (60, 90, 160), (30, 30, 30)]
)
def test_every_leaf_is_found_in_uneven_light(ground):
  image, boxes = scenes.photograph(FOUR, ground=ground, dimmed=0.4)
  found = find.find(image)
  assert found.plain and found.scale == 1
  np.testing.assert_allclose(_boxes(found), boxes, atol=1)
  assert not any(leaf.note for leaf in found.leaves)


def test_a_shadow_belongs_to_the_ground():
  image, boxes = scenes.photograph(FOUR, shadow=0.2)
  np.testing.assert_allclose(_boxes(find.find(image)), boxes, atol=1)


def test_a_ruler_a_label_and_a_frame_are_no_leaves():
  image, boxes = scenes.photograph(FOUR[:1])
  found = find.find(image)
  np.testing.assert_allclose(_boxes(found), boxes, atol=1)
  assert {region.reason for region in found.left_out} == {
    'along the edge',
    'straight, like a card or a ruler',
    'a line',
  }


def test_boxes_are_in_pixels_of_the_photograph():
  places = [(3 * x, 3 * y, 3 * side) for x, y, side in FOUR[:2]]
  image, boxes = scenes.photograph(places, size=(1800, 2400))
  found = find.find(image)
  assert found.scale == pytest.approx(2400 / find.SIDE)
  assert max(found.small.shape) == find.SIDE
  np.testing.assert_allclose(_boxes(found), boxes, atol=4)


def test_a_leaf_cut_off_by_the_edge_is_left_out():
  image, boxes = scenes.photograph(
    [(60, 40, 220), (650, 250, 260)], ruler=False
  )
  found = find.find(image)
  np.testing.assert_allclose(_boxes(found), boxes[:1], atol=1)
  (region,) = found.left_out
  assert region.reason == 'along the edge'
  np.testing.assert_allclose(region.box, boxes[1], atol=1)


def test_a_tip_that_reaches_the_edge_is_said():
  _, there = scenes.leaf(0, 220)
  left = 800 - there.shape[1]
  image, boxes = scenes.photograph([(left, 40, 220)], ruler=False)
  found = find.find(image)
  np.testing.assert_allclose(_boxes(found), boxes, atol=1)
  assert found.leaves[0].note == 'touches the edge of the photograph'


@pytest.mark.parametrize('depth', [2, 4, 6])
def test_leaves_that_touch_are_parted(depth):
  width = scenes.leaf(0, 220)[1].shape[1]
  places = [(60, 100, 220), (60 + width - depth, 130, 220)]
  image, boxes = scenes.photograph(places)
  found = find.find(image)
  np.testing.assert_allclose(_boxes(found), boxes, atol=depth)
  for leaf in found.leaves:
    assert leaf.note == 'touched another leaf and was parted from it'
  one, other = (leaf.mask for leaf in found.leaves)
  assert not (one & other).any()


def test_leaves_that_overlap_are_left_joined_and_said():
  width = scenes.leaf(0, 220)[1].shape[1]
  image, _ = scenes.photograph([(60, 100, 220), (40 + width, 130, 220)])
  (leaf,) = find.find(image).leaves
  assert leaf.note == 'may be two leaves that touch'


def test_a_compound_leaf_is_one():
  mask = np.zeros((300, 300), bool)
  y, x = np.mgrid[:300, :300]
  for angle in np.arange(5) * 2 * np.pi / 5:
    away = np.hypot(x - 150 - 80 * np.cos(angle), y - 150 - 80 * np.sin(angle))
    mask |= away < 38
  mask |= (np.hypot(x - 150, y - 150) > 42) & (np.hypot(x - 150, y - 150) < 46)
  for angle in np.arange(5) * 2 * np.pi / 5:
    along = (x - 150) * np.cos(angle) + (y - 150) * np.sin(angle)
    across = (x - 150) * np.sin(angle) - (y - 150) * np.cos(angle)
    mask |= (abs(across) < 3) & (along > 0) & (along < 80)
  parts, _ = find.split(mask)
  assert len(parts) == 1


def test_the_order_is_by_columns_and_within_them_from_the_top():
  places = [(60, 300, 200), (62, 30, 200), (400, 300, 200), (330, 30, 200)]
  image, boxes = scenes.photograph(places, ruler=False)
  want = [boxes[i] for i in (1, 0, 3, 2)]
  np.testing.assert_allclose(_boxes(find.find(image)), want, atol=1)


def test_an_empty_ground_has_no_leaf():
  image, _ = scenes.photograph([])
  assert not find.find(image).leaves
  image, _ = scenes.photograph([], ruler=False)
  found = find.find(image)
  assert found.plain and not found.leaves and not found.left_out


@pytest.mark.parametrize('size', [(1, 1), (1, 90), (40, 40)])
def test_a_picture_of_any_size_and_noise_give_no_leaf(size):
  flat = np.full((*size, 3), 200, np.uint8)
  assert not find.find(flat).leaves
  noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
  assert not find.find(noise).leaves


def test_a_ground_that_is_not_plain_is_said():
  rng = np.random.default_rng(0)
  coarse = rng.integers(0, 256, (40, 60, 3), np.uint8)
  pebbles = coarse.repeat(12, 0).repeat(12, 1)
  assert not find.find(pebbles).plain


def test_the_ground_that_shows_through_a_leaf_is_none_of_it():
  image, _ = scenes.photograph([(100, 100, 400)], ruler=False)
  there = scenes.leaf(0, 400)[1]
  y, x = np.argwhere(there).mean(0).astype(int) + 100
  image[y - 12 : y + 12, x - 12 : x + 12] = image[20:44, 20:44]  # A hole.
  image[y - 40 : y - 38, x - 20 : x + 20] = image[20:22, 20:60]  # A vein.
  (leaf,) = find.find(image).leaves
  assert not leaf.mask[y - 8 : y + 8, x - 8 : x + 8].any()
  assert leaf.mask[y - 40 : y - 38, x - 20 : x + 20].all()
