"""Crops of images with their masks: geometry, borders, and one key per row."""

import jax
import numpy as np
import pytest

from csdnet_jax.data import augment

STILL = {'rotate': 0.0, 'flip': False, 'blur': 0.0}
# One shape for most tests, so that few programs are compiled.
N, S, SIZE = 32, 40, 25
MEAN = np.float32(augment.MEAN)

sample = jax.jit(augment.sample_pairs, static_argnames=['size', 'flip'])


def keys(n, seed=0):
  return jax.random.split(jax.random.key(seed), n)


def noise(n=N, side=S, seed=0):
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 256, (n, side, side, 3), np.uint8)
  return image, rng.integers(0, 9, (n, side, side), np.uint8)


def crops(image, mask, centre=None, scale=1.0, extent=None, seed=0, **options):
  """A crop of each canvas; in its middle, and still unless said."""
  n, side = mask.shape[:2]
  extent = np.tile(np.int32(extent or (side, side)), (n, 1))
  centre = np.tile(np.float32(centre or (side / 2, side / 2)), (n, 1))
  scale = np.full(n, scale, np.float32)
  view, label = sample(
    keys(n, seed), image, mask, extent, centre, scale,
    **STILL | {'size': SIZE} | options,
  )  # fmt: skip
  return np.asarray(view), np.asarray(label)


@pytest.mark.parametrize('size', [25, 40])
def test_nothing_random_gives_the_pixels_themselves(size):
  image, mask = noise()
  at = (S - size) // 2
  centre = (at + size / 2,) * 2
  view, label = crops(image, mask, centre, size=size)
  cut = np.s_[:, at : at + size, at : at + size]
  assert view.dtype == np.float32 and label.dtype == np.int32
  # XLA multiplies by 1 / 255: the last bit.
  np.testing.assert_allclose(view, image[cut] / np.float32(255), rtol=2e-7)
  np.testing.assert_array_equal(label, mask[cut])


def test_beyond_the_image_are_the_mean_colour_and_the_ignored_label():
  """A crop that is larger than what is valid, to the pixel."""
  image, mask = noise()
  view, label = crops(image, mask, (6.5, 9.5), extent=(13, 19))
  top, left = (SIZE - 13) // 2, (SIZE - 19) // 2
  inside = np.zeros((SIZE, SIZE), bool)
  inside[top : top + 13, left : left + 19] = True
  assert (view[:, ~inside] == MEAN).all() and (label[:, ~inside] == 255).all()
  np.testing.assert_array_equal(
    np.round(255 * view[:, inside].reshape(N, 13, 19, 3)), image[:, :13, :19]
  )
  np.testing.assert_array_equal(
    label[:, inside].reshape(N, 13, 19), mask[:, :13, :19]
  )


def test_flip_mirrors_image_and_mask_together_in_half_of_the_rows():
  image, mask = noise()
  plain, label = crops(image, mask)
  view, turned = crops(image, mask, flip=True)
  mirrored = (view == plain[:, :, ::-1]).all((1, 2, 3))
  np.testing.assert_array_equal(
    mirrored, (turned == label[:, :, ::-1]).all((1, 2))
  )
  same = (view == plain).all((1, 2, 3)) & (turned == label).all((1, 2))
  assert (mirrored ^ same).all() and N / 4 < mirrored.sum() < 3 * N / 4


def test_labels_stay_with_their_colours_in_every_pose():
  """The colour says the label; away from borders both must agree."""
  blocks = np.kron(np.arange(64).reshape(8, 8) % 7, np.ones((10, 10), int))
  mask = np.tile(np.uint8(blocks), (N, 1, 1))
  image = np.uint8(30 * mask[..., None] + np.zeros(3))
  for scale in (0.6, 1.0, 1.9):
    view, label = crops(
      image, mask, (37.0, 43.0), scale, rotate=10.0, flip=True, size=33
    )
    even = np.ones(label.shape, bool)  # A neighbourhood of one label.
    for axis in (1, 2):
      for shift in (1, 2):
        for way in (-shift, shift):
          even &= np.roll(label, way, axis) == label
    even &= label != 255
    even[:, :2] = even[:, -2:] = even[:, :, :2] = even[:, :, -2:] = False
    assert even.mean() > 0.05
    colour = 255 * view / 30
    np.testing.assert_allclose(
      colour[even], np.repeat(label[even][:, None], 3, 1), atol=0.01
    )


