"""Resampling as PyTorch does it: by two small matrices, one for each axis."""

import functools
import math

import jax
import jax.numpy as jnp

# Floats of an upsampled map that are in memory at a time, of a call.
_BLOCK = 2**23


def bilinear_matrix(size: int, new: int, dtype=jnp.float32) -> jax.Array:
  """Weights [new, size] of bilinear resampling with aligned corners.

  Row i mixes the two entries around `i (size - 1) / (new - 1)`: the first and
  the last pixel keep their centres. `jax.image.resize` aligns the edges.

  >>> bilinear_matrix(2, 3)
  Array([[1. , 0. ],
         [0.5, 0.5],
         [0. , 1. ]], dtype=float32)
  """
  steps, last = max(new - 1, 1), size - 1
  # Whole numbers, which are exact in any precision.
  low, rest = jnp.divmod(jnp.arange(new) * last, steps)
  high = jnp.minimum(low + 1, last)
  share = (rest.astype(dtype) / steps)[:, None]
  below = jax.nn.one_hot(low, size, dtype=dtype)
  return below + share * (jax.nn.one_hot(high, size, dtype=dtype) - below)


def average_matrix(size: int, new: int, dtype=jnp.float32) -> jax.Array:
  """Weights [new, size] of PyTorch's adaptive average pooling.

  Row i is the mean of the entries `floor(i size / new)` up to, without it,
  `ceil((i + 1) size / new)`: windows overlap where `new` does not divide.

  >>> average_matrix(3, 2)
  Array([[0.5, 0.5, 0. ],
         [0. , 0.5, 0.5]], dtype=float32)
  """
  i, pixel = jnp.arange(new)[:, None], jnp.arange(size)
  inside = (pixel >= i * size // new) & (pixel < -(-(i + 1) * size // new))
  inside = inside.astype(dtype)
  return inside / jnp.sum(inside, axis=1, keepdims=True)


def apply(x: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
  """Mixes [..., h, w, C] by rows [H, h] and columns [W, w]: [..., H, W, C]."""
  x = jnp.einsum('Hh,...hwc->...Hwc', rows, x, precision='highest')
  return jnp.einsum('Ww,...hwc->...hWc', columns, x, precision='highest')


def _by(matrix, x, height, width):
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  return apply(
    x,
    matrix(x.shape[-3], height, x.dtype),
    matrix(x.shape[-2], width, x.dtype),
  )


def upsample(x: jax.Array, height: int, width: int) -> jax.Array:
  """Bilinear, corners aligned: [..., h, w, C] to [..., height, width, C].

  Equals PyTorch's `interpolate(mode='bilinear', align_corners=True)`, to any
  size. In float32, or in float64 if that is what comes in.

  >>> upsample(jnp.array([0.0, 4.0])[None, :, None], 1, 3)[0, :, 0]
  Array([0., 2., 4.], dtype=float32)
  """
  return _by(bilinear_matrix, x, height, width)


def average_pool(x: jax.Array, bins: int) -> jax.Array:
  """Adaptive average pooling: [..., h, w, C] to [..., bins, bins, C].

  Equals PyTorch's `AdaptiveAvgPool2d(bins)`. In float32, or in float64 if that
  is what comes in.
  """
  return _by(average_matrix, x, bins, bins)


def subsample(labels: jax.Array, height: int, width: int) -> jax.Array:
  """Labels [..., H, W], any dtype, at feature size: pixel floor(i in / out).

  PyTorch's legacy `nearest`, as in APD's release. The pixels lie up to one of
  the feature map's before the grid of aligned corners, and before the centres
  that `jax.image.resize` takes.

  >>> subsample(jnp.arange(9)[None], 1, 2)
  Array([[0, 4]], dtype=int32)
  """
  rows = jnp.arange(height) * labels.shape[-2] // height
  columns = jnp.arange(width) * labels.shape[-1] // width
  return labels[..., rows[:, None], columns]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sum_upsampled(f, maps: jax.Array, fixed: tuple, pixels: jax.Array):
  """f(upsampled maps, upsampled fixed, pixels), by blocks of rows.

  Full-size logits of 150 classes take hundreds of MiB. Here a block of rows is
  in memory at a time and nothing is kept for the backward pass: the gradient
  of a block is computed beside its value. It can be taken once.

  Args:
    f: takes maps [b, r, W, C], a tuple of such and pixels [b, r, W], and
      returns a sum over pixels, [], to which those add nothing whose `pixels`
      is 0. It closes over no array.
    maps: [b, h, w, C] float32 or float64.
    fixed: of maps [b, h', w', C'], which get no gradient.
    pixels: [b, H, W] integers or booleans.

  Returns:
    The sum, [], of the dtype of maps.
  """
  block, blocks = _blocks(f, maps, fixed, pixels)

  def add(total, inputs):
    return total + block(maps, *inputs), None

  return jax.lax.scan(add, jnp.zeros((), maps.dtype), blocks)[0]


def _sum_forward(f, maps, fixed, pixels):
  block, blocks = _blocks(f, maps, fixed, pixels)

  def add(carry, inputs):
    pair = jax.value_and_grad(block)(maps, *inputs)
    return jax.tree.map(jnp.add, carry, pair), None

  zeros = jnp.zeros((), maps.dtype), jnp.zeros_like(maps)
  return jax.lax.scan(add, zeros, blocks)[0]


def _sum_backward(f, gradient, scale):
  del f
  return scale * gradient, None, None


sum_upsampled.defvjp(_sum_forward, _sum_backward)


def _blocks(f, maps, fixed, pixels):
  """f of one block of rows, and what it takes beside maps, block by block."""
  b, height, width = pixels.shape
  fewest = math.ceil(b * height * width * maps.shape[-1] / _BLOCK)
  rows = math.ceil(height / fewest)
  count = math.ceil(height / rows)
  beyond = count * rows - height
  everything = (maps, *fixed)
  above = [
    jnp.pad(bilinear_matrix(x.shape[1], height, x.dtype), ((0, beyond), (0, 0)))
    for x in everything
  ]
  beside = [bilinear_matrix(x.shape[2], width, x.dtype) for x in everything]
  above = [matrix.reshape(count, rows, -1) for matrix in above]
  pixels = jnp.pad(pixels, ((0, 0), (0, beyond), (0, 0)))
  pixels = jnp.moveaxis(pixels.reshape(b, count, rows, width), 1, 0)

  def block(maps, above, pixels):
    large, *others = (
      apply(x, *matrices)
      for x, *matrices in zip((maps, *fixed), above, beside, strict=True)
    )
    return f(large, tuple(others), pixels)

  return block, (above, pixels)
