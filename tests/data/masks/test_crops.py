"""Which window of a pair a step sees, and that its crop lies in it."""

import functools
import re

import jax
import numpy as np
import pytest

from csdnet_jax.data import augment
from csdnet_jax.data.masks import crops, pairs
from csdnet_jax.runtime.errors import UserError

import images
import streets

SIZE, CANVAS = 33, 80


@pytest.fixture(scope='module')
def train(tmp_path_factory):
  """Six streets, one of another size."""
  root = streets.pairs(
    tmp_path_factory.mktemp('streets'), {'train': 6, 'test': 1}
  )
  image, mask = streets.street(9, 30, 90)
  images.write(root / 'images/train/2.png', images.encode(image))
  images.write(root / 'masks/train/2.png', streets.png(mask))
  return streets.prepared(
    root, tmp_path_factory.mktemp('cache'), resize=40
  ).train


def batches(prepared, stop=6, **options):
  options = {
    'batch': 4, 'seed': 0, 'start': 0, 'canvas': CANVAS, 'size': SIZE,
  } | options  # fmt: skip
  return list(crops.train_batches(prepared, stop=stop, **options))


def test_a_batch_is_a_function_of_its_step(train):
  unbroken = batches(train, stop=6)
  resumed = batches(train, start=4, stop=6)
  for one, other in zip(unbroken[4:], resumed, strict=True):
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])
  ids = np.concatenate([b['id'] for b in unbroken])
  assert all(sorted(ids[i : i + 6]) == list(range(6)) for i in range(0, 24, 6))
  scales = np.concatenate([b['scale'] for b in unbroken])
  assert len(np.unique(scales)) == 24  # Anew at each step.
  assert scales.min() >= 0.5 and scales.max() <= 2
  other = batches(train, seed=1, stop=1)[0]
  assert not np.array_equal(other['scale'], unbroken[0]['scale'])


def test_an_image_that_is_twice_in_a_batch_is_drawn_twice(train):
  """Where one epoch ends within a batch and the next begins."""
  twice = 0
  for batch in batches(train, stop=60):
    for i in range(6):
      scales = batch['scale'][batch['id'] == i]
      assert len(np.unique(scales)) == len(scales)
      twice += len(scales) == 2
  assert twice


def test_hosts_share_a_batch_in_the_order_of_its_rows(train):
  whole = batches(train, stop=2)
  order = np.array([2, 0, 3, 1])
  shares = [
    batches(train, stop=2, order=order, host=h, hosts=2) for h in range(2)
  ]
  for step in range(2):
    for name, value in whole[step].items():
      joined = np.concatenate([share[step][name] for share in shares])
      np.testing.assert_array_equal(joined, value[order])


def test_shapes_and_types_are_what_the_device_takes(train):
  batch = batches(train, stop=1)[0]
  shapes = {name: (x.dtype.name, x.shape) for name, x in batch.items()}
  assert shapes == {
    'image': ('uint8', (4, CANVAS, CANVAS, 3)),
    'mask': ('uint8', (4, CANVAS, CANVAS)),
    'extent': ('int32', (4, 2)),
    'centre': ('float32', (4, 2)),
    'scale': ('float32', (4,)),
    'weight': ('float32', (4,)),
    'id': ('int32', (4,)),
  }
  for i, (h, w) in enumerate(batch['extent']):
    assert (batch['mask'][i, h:] == 255).all()
    assert (batch['mask'][i, :, w:] == 255).all()


def big(height=150, width=190, seed=0):
  """One pair that is larger than the canvas; colours tell places apart."""
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 256, (height, width, 3), np.uint8)
  mask = rng.integers(0, 5, (height, width), np.uint8)
  extents = np.array([[height, width]], np.int32)
  return pairs.Prepared(
    np.concatenate([image.ravel(), mask.ravel()]), np.zeros(1, np.int64),
    extents, extents, None,
  )  # fmt: skip


def place_of(window, image):
  """Where a window was cut: its first pixels are those of the image."""
  at = (image[:-7, :-7] == window[0, 0]).all(-1)
  for y, x in zip(*np.nonzero(at), strict=True):
    if (image[y : y + 8, x : x + 8] == window[:8, :8]).all():
      return np.array([y, x])


