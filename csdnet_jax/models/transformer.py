"""What the vision transformers share: layers, patches, PyTorch's names."""

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from csdnet_jax.models import initialise
from csdnet_jax.models.dropout import path_scales
from csdnet_jax.runtime.errors import UserError

LayerNorm = functools.partial(
  nn.LayerNorm, scale_init=initialise.ones, bias_init=initialise.zeros
)


# GELU by the error function, as PyTorch's; JAX's own is an approximation.
exact_gelu = functools.partial(nn.gelu, approximate=False)


class Linear(nn.Module):
  """A dense layer from the axes `inputs` to the axes `outputs`."""

  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  bias: bool = True
  bias_init: initialise.Initializer = initialise.zeros
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    fan_in, fan_out = math.prod(self.inputs), math.prod(self.outputs)
    kernel = self.param(
      'kernel',
      initialise.normal(math.sqrt(2 / (fan_in + fan_out))),  # Glorot's.
      (*self.inputs, *self.outputs),
    )
    kernel = kernel.astype(self.dtype).reshape(fan_in, fan_out)
    x = x.reshape(*x.shape[: x.ndim - len(self.inputs)], fan_in)
    y = x.astype(self.dtype) @ kernel
    if self.bias:
      bias = self.param('bias', self.bias_init, self.outputs)
      y = y + bias.astype(self.dtype).reshape(fan_out)
    return y.reshape(*y.shape[:-1], *self.outputs)


class Mlp(nn.Module):
  """Two dense layers with an activation between."""

  hidden: int
  activation: Callable[[jax.Array], jax.Array]
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    inputs, hidden = x.shape[-1:], (self.hidden,)
    x = Linear(inputs, hidden, dtype=self.dtype, name='Dense_0')(x)
    x = self.activation(x)
    return Linear(hidden, inputs, dtype=self.dtype, name='Dense_1')(x)


def rising_paths(
  keys: jax.Array | None, drop_path: float, depth: int
) -> list[jax.Array] | list[None]:
  """Factors of drop path for `depth` blocks of two branches each.

  Block i drops each of its branches with probability
  `drop_path * i / (depth - 1)`.

  Args:
    keys: [B] PRNG keys; not read if nothing is dropped.
    drop_path: the last block's probability, in [0, 1).
    depth: the number of blocks.

  Returns:
    `depth` arrays of [2, B] float32, or `depth` times None if `drop_path` is 0.
  """
  if not drop_path:
    return [None] * depth
  rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
  scales = path_scales(keys, tuple(r for r in rates for _ in range(2)))
  return list(scales.reshape(depth, 2, -1))


def add_branch(x: jax.Array, y: jax.Array, path: jax.Array | None) -> jax.Array:
  """`x + path * y`, the factor of drop path being [B] float32 or None."""
  if path is None:
    return x + y
  # In float32: a factor rounded to bfloat16 would change the expectation.
  scale = path.reshape(-1, *[1] * (y.ndim - 1))
  return (x + scale * y).astype(x.dtype)


def split_patches(x: jax.Array, patch: int) -> jax.Array:
  """[B, H, W, 3] to [B, H / p, W / p, p, p, 3].

  Raises:
    UserError: p divides not both H and W.
  """
  b, height, width, channels = x.shape
  if height % patch or width % patch:
    raise UserError(
      f'Images of {height} x {width} pixels do not divide into patches of '
      f'{patch}: choose an image size that is a multiple of {patch}.'
    )
  h, w = height // patch, width // patch
  x = x.reshape(b, h, patch, w, patch, channels)
  return x.transpose(0, 1, 3, 2, 4, 5)


def resize_bicubic(
  x: jax.Array, height: int, width: int, *, antialias: bool = False
) -> jax.Array:
  """PyTorch's bicubic of [B, H, W, C], corners not aligned.

  Its cubic has a = -0.75, but a = -0.5 with `antialias`, which widens it where
  the image shrinks.
  """
  shape = (x.shape[0], height, width, x.shape[3])
  method = jax.image.ResizeMethod.CUBIC_PYTORCH
  if antialias:
    method = jax.image.ResizeMethod.CUBIC
  return jax.image.resize(x, shape, method, antialias=antialias)


_LEAVES = {
  'kernel', 'scale', 'bias', 'cls', 'registers', 'pos_embedding',
  'relative_position_bias',
}  # fmt: skip


def rename(
  name: str,
  array: np.ndarray,
  prefix: str,
  patterns: tuple[tuple[str, str], ...],
) -> tuple[str, np.ndarray]:
  """One PyTorch array of a transformer under our name, in our layout.

  Args:
    name: theirs.
    array: a kernel is [out, in], or [out, in, h, w].
    prefix: a regex of what may stand before every name.
    patterns: (regex, ours), each applied in turn.

  Returns:
    Our name, or theirs where it names nothing of ours, and the array.
  """
  ours = re.sub(prefix, '', name)
  for pattern, new in patterns:
    ours = re.sub(pattern, new, ours)
  if ours.endswith('/weight'):
    leaf = 'scale' if array.ndim == 1 else 'kernel'
    ours = ours.removesuffix('weight') + leaf
    array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
  known = '.' not in ours and ours.rpartition('/')[2] in _LEAVES
  return ours if known else name, array


def split_qkv(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
  """An array of queries, keys and values, [..., 3 C], as three by their names.

  Args:
    name: ours, with the part '/qkv/'; any other array comes back alone, as does
      one that is not three of one width.
    array: in our layout.
  """
  if '/qkv/' not in name or not array.ndim or array.shape[-1] % 3:
    return {name: array}
  parts = zip(('query', 'key', 'value'), np.split(array, 3, -1), strict=True)
  return {name.replace('/qkv/', f'/{part}/'): x for part, x in parts}
