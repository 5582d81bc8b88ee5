"""Swin: attention in windows of a map that shrinks stage by stage.

Liu et al., Swin Transformer, ICCV 2021, version 1, as Microsoft's release and
transformers compute it: exact GELU, LayerNorm with epsilon 1e-5, and a map that
the window does not divide is padded with zeros after the LayerNorm, then
shifted. (timm pads after the shift: there such maps give other values.)
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from csdnet_jax.models import initialise
from csdnet_jax.models.head import classify
from csdnet_jax.models.transformer import (
  LayerNorm,
  Linear,
  Mlp,
  add_branch,
  exact_gelu,
  rename,
  resize_bicubic,
  rising_paths,
  split_patches,
)
from csdnet_jax.runtime.errors import UserError

PATCH = 4


def split_windows(x: jax.Array, window: int) -> jax.Array:
  """[B, H, W, ...] to [B, H / w * W / w, w * w, ...]; w divides H and W."""
  b, height, width, *rest = x.shape
  h, w = height // window, width // window
  x = x.reshape(b, h, window, w, window, *rest).swapaxes(2, 3)
  return x.reshape(b, h * w, window * window, *rest)


def join_windows(x: jax.Array, height: int, width: int) -> jax.Array:
  """The inverse of `split_windows`: [B, n, w * w, ...] to [B, H, W, ...]."""
  b, _, area, *rest = x.shape
  window = math.isqrt(area)
  h, w = height // window, width // window
  x = x.reshape(b, h, w, window, window, *rest).swapaxes(2, 3)
  return x.reshape(b, height, width, *rest)


def relative_positions(window: int) -> np.ndarray:
  """The row of the bias table for each pair of a window's places.

  `(y_q - y_k + w - 1) * (2 w - 1) + (x_q - x_k + w - 1)`

  Returns:
    [w * w, w * w] int, the query's place first.
  """
  places = np.indices((window, window)).reshape(2, -1)
  y, x = places[:, :, None] - places[:, None] + window - 1
  return y * (2 * window - 1) + x


def shifted_regions(
  height: int, width: int, window: int, shift: int
) -> np.ndarray:
  """Which part of the unrolled map each place of a rolled map came from.

  Only places with one number were neighbours before the map was rolled.

  Returns:
    [H / w * W / w, w * w] int, the windows in the order of `split_windows`.
  """

  def parts(size):
    places = np.arange(size)
    return 1 * (places >= size - window) + (places >= size - shift)

  regions = 3 * parts(height)[:, None] + parts(width)
  return np.asarray(split_windows(regions[None], window)[0])


class WindowAttention(nn.Module):
  """Multi-head self-attention inside each window of a map [B, H, W, C].

  With a shift s the windows are moved by s places in both directions, and
  those that wrap around the map are split again by a mask. Projections act on
  single places, so they are made on the whole map: only the queries, keys and
  values are rearranged into windows, in one transposition.
  """

  heads: int
  window: int
  shift: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    height, width, channels = x.shape[1:]
    window, shift = self.window, self.shift
    # As in the release, padding is masked as places beyond the seam only:
    # where a window holds some, its keys and values are the biases.
    padding = [(0, -n % window) for n in (height, width)]
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = x.shape[1:3]
    split = (3, self.heads, channels // self.heads)
    qkv = Linear((channels,), split, dtype=self.dtype, name='qkv')(x)
    qkv = jnp.roll(qkv, (-shift, -shift), (1, 2)) if shift else qkv
    qkv = split_windows(qkv, window)
    query, key, value = (qkv[:, :, :, i] for i in range(3))
    scores = jnp.einsum(
      'bwqhd,bwkhd->bwhqk', query, key, preferred_element_type=jnp.float32
    )
    scores = scores * split[-1] ** -0.5 + self._bias()
    if shift:
      regions = shifted_regions(rows, columns, window, shift)
      apart = regions[:, :, None] != regions[:, None]
      scores = jnp.where(apart[:, None], scores - 100, scores)
    weights = jax.nn.softmax(scores).astype(self.dtype)
    x = jnp.einsum('bwhqk,bwkhd->bwqhd', weights, value)
    x = join_windows(x, rows, columns)
    x = jnp.roll(x, (shift, shift), (1, 2)) if shift else x
    out = Linear(split[1:], (channels,), dtype=self.dtype, name='out')
    return out(x[:, :height, :width])

  def _bias(self):
    name, rows = 'relative_position_bias', (2 * self.window - 1) ** 2
    if self.has_variable('params', name):
      made = len(self.get_variable('params', name))
      if made != rows:
        raise UserError(
          f'The images give windows of {self.window} x {self.window} places '
          f'but the table of relative positions has {made} rows, not {rows}: '
          'use the image size that the model was made with, or load the '
          'weights again for the new one.'
        )
    deviation = initialise.normal(0.02)
    table = self.param(name, deviation, (rows, self.heads))
    return table[relative_positions(self.window)].transpose(2, 0, 1)


class Block(nn.Module):
  """Windows, then the MLP, each after a LayerNorm and beside a shortcut.

  A map no larger than the window is one window, of its own size, unshifted.
  """

  heads: int
  window: int
  shifted: bool
  dtype: Any

  @nn.compact
  def __call__(self, x, paths):
    first, second = (None, None) if paths is None else paths
    window = min(self.window, *x.shape[1:3])
    whole = min(x.shape[1:3]) <= self.window
    shift = self.window // 2 if self.shifted and not whole else 0
    y = LayerNorm(1e-5, dtype=self.dtype, name='attention_norm')(x)
    attention = WindowAttention(
      self.heads, window, shift, self.dtype, name='attention'
    )
    x = add_branch(x, attention(y), first)
    y = LayerNorm(1e-5, dtype=self.dtype, name='mlp_norm')(x)
    y = Mlp(4 * x.shape[-1], exact_gelu, self.dtype, name='mlp')(y)
    return add_branch(x, y, second)


class Merge(nn.Module):
  """Halves a map and doubles its channels; odd sides are padded with zeros."""

  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
    b, height, width, c = x.shape
    # The channels of a 2 x 2 square, column by column.
    x = x.reshape(b, height // 2, 2, width // 2, 2, c)
    x = x.transpose(0, 1, 3, 4, 2, 5).reshape(b, height // 2, width // 2, 4 * c)
    x = LayerNorm(1e-5, dtype=self.dtype, name='norm')(x)
    return Linear(
      (4 * c,), (2 * c,), bias=False, dtype=self.dtype, name='reduction'
    )(x)


class Net(nn.Module):
  """A Swin of any width, depths and window.

  Attributes:
    classes: the width of the head, whose kernel starts at zero.
    drop_rate: dropout of the embedding before the head.
    drop_path: block i of n in all drops each branch of its two with
      probability drop_path * i / (n - 1).
    width: C, the channels of the first stage; each further one has twice as
      many.
    depths: the number of blocks of each stage.
    heads: the number of attention heads in each stage.
    window: the side of a window in places of the map.
    remat: recompute each block in the backward pass instead of keeping it.
    dtype: of the matrix products and activations; parameters, LayerNorm's
      moments, softmax and what follows the last LayerNorm are float32.
  """

  classes: int
  drop_rate: float
  drop_path: float
  width: int
  depths: tuple[int, ...]
  heads: tuple[int, ...]
  window: int = 7
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, *, train, keys, axis):
    del axis  # Nothing here looks across the batch.
    x = split_patches(x, PATCH)
    # A patch of the mean colour is zero: without a bias and positions it would
    # stay so, and each LayerNorm would multiply its gradient by 300.
    embed = Linear(
      x.shape[3:], (self.width,), bias_init=initialise.normal(0.1),
      dtype=self.dtype, name='embedding',
    )  # fmt: skip
    norm = functools.partial(LayerNorm, 1e-5)
    x = norm(dtype=self.dtype, name='embedding_norm')(embed(x))
    paths = iter(rising_paths(keys, self.drop_path * train, sum(self.depths)))
    make = nn.remat(Block) if self.remat else Block
    for s, (depth, heads) in enumerate(
      zip(self.depths, self.heads, strict=True)
    ):
      if s:
        x = Merge(self.dtype, name=f'merge_{s}')(x)
      for i in range(depth):
        block = make(
          heads,
          self.window,
          i % 2 == 1,
          self.dtype,
          name=f'stage_{s}_block_{i}',
        )
        x = block(x, next(paths))
    features = norm(dtype=jnp.float32, name='norm')(x)
    embedding = jnp.mean(features, (1, 2))
    logits = classify(
      embedding, self.classes,
      drop_rate=self.drop_rate, train=train, keys=keys,
    )  # fmt: skip
    return features, embedding, logits


def resample_biases(table: jax.Array, rows: int) -> jax.Array:
  """A table of relative positions for another window, as PyTorch resamples it.

  Args:
    table: [(2 w - 1)^2, heads] float32.
    rows: (2 v - 1)^2 for the new window v.

  Returns:
    [rows, heads] float32.

  Raises:
    UserError: the table is of no window.
  """
  old, new = math.isqrt(len(table)), math.isqrt(rows)
  if old**2 != len(table) or not old % 2:
    raise UserError(
      f'A table of {len(table)} relative positions is of no square window; use '
      'weights made with square windows.'
    )
  grid = resize_bicubic(table.reshape(1, old, old, -1), new, new)
  return grid.reshape(rows, -1)


_MODULES = (
  (r'^patch_embed\.proj\.', 'embedding/'),
  (r'^patch_embed\.norm\.', 'embedding_norm/'),
  (r'^embeddings\.patch_embeddings\.projection\.', 'embedding/'),
  (r'^embeddings\.norm\.', 'embedding_norm/'),
  (r'^(norm|layernorm)\.', 'norm/'),
  (r'^(head\.fc|head|classifier)\.', 'head/'),
  (r'^(?:encoder\.)?layers\.(\d+)\.blocks\.(\d+)\.', r'stage_\1_block_\2/'),
  (r'^(?:encoder\.)?layers\.(\d+)\.downsample\.(norm|reduction)\.',
   r'merge_\1/\2/'),
  (r'/(norm1|layernorm_before)\.', '/attention_norm/'),
  (r'/(norm2|layernorm_after)\.', '/mlp_norm/'),
  (r'/attn\.(qkv)\.', r'/attention/\1/'),
  (r'/attention\.(?:self\.)?(query|key|value)\.', r'/attention/\1/'),
  (r'/attention\.q_proj\.', '/attention/query/'),
  (r'/attention\.k_proj\.', '/attention/key/'),
  (r'/attention\.v_proj\.', '/attention/value/'),
  (r'/(attn\.proj|attention\.o_proj|attention\.output\.dense)\.',
   '/attention/out/'),
  (r'/att\w+\.(?:self\.|relative_position_bias\.)?relative_position_bias_table$',
   '/attention/relative_position_bias'),
  (r'/(mlp\.fc1|intermediate\.dense)\.', '/mlp/Dense_0/'),
  (r'/(mlp\.fc2|output\.dense)\.', '/mlp/Dense_1/'),
)  # fmt: skip


def from_torch(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Arrays of a PyTorch Swin under our names, in our layout.

  The axes of attention stay joined, [C, 3 C] where ours are
  [C, 3, heads, d]: the number of heads stands in no file.

  Args:
    arrays: as timm, Microsoft's release, or transformers (4 and 5) name them.

  Returns:
    The same under our names; a name that is none of theirs is kept.
  """
  ours = dict(
    rename(name, array, r'^swin\.', _MODULES) for name, array in arrays.items()
  )
  # All but timm count the merge to the stage before it.
  if 'merge_0/reduction/kernel' in ours:
    for s in sorted({int(n[6]) for n in ours if n.startswith('merge_')})[::-1]:
      for leaf in ('norm/scale', 'norm/bias', 'reduction/kernel'):
        if f'merge_{s}/{leaf}' in ours:
          ours[f'merge_{s + 1}/{leaf}'] = ours.pop(f'merge_{s}/{leaf}')
  for name in [name for name in ours if '/attention/query/' in name]:
    parts = [name.replace('query', part) for part in ('query', 'key', 'value')]
    shapes = {ours[part].shape if part in ours else () for part in parts}
    if len(shapes) == 1 and () not in shapes:
      joined = np.concatenate([ours.pop(part) for part in parts], -1)
      ours[name.replace('query', 'qkv')] = joined
  return ours
