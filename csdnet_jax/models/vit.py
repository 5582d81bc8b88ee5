"""The vision transformer, under the parameter names of the original release.

Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021. A parameter's
path joined by '/' is its key in the released `.npz` files. GELU is the tanh
approximation and LayerNorm has epsilon 1e-6, as there; weights that PyTorch
users know from timm or transformers by the same name were trained so too.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from csdnet_jax.models import initialise, kernels, rotary, target
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
  split_qkv,
)
from csdnet_jax.runtime.errors import UserError


class Attention(nn.Module):
  """Multi-head self-attention over tokens [B, N, C].

  Attributes:
    heads: their number.
    dtype: of the products.
    key_bias: whether the keys have a bias, which softmax cancels where nothing
      turns them.
  """

  heads: int
  dtype: Any
  key_bias: bool = True

  @nn.compact
  def __call__(
    self, x: jax.Array, rotation: rotary.Rotation | None = None
  ) -> jax.Array:
    width = x.shape[-1]
    split = (self.heads, width // self.heads)
    query, key, value = (
      Linear((width,), split, bias, dtype=self.dtype, name=name)(x)
      for name, bias in (
        ('query', True), ('key', self.key_bias), ('value', True)
      )
    )  # fmt: skip
    if rotation is not None:
      query, key = (rotary.rotate(x, rotation) for x in (query, key))
    y = attend(query, key, value, _implementation(self.dtype))
    return Linear(split, (width,), dtype=self.dtype, name='out')(y)


def attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  implementation: str | None,
) -> jax.Array:
  """`softmax(query key^T / sqrt(d)) value` of each head, softmax in float32.

  cuDNN's kernel gets one token more where their number is odd, which its
  gradient refuses; it is masked and taken away again.

  Args:
    query, key, value: [B, N, heads, d] of one dtype.
    implementation: None, XLA's products; or 'cudnn', which takes bfloat16 and
      float16 on a GPU.

  Returns:
    The same shape and dtype.
  """
  attention = functools.partial(
    jax.nn.dot_product_attention, implementation=implementation
  )
  b, n = query.shape[:2]
  if implementation != 'cudnn' or n % 2 == 0:
    return attention(query, key, value)
  query, key, value = (
    jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (query, key, value)
  )
  lengths = jnp.full(b, n, jnp.int32)
  y = attention(
    query, key, value, query_seq_lengths=lengths, key_value_seq_lengths=lengths
  )
  return y[:, :n]


def _implementation(dtype) -> str | None:
  # cuDNN's attention never writes the N x N weights to memory; it takes half
  # precision only, and exists on a GPU only. JAX cannot map it over networks
  # where a token is padded.
  half = dtype == jnp.bfloat16 and not kernels.many_networks()
  return 'cudnn' if half and target.platform() == 'cuda' else None


class LayerScale(nn.Module):
  """Multiplies each channel by a learnt factor that starts at 1."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    scale = self.param('scale', initialise.ones, x.shape[-1:])
    return x * scale.astype(x.dtype)


class Block(nn.Module):
  """Attention, then the MLP, each after a LayerNorm and beside a shortcut.

  Attributes:
    heads: of the attention.
    mlp: makes the MLP, given its name.
    layer_scale: whether each branch has a learnt factor a channel.
    dtype: of the products and activations.
    epsilon: of the LayerNorms.
    key_bias: of `Attention`.
  """

  heads: int
  mlp: Callable[..., nn.Module]
  layer_scale: bool
  dtype: Any
  epsilon: float = 1e-6
  key_bias: bool = True

  @nn.compact
  def __call__(self, x, paths, rotation=None):
    first, second = (None, None) if paths is None else paths
    norm = functools.partial(LayerNorm, self.epsilon, dtype=self.dtype)
    y = norm(name='LayerNorm_0')(x)
    y = Attention(
      self.heads, self.dtype, self.key_bias,
      name='MultiHeadDotProductAttention_1',
    )(y, rotation)  # fmt: skip
    if self.layer_scale:
      y = LayerScale(name='LayerScale_0')(y)
    x = add_branch(x, y, first)
    y = self.mlp(name='MlpBlock_3')(norm(name='LayerNorm_2')(x))
    if self.layer_scale:
      y = LayerScale(name='LayerScale_1')(y)
    return add_branch(x, y, second)


