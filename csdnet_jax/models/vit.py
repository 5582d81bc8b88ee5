"""The vision transformer, under the parameter names of the original release.

Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021. A parameter's
path joined by '/' is its key in the released `.npz` files. GELU is the tanh
approximation and LayerNorm has epsilon 1e-6, as there.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from csdnet_jax.errors import UserError
from csdnet_jax.models.dropout import dropout, path_scales

MEAN = (0.5,) * 3
STD = (0.5,) * 3
HAS_BATCH_NORM = False


def _kernel(*shape: int, fan_in: int, fan_out: int):
  """Glorot's deviation, to be drawn: see `csdnet_jax.models.draw`."""
  deviation = math.sqrt(2 / (fan_in + fan_out))
  return nn.initializers.constant(deviation), shape


class Linear(nn.Module):
  """A dense layer from the axes `inputs` to the axes `outputs`."""

  inputs: tuple[int, ...]
  outputs: tuple[int, ...]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    fan_in, fan_out = math.prod(self.inputs), math.prod(self.outputs)
    kernel = self.param(
      'kernel',
      *_kernel(*self.inputs, *self.outputs, fan_in=fan_in, fan_out=fan_out),
    )
    bias = self.param('bias', nn.initializers.zeros, self.outputs)
    x = x.reshape(*x.shape[: x.ndim - len(self.inputs)], fan_in)
    y = x @ kernel.reshape(fan_in, fan_out) + bias.reshape(fan_out)
    return y.reshape(*y.shape[:-1], *self.outputs)


class Attention(nn.Module):
  """Multi-head self-attention over tokens [B, N, C]."""

  heads: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width = x.shape[-1]
    split = (self.heads, width // self.heads)
    query, key, value = (
      Linear((width,), split, name=name)(x)
      for name in ('query', 'key', 'value')
    )
    y = jax.nn.dot_product_attention(query, key, value)
    return Linear(split, (width,), name='out')(y)


class Mlp(nn.Module):
  """Two dense layers with a GELU between."""

  hidden: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width = x.shape[-1]
    x = nn.gelu(Linear((width,), (self.hidden,), name='Dense_0')(x))
    return Linear((self.hidden,), (width,), name='Dense_1')(x)


class Block(nn.Module):
  """Attention, then the MLP, each after a LayerNorm and beside a shortcut."""

  heads: int
  mlp: int

  @nn.compact
  def __call__(self, x, paths):
    y = nn.LayerNorm(1e-6, name='LayerNorm_0')(x)
    y = Attention(self.heads, name='MultiHeadDotProductAttention_1')(y)
    if paths is not None:
      y = y * paths[0, :, None, None]
    x = x + y
    y = nn.LayerNorm(1e-6, name='LayerNorm_2')(x)
    y = Mlp(self.mlp, name='MlpBlock_3')(y)
    if paths is not None:
      y = y * paths[1, :, None, None]
    return x + y


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
    return x + self.param(name, nn.initializers.constant(0.02), shape)


class Encoder(nn.Module):
  """Position embeddings, `depth` blocks, the final LayerNorm."""

  depth: int
  heads: int
  mlp: int
  remat: bool

  @nn.compact
  def __call__(self, x, paths):
    x = PositionEmbedding(name='posembed_input')(x)
    make = nn.remat(Block) if self.remat else Block
    for i in range(self.depth):
      x = make(self.heads, self.mlp, name=f'encoderblock_{i}')(x, paths[i])
    return nn.LayerNorm(1e-6, name='encoder_norm')(x)


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
    remat: recompute each block in the backward pass instead of keeping it.
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
  remat: bool = False

  @nn.compact
  def __call__(self, x, *, train, keys, axis):
    del axis  # Nothing here looks across the batch.
    x = split_patches(x, self.patch)
    x = Linear(x.shape[3:], (self.width,), name='embedding')(x)
    b, h, w, c = x.shape
    x = x.reshape(b, h * w, c)
    if self.pool == 'cls':
      token = self.param('cls', nn.initializers.zeros, (1, 1, c))
      x = jnp.concatenate([jnp.broadcast_to(token, (b, 1, c)), x], axis=1)
    paths = [None] * self.depth
    if train and self.drop_path:
      last = max(self.depth - 1, 1)
      rates = [self.drop_path * i / last for i in range(self.depth)]
      paths = path_scales(keys, tuple(r for r in rates for _ in range(2)))
      paths = paths.reshape(self.depth, 2, b)
    encoder = Encoder(
      self.depth, self.heads, self.mlp, self.remat, name='Transformer'
    )
    x = encoder(x, paths)
    if self.pool == 'cls':
      embedding, patches = x[:, 0], x[:, 1:]
    else:
      embedding, patches = jnp.mean(x, 1), x
    z = embedding
    if train and self.drop_rate:
      z = dropout(z, keys, self.drop_rate)
    zeros = nn.initializers.zeros
    logits = nn.Dense(self.classes, kernel_init=zeros, name='head')(z)
    return patches.reshape(b, h, w, c), embedding, logits


def resample_positions(
  table: jax.Array, tokens: int, *, extra: int
) -> jax.Array:
  """Position embeddings for another image size, as PyTorch resamples them.

  Args:
    table: [1, extra + g * g, C] float32.
    tokens: the number of tokens wanted, `extra` included.
    extra: 1 if the first row belongs to a class token, which keeps it, or 0.

  Returns:
    [1, tokens, C] float32.

  Raises:
    UserError: either number of patch tokens is not a square.
  """
  old = math.isqrt(table.shape[1] - extra)
  new = math.isqrt(tokens - extra)
  if old**2 + extra != table.shape[1] or new**2 + extra != tokens:
    raise UserError(
      f'Position embeddings for {table.shape[1]} tokens cannot become {tokens} '
      f'tokens: less {extra} class token, both must be squares; use square '
      'images and weights made with square images.'
    )
  grid = table[:, extra:].reshape(1, old, old, -1)
  grid = resize_bicubic(grid, new, new).reshape(1, new * new, -1)
  return jnp.concatenate([table[:, :extra], grid], axis=1)


def resize_bicubic(x: jax.Array, height: int, width: int) -> jax.Array:
  """PyTorch's bicubic of [B, H, W, C]: a = -0.75, corners not aligned."""
  shape = (x.shape[0], height, width, x.shape[3])
  method = jax.image.ResizeMethod.CUBIC_PYTORCH
  return jax.image.resize(x, shape, method, antialias=False)