def angles(seed=0, **options):
  """Of N turns, read off the gradients of a ramp: degrees."""
  line = np.uint8(3 * np.arange(S))
  image = np.zeros((N, S, S, 3), np.uint8)
  image[..., 0], image[..., 1] = line[:, None], line
  view, _ = crops(image, image[..., 0], seed=seed, **options)
  down = view[:, 18, 12] - view[:, 6, 12]
  return np.rad2deg(np.arctan2(down[:, 1], down[:, 0]))


def test_half_of_the_crops_turn_both_ways_and_no_further_than_asked():
  found = np.concatenate([angles(seed, rotate=10.0) for seed in range(4)])
  still = np.abs(found) < 1e-3
  assert 0.35 < still.mean() < 0.65
  assert found.min() < -7 and found.max() > 7
  assert np.abs(found).max() < 10.01


def test_a_turn_is_that_of_scipy(monkeypatch):
  """Ten degrees the way that `scipy.ndimage.rotate` turns."""
  from scipy import ndimage

  y, x = np.mgrid[:S, :S]
  image = np.uint8(127 + 60 * np.sin(y / 5) + 60 * np.cos(x / 7))
  monkeypatch.setattr(
    jax.random, 'uniform', lambda _, shape: np.float32([0.0, 1.0, 1.0, 1.0])
  )
  view, _ = jax.jit(
    lambda: augment.sample_pairs(
      keys(1), np.tile(image[None, ..., None], 3), image[None],
      np.int32([[S, S]]), np.float32([[20, 20]]), np.float32([1]), size=20,
    )
  )()  # fmt: skip
  turned = ndimage.rotate(np.float64(image), 10.0, reshape=False, order=1)
  ours = 255 * np.asarray(view)[0, ..., 0]
  np.testing.assert_allclose(ours, turned[10:30, 10:30], atol=1e-3)


def test_scale_two_shows_half_as_much():
  image, mask = noise()
  view, label = crops(image, mask, (20.0, 20.0), 2.0, size=24)
  small, _ = crops(image, mask, (20.0, 20.0), 0.5, size=20)
  # Two crop pixels for each of the image: nearest is exact repetition.
  cut = mask[:, 14:26, 14:26]
  np.testing.assert_array_equal(label, cut.repeat(2, 1).repeat(2, 2))
  # Half-pixel bilinear at one half is the mean of 2 x 2.
  mean = (image / np.float32(255)).reshape(N, 20, 2, 20, 2, 3).mean((2, 4))
  np.testing.assert_allclose(small, mean, atol=1e-6)


def test_blur_is_the_binomial_kernel_and_touches_no_label():
  from scipy import ndimage

  image, mask = noise()
  plain, label = crops(image, mask)
  view, other = crops(image, mask, blur=1.0)
  np.testing.assert_array_equal(label, other)
  kernel = np.array([1, 4, 6, 4, 1]) / 16
  wanted = np.float64(plain)
  for axis in (1, 2):
    wanted = ndimage.correlate1d(wanted, kernel, axis, mode='mirror')
  np.testing.assert_allclose(view, wanted, atol=1e-6)
  half, _ = crops(image, mask, blur=0.5)
  smooth = (half != plain).any((1, 2, 3))
  assert N / 4 < smooth.sum() < 3 * N / 4


def test_a_row_depends_neither_on_its_batch_nor_on_its_place():
  image, mask = noise()
  extent = np.full((N, 2), S, np.int32)
  rng = np.random.default_rng(1)
  centre = np.float32(rng.uniform(10, 30, (N, 2)))
  scale = np.float32(rng.uniform(0.5, 2, N))
  rows = (keys(N), image, mask, extent, centre, scale)
  whole = sample(*rows, size=SIZE)
  some = np.array([17, 3, 5])
  part = sample(*(x[some] for x in rows), size=SIZE)
  np.testing.assert_array_equal(np.asarray(whole[0])[some], part[0])
  np.testing.assert_array_equal(np.asarray(whole[1])[some], part[1])
