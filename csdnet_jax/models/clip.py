"""CLIP's image tower, under the names of `vit.py`: BioCLIP's are such.

Radford et al., Learning Transferable Visual Models from Natural Language
Supervision, ICML 2021: a LayerNorm before the blocks, epsilon 1e-5, no bias on
the patches. BioCLIP (Stevens et al., CVPR 2024) began as OpenAI's, which has a
GELU of its own; BioCLIP 2 as LAION's, which has the exact one. The embedding is
the class token before its projection beside texts.
"""

import functools
from collections.abc import Callable
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
  exact_gelu,
  rename,
  rising_paths,
  split_patches,
  split_qkv,
)
from csdnet_jax.models.vit import (
  ATTENTION,
  POSITIONS,
  Block,
  PositionEmbedding,
)

_EPSILON = 1e-5


def quick_gelu(x: jax.Array) -> jax.Array:
  """`x sigmoid(1.702 x)`, OpenAI's approximation of the GELU."""
  return x * jax.nn.sigmoid(1.702 * x)


class Encoder(nn.Module):
  """Positions, a LayerNorm, the blocks, the last LayerNorm in float32."""

  depth: int
  block: Callable[..., nn.Module]

  @nn.compact
  def __call__(self, x, paths):
    x = PositionEmbedding(name='posembed_input')(x)
    x = LayerNorm(_EPSILON, dtype=x.dtype, name='pre_norm')(x)
    for i in range(self.depth):
      x = self.block(name=f'encoderblock_{i}')(x, paths[i])
    return LayerNorm(_EPSILON, dtype=jnp.float32, name='encoder_norm')(x)


class Net(nn.Module):
  """A tower of any width, depth and patch.

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
    quick_gelu: whether the MLPs have OpenAI's GELU, not the exact one.
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
  quick_gelu: bool = False
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, *, train, keys, axis):
    del axis  # Nothing here looks across the batch.
    x = split_patches(x, self.patch)
    embed = Linear(
      x.shape[3:], (self.width,), bias=False, dtype=self.dtype,
      name='embedding',
    )  # fmt: skip
    x = embed(x)
    b, h, w, c = x.shape
    token = self.param('cls', initialise.zeros, (1, 1, c))
    token = jnp.broadcast_to(token.astype(x.dtype), (b, 1, c))
    x = jnp.concatenate([token, x.reshape(b, h * w, c)], axis=1)
    paths = rising_paths(keys, self.drop_path * train, self.depth)
    gelu = quick_gelu if self.quick_gelu else exact_gelu
    block = functools.partial(
      nn.remat(Block) if self.remat else Block,
      self.heads,
      functools.partial(Mlp, self.mlp, gelu, self.dtype),
      False,
      self.dtype,
      _EPSILON,
    )
    x = Encoder(self.depth, block, name='Transformer')(x, paths)
    embedding, patches = x[:, 0], x[:, 1:]
    logits = classify(
      embedding, self.classes,
      drop_rate=self.drop_rate, train=train, keys=keys,
    )  # fmt: skip
    return patches.reshape(b, h, w, c), embedding, logits


# Names of open_clip, whose text has some of the same without 'visual.', then of
# transformers: the first match counts.
_PATTERNS = (
  (r'^(visual\.conv1|embeddings\.patch_embedding)\.', 'embedding/'),
  (r'^(visual|embeddings)\.class_embedding$', 'cls'),
  (r'^(visual\.positional_embedding|embeddings\.position_embedding\.weight)$',
   POSITIONS),
  (r'^(visual\.ln_pre|pre_layrnorm)\.', 'Transformer/pre_norm/'),
  (r'^(visual\.ln_post|post_layernorm)\.', 'Transformer/encoder_norm/'),
  (r'^(?:visual\.transformer\.resblocks|encoder\.layers)\.(\d+)\.',
   r'Transformer/encoderblock_\1/'),
  (r'/(ln_1|layer_norm1)\.', '/LayerNorm_0/'),
  (r'/(ln_2|layer_norm2)\.', '/LayerNorm_2/'),
  (r'/attn\.in_proj_', f'{ATTENTION}qkv/'),
  (r'/(attn|self_attn)\.out_proj\.', f'{ATTENTION}out/'),
  (r'/self_attn\.q_proj\.', f'{ATTENTION}query/'),
  (r'/self_attn\.k_proj\.', f'{ATTENTION}key/'),
  (r'/self_attn\.v_proj\.', f'{ATTENTION}value/'),
  (r'/mlp\.(c_fc|fc1)\.', '/MlpBlock_3/Dense_0/'),
  (r'/mlp\.(c_proj|fc2)\.', '/MlpBlock_3/Dense_1/'),
)  # fmt: skip


def from_torch(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Arrays of a PyTorch CLIP under our names, in our layout.

  The axes of attention stay joined, as those of `vit.from_torch`.

  Args:
    arrays: as open_clip or transformers name them, with or without the tower of
      the texts.

  Returns:
    The image tower's under our names; a name that is none of its is kept.
  """
  ours = {}
  for name, array in arrays.items():
    name, array = rename(name, array, r'^vision_model\.', _PATTERNS)
    if name in ('cls', POSITIONS) and array.ndim and array.size:
      array = array.reshape(1, -1, array.shape[-1])
    ours |= split_qkv(name, array)
  return ours