class PositionEmbedding(nn.Module):
  """Adds one learnt vector to each token."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    name = 'pos_embedding'
    shape = (1, *x.shape[1:])
    if self.has_variable('params', name):
      made = self.get_variable('params', name).shape
      if made != shape:
        raise UserError(
          f'The images give {shape[1]} tokens but the position embeddings are '
          f'for {made[1]}: use the image size that the model was made with, '
          'or load the weights again for the new one.'
        )
    table = self.param(name, initialise.normal(0.02), shape)
    return x + table.astype(x.dtype)


class Encoder(nn.Module):
  """Positions, registers, the blocks, the final LayerNorm in float32."""

  depth: int
  registers: int
  block: Callable[..., nn.Module]

  @nn.compact
  def __call__(self, x, paths):
    x = PositionEmbedding(name='posembed_input')(x)
    if self.registers:
      # They have no place, so they come after the positions were added.
      shape = (1, self.registers, x.shape[-1])
      tokens = self.param('registers', initialise.zeros, shape)
      tokens = jnp.broadcast_to(tokens.astype(x.dtype), (len(x), *shape[1:]))
      x = jnp.concatenate([x[:, :1], tokens, x[:, 1:]], axis=1)
    for i in range(self.depth):
      x = self.block(name=f'encoderblock_{i}')(x, paths[i])
    if self.registers:
      x = jnp.concatenate([x[:, :1], x[:, 1 + self.registers :]], axis=1)
    return LayerNorm(1e-6, dtype=jnp.float32, name='encoder_norm')(x)


class Net(nn.Module):
  """A ViT of any width, depth and patch.

  Attributes:
    classes: the width of the head, whose kernel starts at zero.
    drop_rate: dropout of the embedding before the head.
    drop_path: block i of n drops each branch of its two with probability
      drop_path * i / (n - 1).
    width: C, the width of a token.
    depth: the number of blocks.
    heads: the number of attention heads.
    mlp: the hidden width of a block's MLP.
    patch: the side of a patch in pixels.
    pool: 'cls', the embedding is a class token; 'gap', the mean of the tokens.
    registers: the number of register tokens, which need a class token: they
      take part in attention and are dropped at the end.
    layer_scale: whether each branch has a learnt factor a channel.
    exact_gelu: GELU by the error function instead of its tanh approximation.
    remat: recompute each block in the backward pass instead of keeping it.
    dtype: of the matrix products and activations; parameters, LayerNorm's
      moments, softmax and what follows the last LayerNorm are float32.
  """

  classes: int
  drop_rate: float
  drop_path: float
  width: int
  depth: int
  heads: int
  mlp: int
  patch: int
  pool: str = 'cls'
  registers: int = 0
  layer_scale: bool = False
  exact_gelu: bool = False
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, *, train, keys, axis):
    del axis  # Nothing here looks across the batch.
    x = split_patches(x, self.patch)
    embed = Linear(
      x.shape[3:], (self.width,), dtype=self.dtype, name='embedding'
    )
    x = embed(x)
    b, h, w, c = x.shape
    x = x.reshape(b, h * w, c)
    if self.pool == 'cls':
      token = self.param('cls', initialise.zeros, (1, 1, c))
      token = jnp.broadcast_to(token.astype(x.dtype), (b, 1, c))
      x = jnp.concatenate([token, x], axis=1)
    paths = rising_paths(keys, self.drop_path * train, self.depth)
    block = functools.partial(
      nn.remat(Block) if self.remat else Block,
      self.heads,
      functools.partial(
        Mlp, self.mlp, exact_gelu if self.exact_gelu else nn.gelu, self.dtype
      ),
      self.layer_scale,
      self.dtype,
    )
    x = Encoder(self.depth, self.registers, block, name='Transformer')(x, paths)
    if self.pool == 'cls':
      embedding, patches = x[:, 0], x[:, 1:]
    else:
      embedding, patches = jnp.mean(x, 1), x
    logits = classify(
      embedding, self.classes,
      drop_rate=self.drop_rate, train=train, keys=keys,
    )  # fmt: skip
    return patches.reshape(b, h, w, c), embedding, logits


def resample_positions(
  table: jax.Array, tokens: int, *, extra: int, antialias: bool = False
) -> jax.Array:
  """Position embeddings for another image size, as PyTorch resamples them.

  Args:
    table: [1, extra + g * g, C] float32.
    tokens: the number of tokens wanted, `extra` included.
    extra: 1 if the first row belongs to a class token, which keeps it, or 0.
    antialias: see `resize_bicubic`.

  Returns:
    [1, tokens, C] float32.

  Raises:
    UserError: either number of patch tokens is not a square.
  """
  old, new = (math.isqrt(max(n - extra, 0)) for n in (table.shape[1], tokens))
  squares = (old**2 + extra, new**2 + extra) == (table.shape[1], tokens)
  if not (old and new and squares):
    raise UserError(
      f'Position embeddings for {table.shape[1]} tokens cannot become {tokens} '
      f'tokens: less {extra} class token, both must be squares; use square '
      'images and weights made with square images.'
    )
  grid = table[:, extra:].reshape(1, old, old, -1)
  grid = resize_bicubic(grid, new, new, antialias=antialias)
  grid = grid.reshape(1, new * new, -1)
  return jnp.concatenate([table[:, :extra], grid], axis=1)


# Of parameters, in every network that is made of these blocks.
ATTENTION = '/MultiHeadDotProductAttention_1/'
POSITIONS = 'Transformer/posembed_input/pos_embedding'

# Names of timm and of the DINOv2 release, then of transformers, where the
# query's, key's and value's have three spellings: the first match counts.
_BLOCK = r'^(?:blocks|layers|encoder\.layer)\.(\d+)\.'
_MODULES = (
  (r'^patch_embed\.proj\.', 'embedding/'),
  (r'^embeddings\.patch_embeddings\.projection\.', 'embedding/'),
  (r'^(embeddings\.)?cls_token$', 'cls'),
  (r'^(pos_embed|embeddings\.position_embeddings)$', POSITIONS),
  (r'^(register_tokens|reg_token|embeddings\.register_tokens)$',
   'Transformer/registers'),
  (r'^(norm|layernorm)\.', 'Transformer/encoder_norm/'),
  (r'^(head|classifier)\.', 'head/'),
  (_BLOCK, r'Transformer/encoderblock_\1/'),
)  # fmt: skip
_PARTS = (
  (r'/(norm1|layernorm_before)\.', '/LayerNorm_0/'),
  (r'/(norm2|layernorm_after)\.', '/LayerNorm_2/'),
  (r'/(attn\.proj|attention\.o_proj|attention\.output\.dense)\.',
   f'{ATTENTION}out/'),
  (r'/attention\.(?:attention\.)?(query|key|value)\.', rf'{ATTENTION}\1/'),
  (r'/attention\.q_proj\.', f'{ATTENTION}query/'),
  (r'/attention\.k_proj\.', f'{ATTENTION}key/'),
  (r'/attention\.v_proj\.', f'{ATTENTION}value/'),
  (r'/attn\.qkv\.', f'{ATTENTION}qkv/'),
  (r'/(mlp\.fc1|intermediate\.dense)\.', '/MlpBlock_3/Dense_0/'),
  (r'/(mlp\.fc2|output\.dense)\.', '/MlpBlock_3/Dense_1/'),
  (r'/(ls1\.gamma|layer_scale1\.lambda1)$', '/LayerScale_0/scale'),
  (r'/(ls2\.gamma|layer_scale2\.lambda1)$', '/LayerScale_1/scale'),
)  # fmt: skip
_PREFIX = r'^(vit|dinov2|dinov2_with_registers)\.'


def from_torch(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Arrays of a PyTorch ViT under our names, in our layout.

  The axes of attention stay joined, [C, C] where ours are [C, heads, d]: the
  number of heads stands in no file.

  Args:
    arrays: as timm, the DINOv2 release, or transformers (4 and 5) name them.

  Returns:
    The same under our names; a name that is none of theirs is kept.
  """
  ours = {}
  for name, array in arrays.items():
    name, array = rename(name, array, _PREFIX, _MODULES + _PARTS)
    ours |= split_qkv(name, array)
  table = ours.get(POSITIONS)
  if 'reg_token' in arrays and table is not None and table.ndim == 3:
    # timm gives no position to the class token, having added it.
    ours[POSITIONS] = np.pad(table, ((0, 0), (1, 0), (0, 0)))
  return ours
