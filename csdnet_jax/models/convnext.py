"""ConvNeXt: a convolutional network with the parts of a Swin.

Liu et al., A ConvNet for the 2020s, CVPR 2022, as its release, timm and
transformers compute it: exact GELU, LayerNorm with epsilon 1e-6. DINOv3's
(Simeoni et al., 2025, arXiv 2508.10104) is the same network with other weights.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from csdnet_jax.models import initialise
from csdnet_jax.models.dropout import path_scales
from csdnet_jax.models.efficientnet import Depthwise
from csdnet_jax.models.head import classify
from csdnet_jax.models.transformer import (
  LayerNorm,
  Linear,
  Mlp,
  add_branch,
  exact_gelu,
  rename,
  split_patches,
)
from csdnet_jax.models.vit import LayerScale
from csdnet_jax.runtime.errors import UserError

_EPSILON = 1e-6
_STEM = 4


def _reduce(x, side, channels, dtype, name):
  """A convolution of its own stride; what is left over at the end goes."""
  height, width = (n // side * side for n in x.shape[1:3])
  x = split_patches(x[:, :height, :width], side)
  return Linear(x.shape[3:], (channels,), dtype=dtype, name=name)(x)


class Block(nn.Module):
  """A 7 x 7 filter of each channel, LayerNorm, the MLP, beside a shortcut."""

  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, path: jax.Array | None) -> jax.Array:
    channels = x.shape[-1]
    y = Depthwise(7, 1, name='depthwise')(x)
    # Of the filter.
    y = y + self.param('bias', initialise.zeros, (channels,)).astype(y.dtype)
    y = LayerNorm(_EPSILON, dtype=self.dtype, name='norm')(y)
    y = Mlp(4 * channels, exact_gelu, self.dtype, name='mlp')(y)
    return add_branch(x, LayerScale(name='layer_scale')(y), path)


class Net(nn.Module):
  """A ConvNeXt of any widths and depths.

  Attributes:
    classes: the width of the head, whose kernel starts at zero.
    drop_rate: dropout of the embedding before the head.
    drop_path: block i of n in all drops its branch with probability
      drop_path * i / (n - 1).
    width: C, the channels of the first stage; each further one has twice as
      many.
    depths: the number of blocks of each stage; each but the first halves the
      map, whose side is a quarter of the image's before.
    remat: recompute each block in the backward pass instead of keeping it.
    dtype: of the convolutions and activations; parameters, LayerNorm's moments
      and what follows the last block are float32.
  """

  classes: int
  drop_rate: float
  drop_path: float
  width: int
  depths: tuple[int, ...]
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, *, train, keys, axis):
    del axis  # Nothing here looks across the batch.
    least = _STEM * 2 ** (len(self.depths) - 1)
    if min(x.shape[1:3]) < least:
      raise UserError(
        f'Images of {x.shape[1]} x {x.shape[2]} pixels are too small for this '
        f'network: choose an image size of {least} or more.'
      )
    total = sum(self.depths)
    paths = [None] * total
    if train and self.drop_path:
      rates = (self.drop_path * i / max(total - 1, 1) for i in range(total))
      paths = list(path_scales(keys, tuple(rates)))
    paths = iter(paths)
    make = nn.remat(Block) if self.remat else Block
    x = _reduce(x, _STEM, self.width, self.dtype, 'stem')
    x = LayerNorm(_EPSILON, dtype=self.dtype, name='stem_norm')(x)
    for s, depth in enumerate(self.depths):
      if s:
        norm = LayerNorm(_EPSILON, dtype=self.dtype, name=f'reduce_{s}_norm')
        x = _reduce(
          norm(x), 2, self.width * 2**s, self.dtype, f'reduce_{s}'
        )  # fmt: skip
      for i in range(depth):
        x = make(self.dtype, name=f'stage_{s}_block_{i}')(x, next(paths))
    # One LayerNorm for the map and for its mean, as DINOv3 has it.
    norm = LayerNorm(_EPSILON, dtype=jnp.float32, name='norm')
    embedding = norm(jnp.mean(x.astype(jnp.float32), (1, 2)))
    logits = classify(
      embedding, self.classes,
      drop_rate=self.drop_rate, train=train, keys=keys,
    )  # fmt: skip
    return norm(x), embedding, logits


# Names of timm, of the releases, then of transformers for ConvNeXt and for
# DINOv3: the first match counts.
_PATTERNS = (
  (r'^(stem|downsample_layers\.0|stages\.0\.downsample_layers)\.0\.', 'stem/'),
  (r'^(stem|downsample_layers\.0|stages\.0\.downsample_layers)\.1\.',
   'stem_norm/'),
  (r'^embeddings\.patch_embeddings\.', 'stem/'),
  (r'^embeddings\.layernorm\.', 'stem_norm/'),
  (r'^(head\.norm|norm|layernorm|layer_norm)\.', 'norm/'),
  (r'^(head\.fc|head|classifier)\.', 'head/'),
  (r'^(?:encoder\.)?stages\.(\d)\.down\w+\.0\.', r'reduce_\1_norm/'),
  (r'^(?:encoder\.)?stages\.(\d)\.down\w+\.1\.', r'reduce_\1/'),
  (r'^downsample_layers\.(\d)\.0\.', r'reduce_\1_norm/'),
  (r'^downsample_layers\.(\d)\.1\.', r'reduce_\1/'),
  (r'^(?:encoder\.)?stages\.(\d)\.(?:blocks\.|layers\.)?(\d+)\.',
   r'stage_\1_block_\2/'),
  (r'/(conv_dw|dwconv|depthwise_conv)\.bias$', '/bias'),
  (r'/(conv_dw|dwconv|depthwise_conv)\.', '/depthwise/'),
  (r'/(norm|layernorm|layer_norm)\.', '/norm/'),
  (r'/(mlp\.fc|pwconv|pointwise_conv)1\.', '/mlp/Dense_0/'),
  (r'/(mlp\.fc|pwconv|pointwise_conv)2\.', '/mlp/Dense_1/'),
  (r'/(gamma|layer_scale_parameter)$', '/layer_scale/scale'),
)  # fmt: skip


def from_torch(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Arrays of a PyTorch ConvNeXt under our names, in our layout.

  Args:
    arrays: as timm, the releases, or transformers name them.

  Returns:
    The same under our names; a name that is none of theirs is kept.
  """
  ours = {}
  for name, array in arrays.items():
    name, array = rename(name, array, r'^(convnext|model)\.', _PATTERNS)
    if name.endswith('/depthwise/kernel') and array.shape[2:3] == (1,):
      array = array[:, :, 0]
    ours[name] = array
  return ours
