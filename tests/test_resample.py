"""Resampling gives PyTorch's values."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax.models import resample

GOLDEN = np.load(
  pathlib.Path(__file__).parent / 'golden' / 'torch_resample.npz'
)


def cases(kind):
  return [name for name in GOLDEN.files if name.startswith(f'{kind}/')]


def image():
  return jnp.asarray(GOLDEN['x'].transpose(0, 2, 3, 1), jnp.float32)


@pytest.mark.parametrize('name', cases('bilinear_align_corners'))
def test_bilinear_with_aligned_corners(name):
  height, width = map(int, name.partition('/')[2].split('x'))
  np.testing.assert_allclose(
    resample.resize_bilinear(image(), height, width),
    GOLDEN[name].transpose(0, 2, 3, 1),
    atol=2e-6,
  )


@pytest.mark.parametrize('name', cases('adaptive_avg_pool'))
def test_adaptive_average_pooling(name):
  np.testing.assert_allclose(
    resample.average_pool(image(), int(name.partition('/')[2])),
    GOLDEN[name].transpose(0, 2, 3, 1),
    atol=2e-6,
  )


@pytest.mark.parametrize('name', cases('nearest'))
def test_nearest(name):
  height, width = map(int, name.partition('/')[2].split('x'))
  labels = jnp.asarray(GOLDEN['labels'][:, 0])
  found = resample.resize_nearest(labels, height, width)
  np.testing.assert_array_equal(found, GOLDEN[name][:, 0])
  assert found.dtype == labels.dtype


# Read off PyTorch, for the crops of the released settings.
@pytest.mark.parametrize(
  ('size', 'new', 'first', 'last'),
  [(713, 90, [0, 7, 15, 23], 705), (473, 60, [0, 7, 15], 465)],
)
def test_nearest_of_the_crops(size, new, first, last):
  row = resample.resize_nearest(jnp.arange(size)[None, None], 1, new)[0, 0]
  assert row[: len(first)].tolist() == first and row[-1] == last


def test_one_pixel_spreads_and_the_same_size_changes_nothing():
  x = image()
  one = resample.resize_bilinear(x[:, :1, :1], 3, 4)
  np.testing.assert_array_equal(one, jnp.broadcast_to(x[:, :1, :1], one.shape))
  np.testing.assert_array_equal(resample.resize_bilinear(x, 8, 9), x)


def test_the_mean_of_one_bin_is_the_mean():
  np.testing.assert_allclose(
    resample.average_pool(image(), 1)[:, 0, 0], image().mean((1, 2)), atol=1e-6
  )


def test_bfloat16_stays_and_is_mixed_in_float32():
  x = image().astype(jnp.bfloat16)
  found = resample.resize_bilinear(x, 57, 65)
  assert found.dtype == jnp.bfloat16
  exact = resample.resize_bilinear(x.astype(jnp.float32), 57, 65)
  np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))


def test_weights_sum_to_one_and_the_gradient_is_the_transpose():
  for matrix in (resample.bilinear_matrix, resample.average_matrix):
    for size, new in [(1, 5), (5, 1), (8, 57), (60, 6), (7, 6), (5, 6)]:
      np.testing.assert_allclose(matrix(size, new).sum(1), 1, rtol=1e-6)
  x = image()
  gradient = jax.grad(lambda x: resample.resize_bilinear(x, 57, 65).sum())(x)
  rows = resample.bilinear_matrix(8, 57).sum(0)
  columns = resample.bilinear_matrix(9, 65).sum(0)
  wanted = jnp.broadcast_to(np.outer(rows, columns)[None, :, :, None], x.shape)
  np.testing.assert_allclose(gradient, wanted, rtol=1e-5)
