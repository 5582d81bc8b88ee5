"""The leaf and the blur of views."""

import numpy as np
import pytest

from csdnet_jax.methods.csdnet import scene


def _leaves(ground, colour, noise=0.03):
  """A disc on a ground, cut by the left border; and the disc's places."""
  y, x = np.mgrid[:32, :32]
  leaf = (y - 16) ** 2 + (x - 8) ** 2 < 100
  image = np.where(leaf[..., None], np.float32(colour), np.float32(ground))
  rng = np.random.default_rng(0)
  image += noise * rng.normal(size=image.shape).astype(np.float32)
  return image[None], leaf


@pytest.mark.parametrize(
  'ground,colour',
  [((1, 1, 1), (0.2, 0.4, 0.1)), ((0, 0, 0), (1, 1, 1)), ((0.8, 0.7, 0.6),
   (0.6, 0.2, 0.2))],
)  # fmt: skip
def test_the_leaf_is_what_differs_from_the_border(ground, colour):
  images, leaf = _leaves(ground, colour)
  assert np.mean(np.asarray(scene.foreground(images, 32)[0]) != leaf) < 0.01


def test_an_image_of_one_colour_has_no_leaf():
  images = np.full((2, 16, 16, 3), 0.3, np.float32)
  assert not np.any(scene.foreground(images, 8))


def test_the_blur_is_a_gaussian_that_keeps_what_is_even():
  images = np.full((1, 24, 20, 3), 0.7, np.float32)
  np.testing.assert_allclose(scene.blur(images, 2.0), 0.7, atol=1e-6)
  point = np.zeros((1, 33, 33, 1), np.float32)
  point[0, 16, 16] = 1.0
  found = np.asarray(scene.blur(point, 2.0))[0, :, :, 0]
  assert found.sum() == pytest.approx(1.0, abs=1e-4)
  assert found[16, 18] / found[16, 16] == pytest.approx(np.exp(-0.5), rel=1e-4)
  assert found[19, 16] / found[16, 16] == pytest.approx(
    np.exp(-9 / 8), rel=1e-4
  )
