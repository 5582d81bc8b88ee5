"""Resampling as PyTorch does it: by two small matrices, one for each axis."""

import jax
import jax.numpy as jnp
import numpy as np


def bilinear_matrix(size: int, new: int) -> np.ndarray:
  """Weights [new, size] float32 of bilinear resampling with aligned corners.

  Row i mixes the two entries around `i (size - 1) / (new - 1)`: the first and
  the last pixel keep their centres. `jax.image.resize` aligns the edges.

  >>> bilinear_matrix(2, 3)
  array([[1. , 0. ],
         [0.5, 0.5],
         [0. , 1. ]], dtype=float32)
  """
  at = np.arange(new) * (size - 1) / max(new - 1, 1)
  distance = np.abs(at[:, None] - np.arange(size))
  return np.maximum(1 - distance, 0).astype(np.float32)


def average_matrix(size: int, new: int) -> np.ndarray:
  """Weights [new, size] float32 of PyTorch's adaptive average pooling.

  Row i is the mean of the entries `floor(i size / new)` up to, without it,
  `ceil((i + 1) size / new)`: windows overlap where `new` does not divide.

  >>> average_matrix(3, 2)
  array([[0.5, 0.5, 0. ],
         [0. , 0.5, 0.5]], dtype=float32)
  """
  i, pixel = np.arange(new)[:, None], np.arange(size)
  inside = (pixel >= i * size // new) & (pixel < -(-(i + 1) * size // new))
  return (inside / inside.sum(1, keepdims=True)).astype(np.float32)


def _apply(x, rows, columns):
  y = x.astype(jnp.float32)
  y = jnp.einsum('yh,bhwc->bywc', rows, y, precision='highest')
  y = jnp.einsum('xw,bywc->byxc', columns, y, precision='highest')
  return y.astype(x.dtype)


def resize_bilinear(x: jax.Array, height: int, width: int) -> jax.Array:
  """Bilinear with aligned corners: [B, h, w, C] to [B, height, width, C].

  Equals PyTorch's `interpolate(mode='bilinear', align_corners=True)`. Computed
  in float32, returned in the dtype of x.
  """
  return _apply(
    x, bilinear_matrix(x.shape[1], height), bilinear_matrix(x.shape[2], width)
  )


def average_pool(x: jax.Array, bins: int) -> jax.Array:
  """Adaptive average pooling: [B, h, w, C] to [B, bins, bins, C].

  Equals PyTorch's `AdaptiveAvgPool2d(bins)`. Computed in float32, returned in
  the dtype of x.
  """
  return _apply(
    x, average_matrix(x.shape[1], bins), average_matrix(x.shape[2], bins)
  )


def resize_nearest(x: jax.Array, height: int, width: int) -> jax.Array:
  """Takes pixel `floor(i size / new)`: [B, h, w, ...] to [B, height, width].

  PyTorch's `interpolate(mode='nearest')`, which APD's release uses for labels.
  The pixels lie up to one output pixel before the grid of aligned corners,
  and before the centres that `jax.image.resize` takes.

  Args:
    x: labels or anything else, any dtype.
    height: of the result.
    width: of the result.
  """
  rows = np.arange(height) * x.shape[1] // height
  columns = np.arange(width) * x.shape[2] // width
  return x[:, rows][:, :, columns]
