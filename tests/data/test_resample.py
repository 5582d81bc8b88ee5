"""Resampling gives PyTorch's values."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax.data import resample

GOLDEN = np.load(
  pathlib.Path(__file__).parents[1] / 'golden' / 'torch_resample.npz'
)


def cases(kind):
  return [name for name in GOLDEN.files if name.startswith(f'{kind}/')]


def image():
  return jnp.asarray(GOLDEN['x'].transpose(0, 2, 3, 1), jnp.float32)


@pytest.mark.parametrize('name', cases('bilinear_align_corners'))
def test_bilinear_with_aligned_corners(name):
  height, width = map(int, name.partition('/')[2].split('x'))
  np.testing.assert_allclose(
    resample.upsample(image(), height, width),
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
  found = resample.subsample(labels, height, width)
  np.testing.assert_array_equal(found, GOLDEN[name][:, 0])
  assert found.dtype == labels.dtype


# Read off PyTorch, for the crops of the released settings.
@pytest.mark.parametrize(
  ('size', 'new', 'first', 'last'),
  [(713, 90, [0, 7, 15, 23], 705), (473, 60, [0, 7, 15], 465)],
)
def test_nearest_of_the_crops(size, new, first, last):
  row = resample.subsample(jnp.arange(size)[None, None], 1, new)[0, 0]
  assert row[: len(first)].tolist() == first and row[-1] == last


def test_one_pixel_spreads_and_the_same_size_changes_nothing():
  x = image()
  one = resample.upsample(x[:, :1, :1], 3, 4)
  np.testing.assert_array_equal(one, jnp.broadcast_to(x[:, :1, :1], one.shape))
  np.testing.assert_array_equal(resample.upsample(x, 8, 9), x)
  np.testing.assert_array_equal(resample.upsample(x, 1, 1), x[:, :1, :1])


def test_the_mean_of_one_bin_is_the_mean():
  np.testing.assert_allclose(
    resample.average_pool(image(), 1)[:, 0, 0], image().mean((1, 2)), atol=1e-6
  )


def test_bfloat16_is_mixed_in_float32():
  x = image().astype(jnp.bfloat16)
  found = resample.upsample(x, 57, 65)
  assert found.dtype == jnp.float32
  exact = resample.upsample(x.astype(jnp.float32), 57, 65)
  np.testing.assert_array_equal(found, exact)


def squares(maps, fixed, pixels):
  """Of which the gradient is known: of maps, and of no other argument."""
  (other,) = fixed
  return jnp.sum(pixels[..., None] * (maps + other) ** 2)


@pytest.mark.parametrize('floats', [1, 500, 2**23])
def test_a_sum_by_blocks_of_rows_is_the_whole_sum(monkeypatch, floats):
  monkeypatch.setattr(resample, '_BLOCK', floats)
  rng = np.random.default_rng(0)
  maps = jnp.asarray(rng.normal(size=(2, 5, 6, 3)), jnp.float32)
  other = jnp.asarray(rng.normal(size=(2, 4, 3, 3)), jnp.float32)
  pixels = jnp.asarray(rng.integers(0, 3, (2, 23, 17)), jnp.int32)

  def whole(maps, other):
    large = (resample.upsample(x, 23, 17) for x in (maps, other))
    return squares(next(large), tuple(large), pixels)

  def ours(maps, other):
    return 2 * resample.sum_upsampled(squares, maps, (other,), pixels)

  value, (gradient, none) = jax.jit(jax.value_and_grad(ours, (0, 1)))(
    maps, other
  )
  wanted, wanted_gradient = jax.jit(jax.value_and_grad(whole))(maps, other)
  np.testing.assert_allclose(value, 2 * wanted, rtol=1e-5)
  np.testing.assert_allclose(gradient, 2 * wanted_gradient, rtol=1e-4)
  np.testing.assert_allclose(jax.jit(ours)(maps, other), value, rtol=1e-5)
  assert not none.any()


def test_weights_sum_to_one_and_the_gradient_is_the_transpose():
  for matrix in (resample.bilinear_matrix, resample.average_matrix):
    for size, new in [(1, 5), (5, 1), (8, 57), (60, 6), (7, 6), (5, 6)]:
      np.testing.assert_allclose(matrix(size, new).sum(1), 1, rtol=1e-6)
  x = image()
  gradient = jax.grad(lambda x: resample.upsample(x, 57, 65).sum())(x)
  rows = resample.bilinear_matrix(8, 57).sum(0)
  columns = resample.bilinear_matrix(9, 65).sum(0)
  wanted = jnp.broadcast_to(np.outer(rows, columns)[None, :, :, None], x.shape)
  np.testing.assert_allclose(gradient, wanted, rtol=1e-5)
