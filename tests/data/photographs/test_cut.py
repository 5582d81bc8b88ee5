"""A cut leaf keeps its pixels; all that it is not is white."""

import numpy as np
import pytest

from csdnet_jax.data.photographs import cut, find

import scenes


@pytest.mark.parametrize('enlarged', [1, 3])
def test_the_leaf_keeps_its_pixels_and_the_rest_is_white(enlarged):
  # The two boxes overlap: a neighbour's tip lies in the box of each.
  places = [(60, 40, 220), (190, 200, 220)]
  places = [tuple(enlarged * v for v in place) for place in places]
  size = (600 * enlarged, 800 * enlarged)
  image, boxes = scenes.photograph(places, size=size)
  found = find.find(image)
  assert len(found.leaves) == 2
  for number, (place, leaf) in enumerate(
    zip(places, found.leaves, strict=True)
  ):
    out = cut.cut(image, leaf, found.scale)
    left, top, right, bottom = leaf.box
    margin = round(0.04 * max(right - left, bottom - top))
    assert out.shape[:2] == (
      bottom - top + 2 * margin,
      right - left + 2 * margin,
    )
    there = np.zeros(size, bool)
    own = scenes.leaf(number, place[2])[1]
    there[place[1] :, place[0] :][: own.shape[0], : own.shape[1]] = own
    # Of the cut: where the leaf is, and where nothing of it is near.
    there = there[top - margin :, left - margin :][: out.shape[0]]
    there = there[:, : out.shape[1]]
    source = image[top - margin :, left - margin :][: out.shape[0]]
    source = source[:, : out.shape[1]]
    kept = (out == source).all(-1)
    assert kept[there].mean() > 0.995
    white = (out == 255).all(-1)
    assert (kept | white).all()
    grown = int(np.ceil(2.5 * found.scale)) + 1
    near = np.zeros_like(there)
    for row, column in np.argwhere(there)[::7]:
      near[
        max(row - grown, 0) : row + grown + 1,
        max(column - grown, 0) : column + grown + 1,
      ] = True
    assert white[~near].mean() > 0.995


def test_beyond_the_photograph_lies_white():
  left = 800 - scenes.leaf(0, 220)[1].shape[1]
  image, _ = scenes.photograph([(left, 40, 220)], ruler=False)
  found = find.find(image)
  out = cut.cut(image, found.leaves[0], found.scale)
  margin = round(0.04 * max(*scenes.leaf(0, 220)[1].shape))
  assert (out[:, -margin + 1 :] == 255).all()
