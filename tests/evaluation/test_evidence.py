"""Class evidence: exact where the maths is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from csdnet_jax import methods
from csdnet_jax.evaluation import evidence

import tiny

S = tiny.SIZE
of_classes = jax.jit(evidence.of_classes, static_argnums=0)


def images(n=2, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (n, S, S, 3), np.uint8)


@pytest.fixture(scope='module')
def network():
  """The tiny network: its predict, parameters and state."""
  model = tiny.model()
  params, state = model.init(jax.random.key(1), S)
  return methods.make(tiny.config(), model).predict, params, state


def linear(params, state, batch):
  x = batch['image'].astype(jnp.float32) / 255.0
  return {'logits': x.reshape(len(x), -1) @ params}


def margins(network, x, a, b):
  predict, params, state = network
  logits = np.asarray(predict(params, state, {'image': x})['logits'])
  rows = np.arange(len(logits))
  return logits[rows, a] - logits[rows, b]


def test_of_a_linear_model_it_is_weight_times_detail_of_each_square():
  x, rng = images(), np.random.default_rng(1)
  w = rng.normal(size=(S * S * 3, 4)).astype(np.float32)
  a, b = np.array([0, 3]), np.array([2, 1])
  found = np.asarray(of_classes(linear, jnp.asarray(w), {}, x, a, b))
  detail = x - np.asarray(evidence.without_detail(jnp.float32(x)))
  n, side = evidence.CELLS, S // evidence.CELLS
  total = np.zeros(2)
  for i in range(2):
    of_margin = (w[:, a[i]] - w[:, b[i]]).reshape(S, S, 3)
    by_pixel = (of_margin * detail[i] / 255).sum(-1)
    expected = by_pixel.reshape(n, side, n, side).sum((1, 3))
    total[i] = expected.sum()
    expected = expected.repeat(side, 0).repeat(side, 1)
    np.testing.assert_allclose(found[i], expected, rtol=1e-3, atol=1e-3)
  # Complete: all squares together are what all detail makes.
  np.testing.assert_allclose(found.sum((1, 2)) / side**2, total, rtol=1e-3)


def test_it_is_what_a_loop_over_squares_finds(network):
  x, a, b = images(1), np.array([1]), np.array([4])
  found = np.asarray(of_classes(*network, x, a, b))[0]
  blurred = np.asarray(evidence.without_detail(jnp.float32(x)))[0]
  whole, side = margins(network, np.float32(x), a, b), S // evidence.CELLS
  for i, j in ((0, 0), (3, 5), (7, 2)):
    without = np.float32(x)
    part = np.s_[i * side : (i + 1) * side, j * side : (j + 1) * side]
    without[0][part] = blurred[part]
    fall = whole - margins(network, without, a, b)
    np.testing.assert_allclose(found[part], fall[0], atol=1e-5)
  assert found.shape == (S, S) and found.dtype == np.float32


def test_sides_that_no_square_divides_are_covered():
  x = np.zeros((1, 19, 19, 3), np.float32)
  x[:, 18, 18] = 255  # The last pixel is in a square, too.
  w = jnp.ones((19 * 19 * 3, 2)) * jnp.array([1.0, 0.0])
  found = of_classes(linear, w, {}, x, np.array([0]), np.array([1]))
  assert found.shape == (1, 19, 19) and found[0, 18, 18] > 1


def test_a_picture_without_detail_has_none(network):
  x = np.tile(np.uint8([[[[30, 200, 90]]]]), (1, S, S, 1))
  found = of_classes(*network, x, np.array([0]), np.array([1]))
  np.testing.assert_allclose(found, 0, atol=1e-5)


def test_the_rival_sees_the_same_places_with_the_other_sign(network):
  x, a, b = images(), np.array([0, 3]), np.array([2, 1])
  there = of_classes(*network, x, a, b)
  back = of_classes(*network, x, b, a)
  np.testing.assert_allclose(there, -back, atol=1e-5)
  none = of_classes(*network, x, a, a)
  np.testing.assert_allclose(none, 0, atol=1e-6)


def test_pictures_of_a_batch_do_not_mix_and_bytes_are_numbers(network):
  x, a, b = images(), np.array([0, 3]), np.array([2, 1])
  together = of_classes(*network, x, a, b)
  alone = of_classes(*network, np.float32(x[1:]), a[1:], b[1:])
  np.testing.assert_allclose(together[1:], alone, rtol=1e-3, atol=1e-5)


def test_the_blur_is_a_gaussian_that_keeps_grey_as_it_is():
  point = np.zeros((1, 96, 96, 1), np.float32)
  point[0, 48, 48] = 1.0
  found = np.asarray(evidence.without_detail(point))[0, ..., 0]
  expected = ndimage.gaussian_filter(point[0, ..., 0], 6.0, truncate=8.0)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  grey = np.full((1, 96, 96), 7.0, np.float32)
  np.testing.assert_allclose(evidence.smooth(grey), grey, rtol=1e-5)
