"""DINOv3's vision transformer, under the names of `vit.py`.

Simeoni et al., DINOv3, 2025 (arXiv 2508.10104), as the release computes it:
rotary positions, registers, a learnt factor a channel on each branch, LayerNorm
with epsilon 1e-5, no bias on the keys and, in some sizes, a gated MLP. What
moves the places at random while it is pretrained is left out.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from csdnet_jax.models import initialise, rotary
from csdnet_jax.models.head import classify
from csdnet_jax.models.transformer import (
  LayerNorm,
  Linear,
  Mlp,
  exact_gelu,
  rename,
  rising_paths,
  split_patches,
  split_qkv,
)
from csdnet_jax.models.vit import ATTENTION, Block

_EPSILON = 1e-5


class GatedMlp(nn.Module):
  """`W (silu(U x) * V x)`: SwiGLU; Shazeer, GLU Variants, 2020."""

  hidden: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    inputs, hidden = x.shape[-1:], (self.hidden,)
    linear = functools.partial(Linear, dtype=self.dtype)
    gate = nn.silu(linear(inputs, hidden, name='Gate_0')(x))
    x = gate * linear(inputs, hidden, name='Dense_0')(x)
    return linear(hidden, inputs, name='Dense_1')(x)


class Encoder(nn.Module):
  """Class token and registers, the blocks, the last LayerNorm in float32."""

  depth: int
  registers: int
  block: Callable[..., nn.Module]

  @nn.compact
  def __call__(self, x, paths, rotation):
    b, _, c = x.shape
    # No position is added to them: at zero, LayerNorm's gradient explodes.
    tokens = self.param(
      'registers', initialise.normal(0.02), (1, self.registers, c)
    )
    tokens = jnp.broadcast_to(tokens.astype(x.dtype), (b, *tokens.shape[1:]))
    x = jnp.concatenate([x[:, :1], tokens, x[:, 1:]], axis=1)
    for i in range(self.depth):
      x = self.block(name=f'encoderblock_{i}')(x, paths[i], rotation)
    x = jnp.concatenate([x[:, :1], x[:, 1 + self.registers :]], axis=1)
    return LayerNorm(_EPSILON, dtype=jnp.float32, name='encoder_norm')(x)


class Net(nn.Module):
  """A DINOv3 of any width, depth and patch; its embedding is a class token.

  Attributes:
    classes: the width of the head, whose kernel starts at zero.
    drop_rate: dropout of the embedding before the head.
    drop_path: block i of n drops each branch of its two with probability
      drop_path * i / (n - 1).
    width: C, the width of a token.
    depth: the number of blocks.
    heads: the number of attention heads, of a multiple of 4 channels each.
    mlp: the hidden width of a block's MLP.
    patch: the side of a patch in pixels.
    gated: whether the MLP is gated by a third dense layer.
    registers: the number of register tokens, which take part in attention and
      are dropped at the end.
    periods: what the periods of the positions are rounded to: 'bfloat16' as in
      the release, or 'float32' as in timm and transformers.
    remat: recompute each block in the backward pass instead of keeping it.
    dtype: of the matrix products and activations; parameters, LayerNorm's
      moments, rotations, softmax and what follows the last LayerNorm are
      float32.
  """

  classes: int
  drop_rate: float
  drop_path: float
  width: int
  depth: int
  heads: int
  mlp: int
  patch: int
  gated: bool = False
  registers: int = 4
  periods: str = 'bfloat16'
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
    token = self.param('cls', initialise.normal(0.02), (1, 1, c))
    token = jnp.broadcast_to(token.astype(x.dtype), (b, 1, c))
    x = jnp.concatenate([token, x.reshape(b, h * w, c)], axis=1)
    lengths = rotary.periods(
      self.width // self.heads, dtype=jnp.dtype(self.periods)
    )
    rotation = rotary.rotation(h, w, lengths, unplaced=1 + self.registers)
    paths = rising_paths(keys, self.drop_path * train, self.depth)
    mlp = functools.partial(Mlp, self.mlp, exact_gelu)
    if self.gated:
      mlp = functools.partial(GatedMlp, self.mlp)
    block = functools.partial(
      nn.remat(Block) if self.remat else Block,
      self.heads,
      functools.partial(mlp, self.dtype),
      True,
      self.dtype,
      _EPSILON,
      False,
    )
    encoder = Encoder(self.depth, self.registers, block, name='Transformer')
    x = encoder(x, paths, rotation)
    embedding, patches = x[:, 0], x[:, 1:]
    logits = classify(
      embedding, self.classes,
      drop_rate=self.drop_rate, train=train, keys=keys,
    )  # fmt: skip
    return patches.reshape(b, h, w, c), embedding, logits


# Names of timm and of the release, then of transformers: the first match
# counts.
_MLP = '/MlpBlock_3/'
_PATTERNS = (
  (r'^patch_embed\.proj\.', 'embedding/'),
  (r'^embeddings\.patch_embeddings\.', 'embedding/'),
  (r'^(embeddings\.)?cls_token$', 'cls'),
  (r'^(storage_tokens|reg_token|embeddings\.register_tokens)$',
   'Transformer/registers'),
  (r'^norm\.', 'Transformer/encoder_norm/'),
  (r'^(head|classifier)\.', 'head/'),
  (r'^(?:blocks|layer)\.(\d+)\.', r'Transformer/encoderblock_\1/'),
  (r'/norm1\.', '/LayerNorm_0/'),
  (r'/norm2\.', '/LayerNorm_2/'),
  (r'/(attn\.proj|attention\.o_proj)\.', f'{ATTENTION}out/'),
  (r'/attention\.q_proj\.', f'{ATTENTION}query/'),
  (r'/attention\.k_proj\.', f'{ATTENTION}key/'),
  (r'/attention\.v_proj\.', f'{ATTENTION}value/'),
  (r'/attn\.q_bias$', f'{ATTENTION}query/bias'),
  (r'/attn\.v_bias$', f'{ATTENTION}value/bias'),
  (r'/attn\.qkv\.', f'{ATTENTION}qkv/'),
  (r'/mlp\.(fc1_g|w1|gate_proj)\.', f'{_MLP}Gate_0/'),
  (r'/mlp\.(fc1_x|fc1|w2|up_proj)\.', f'{_MLP}Dense_0/'),
  (r'/mlp\.(fc2|w3|down_proj)\.', f'{_MLP}Dense_1/'),
  (r'/(gamma_1|ls1\.gamma|layer_scale1\.lambda1)$', '/LayerScale_0/scale'),
  (r'/(gamma_2|ls2\.gamma|layer_scale2\.lambda1)$', '/LayerScale_1/scale'),
)  # fmt: skip


def from_torch(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Arrays of a PyTorch DINOv3 under our names, in our layout.

  The axes of attention stay joined, as those of `vit.from_torch`. timm leaves
  the biases of queries and values out of the whole file where all are zero:
  they are added. The release masks the third of a bias that is the keys': it
  is left out.

  Args:
    arrays: as timm, the release, or transformers name them.

  Returns:
    The same under our names; a name that is none of theirs is kept.
  """
  ours = {}
  biased = re.compile(r'\.(qkv\.bias|[qv]_bias)$').search
  unbiased = not any(map(biased, arrays))
  for name, array in arrays.items():
    masked = f'{name}_mask' in arrays
    name, array = rename(name, array, r'^model\.', _PATTERNS)
    parts = split_qkv(name, array)
    if masked:
      parts = {k: x for k, x in parts.items() if not k.endswith('/key/bias')}
    ours |= parts
    if unbiased and name.endswith('/qkv/kernel') and array.ndim:
      zeros = np.zeros(array.shape[0], np.float32)
      for part in ('query', 'value'):
        ours.setdefault(name.replace('qkv/kernel', f'{part}/bias'), zeros)
  return ours