@pytest.mark.parametrize('scale', [(0.5, 0.5), (0.5, 2.0), (1.0, 1.0)])
def test_a_window_holds_all_that_a_turned_crop_may_see(scale):
  prepared = big()
  image = prepared.image(0)
  corners = []
  for batch in batches(prepared, batch=1, stop=40, scale=scale):
    h, w = batch['extent'][0]
    window, factor = batch['image'][0, :h, :w], float(batch['scale'][0])
    np.testing.assert_array_equal(batch['mask'][0, :h, :w].shape, (h, w))
    top = place_of(window, image)
    centre = batch['centre'][0] + top
    # No pixel that exists and may be read lies beyond the window.
    for angle in np.deg2rad([-10, -5, 0, 5, 10]):
      half = SIZE / 2 * (abs(np.cos(angle)) + abs(np.sin(angle))) / factor + 0.5
      low = np.maximum(np.floor(centre - 0.5 - half + 0.5), 0)
      high = np.minimum(np.ceil(centre - 0.5 + half), np.array([150, 190]) - 1)
      assert (low >= top).all() and (high <= top + (h, w) - 1).all()
    corners.append(np.round(centre * factor - SIZE / 2, 3))
    assert (corners[-1] == np.round(corners[-1])).all()  # Whole pixels.
    room = np.floor(np.array([150, 190]) * factor) - SIZE
    assert (corners[-1] >= 0).all() and (corners[-1] <= room).all()
  if scale == (1.0, 1.0):
    low, high = np.min(corners, 0), np.max(corners, 0)
    assert (low < 25).all() and (high > [117 - 25, 157 - 25]).all()


def test_a_crop_of_a_window_is_that_of_the_whole_image():
  """Turned, mirrored and smoothed on the device by the same keys."""
  prepared = big()
  whole = np.zeros((1, 190, 190, 3), np.uint8)
  mask = np.full((1, 190, 190), 255, np.uint8)
  whole[0, :150], mask[0, :150] = prepared.image(0), prepared.mask(0)
  sample = jax.jit(functools.partial(augment.sample_pairs, size=SIZE))
  different = []
  for step, batch in enumerate(batches(prepared, batch=1, stop=30)):
    keys = jax.random.split(jax.random.key(step), 1)
    h, w = batch['extent'][0]
    top = place_of(batch['image'][0, :h, :w], prepared.image(0))
    window = sample(
      keys, batch['image'], batch['mask'], batch['extent'], batch['centre'],
      batch['scale'],
    )  # fmt: skip
    full = sample(
      keys, whole, mask, np.int32([[150, 190]]),
      np.float32(batch['centre'] + top), batch['scale'],
    )  # fmt: skip
    # Rounding: bits of a position, which a pixel's edge may decide.
    np.testing.assert_allclose(window[0], full[0], atol=0.002)
    different.append(np.mean(np.asarray(window[1]) != np.asarray(full[1])))
  assert max(different) < 0.005


def test_an_image_smaller_than_the_crop_lies_in_its_middle():
  prepared = big(20, 50)
  batch = batches(prepared, batch=1, stop=1, scale=(1.0, 1.0))[0]
  assert batch['extent'][0, 0] == 20
  # Six rows above and seven below: the crop's centre is at 10.5 of 20.
  assert batch['centre'][0, 0] == -6 + SIZE / 2
  batch = batches(prepared, batch=1, stop=1, scale=(0.5, 0.5))[0]
  assert batch['extent'][0].tolist() == [20, 50]
  assert batch['centre'][0].tolist() == [2 * (-11 + 16.5), 2 * (-4 + 16.5)]


def test_a_canvas_too_small_for_a_crop_is_a_sentence():
  needed = int(re.search(r'(\d+) or more', str(canvas_error(50)))[1])
  assert needed < 2.5 * SIZE
  batches(big(), batch=1, stop=1, canvas=needed)
  canvas_error(needed - 1)
  batches(big(40, 50), batch=1, stop=1, canvas=50)  # No larger image.


def canvas_error(canvas):
  with pytest.raises(UserError, match=r'config\.data\.canvas') as error:
    batches(big(), batch=1, stop=1, canvas=canvas)
  return error.value


def sparse(share, seed=0):
  """An image of which a corner alone has labels."""
  prepared = big(seed=seed)
  mask = prepared.mask(0)
  kept = mask[: int(150 * share), : int(190 * share)].copy()
  mask[:] = 255
  mask[: kept.shape[0], : kept.shape[1]] = kept
  return prepared


def labelled(batch):
  """Whether the unturned crop shows a label at stride 8, by a slow loop."""
  mask, (cy, cx) = batch['mask'][0], batch['centre'][0]
  found = False
  n = (SIZE - 1) // 8 + 1
  for i in range(n):
    for j in range(n):
      y, x = (
        int(np.floor(c + (k * SIZE // n + 0.5 - SIZE / 2) / batch['scale'][0]))
        for c, k in ((cy, i), (cx, j))
      )
      if 0 <= y < batch['extent'][0, 0] and 0 <= x < batch['extent'][0, 1]:
        found |= mask[y, x] != 255
  return found


def test_a_crop_without_a_label_is_drawn_again_and_else_weighs_nothing():
  weights = []
  for batch in batches(sparse(0.4), batch=1, stop=60):
    assert labelled(batch) == batch['weight'][0]
    weights.append(batch['weight'][0])
  # One draw finds labels in fewer of the steps than four do.
  assert 0.5 < np.mean(weights) < 1
  none = batches(sparse(0.0), batch=1, stop=8)
  assert all(batch['weight'][0] == 0 for batch in none)
  full = batches(big(), batch=1, stop=8)
  assert all(batch['weight'][0] == 1 for batch in full)
