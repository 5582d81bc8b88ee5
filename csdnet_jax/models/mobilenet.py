"""MobileNetV2, dilated for segmentation: inverted bottlenecks with ReLU6.

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR
2018, without the last 1 x 1 convolution. The strides and dilations are those
of mmsegmentation, which APD's release trains.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from csdnet_jax.models.batch_norm import BatchNorm
from csdnet_jax.models.convolution import Conv, rename
from csdnet_jax.models.dropout import path_scales

# Of each stage: repeats, expansion, channels.
STAGES = (
  (1, 1, 16),
  (2, 6, 24),
  (3, 6, 32),
  (4, 6, 64),
  (3, 6, 96),
  (3, 6, 160),
  (1, 6, 320),
)
# Of each stage's first block, by the output stride; the other blocks have 1.
STRIDES = {32: (1, 2, 2, 2, 1, 2, 1), 8: (1, 2, 2, 1, 1, 1, 1)}
DILATIONS = {32: (1,) * 7, 8: (1, 1, 1, 2, 2, 4, 4)}


class Block(nn.Module):
  """Expand, filter, project; with a shortcut where the shapes allow it."""

  expansion: int
  channels: int
  stride: int
  dilation: int
  dtype: Any

  @nn.compact
  def __call__(self, x, path, train, axis):
    conv = functools.partial(Conv, dtype=self.dtype)
    norm = functools.partial(BatchNorm, train, axis)
    wide = x.shape[-1] * self.expansion
    y = x
    if self.expansion > 1:
      y = conv(wide, 1, name='expand')(y)
      y = norm(relu6=True, name='expand_bn')(y)
    filter_ = conv(
      wide, 3, self.stride, self.dilation, depthwise=True, name='depthwise'
    )
    y = norm(relu6=True, name='depthwise_bn')(filter_(y))
    y = norm(name='project_bn')(conv(self.channels, 1, name='project')(y))
    if self.stride > 1 or x.shape[-1] != self.channels:
      return y
    if path is not None:
      y = y * path.astype(y.dtype)[:, None, None, None]
    return x + y


class Backbone(nn.Module):
  """The network without its head.

  Attributes:
    width: multiplies all channels, which are then rounded to eights.
    output_stride: 32; or 8, where the first block of each stage from the
      fourth on is dilated, by 2 or 4, and no other.
    drop_path: block i of n drops its branch with probability
      drop_path * i / (n - 1).
    remat: recompute each block in the backward pass instead of keeping it.
    dtype: of convolutions and activations; parameters and the moments of
      BatchNorm are float32.
  """

  width: float = 1.0
  output_stride: int = 32
  drop_path: float = 0.0
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, *, train, keys, axis):
    """Returns the maps of stages 5 and 7, [B, h, w, C] of `dtype`."""
    x = Conv(_eights(32 * self.width), 3, 2, dtype=self.dtype, name='stem')(x)
    x = BatchNorm(train, axis, relu6=True, name='stem_bn')(x)
    count = sum(repeats for repeats, _, _ in STAGES)
    paths = [None] * count
    if train and self.drop_path:
      rates = tuple(self.drop_path * i / (count - 1) for i in range(count))
      paths = path_scales(keys, rates)
    make = nn.remat(Block, static_argnums=(3, 4)) if self.remat else Block
    maps, i = [], 0
    for (repeats, expansion, channels), stride, dilation in zip(
      STAGES,
      STRIDES[self.output_stride],
      DILATIONS[self.output_stride],
      strict=True,
    ):
      for j in range(repeats):
        first = (stride, dilation) if j == 0 else (1, 1)
        block = make(
          expansion, _eights(channels * self.width), *first, self.dtype,
          name=f'block_{i}',
        )  # fmt: skip
        x = block(x, paths[i], train, axis)
        i += 1
      maps.append(x)
    return maps[4], maps[6]


def _eights(channels: float) -> int:
  """The nearest multiple of 8 that is not 10 % below.

  >>> _eights(12), _eights(24 * 0.5), _eights(320 * 0.5)
  (16, 16, 160)
  """
  rounded = max(8, int(channels + 4) // 8 * 8)
  return rounded + 8 if rounded < 0.9 * channels else rounded


# The blocks before each stage, and what a block's convolutions are called.
_BEFORE = tuple(sum(s[0] for s in STAGES[:i]) for i in range(len(STAGES)))
_PARTS = ('expand', 'depthwise', 'project')
_BN = {'conv': '', 'bn': '_bn', 'convolution': '', 'normalization': '_bn'}
# The last 1 x 1, of classification alone, is `top`, which no net here has.
_STEM = {'first_conv': 'stem', 'conv_3x3': 'block_0/depthwise',
         'reduce_1x1': 'block_0/project'}  # fmt: skip
_LAYER = {'expand_1x1': 'expand', 'conv_3x3': 'depthwise',
          'reduce_1x1': 'project'}  # fmt: skip


def _openmmlab(match):
  stage, block, part, kind = match.groups()
  # The first block does not expand.
  part = _PARTS[int(part) + (stage == '1')]
  block = _BEFORE[int(stage) - 1] + int(block)
  return f'backbone/block_{block}/{part}{_BN[kind]}'


# torchvision's convolutions and norms: of a block, and of the first, which does
# not expand.
_OF_BLOCK = {
  '0.0': 'expand', '0.1': 'expand_bn', '1.0': 'depthwise',
  '1.1': 'depthwise_bn', '2': 'project', '3': 'project_bn',
}  # fmt: skip
_OF_FIRST = {
  '0.0': 'depthwise', '0.1': 'depthwise_bn', '1': 'project',
  '2': 'project_bn',
}  # fmt: skip
_OUTER = {'0.0': 'stem', '0.1': 'stem_bn', '18.0': 'top', '18.1': 'top_bn'}

# mmsegmentation's, which APD's release has below `mv2`; transformers';
# torchvision's.
PATTERNS = (
  (r'(?:mv2\.)?conv1\.(conv|bn)', lambda m: f'backbone/stem{_BN[m[1]]}'),
  (r'conv2\.(conv|bn)', lambda m: f'backbone/top{_BN[m[1]]}'),
  (r'(?:mv2\.)?layer(\d)\.(\d+)\.conv\.(\d)\.(conv|bn)', _openmmlab),
  (r'(?:mobilenet_v2\.)?conv_stem\.(\w+)\.(convolution|normalization)',
   lambda m: f'backbone/{_STEM[m[1]]}{_BN[m[2]]}'),
  (r'(?:mobilenet_v2\.)?conv_1x1\.(convolution|normalization)',
   lambda m: f'backbone/top{_BN[m[1]]}'),
  (r'(?:mobilenet_v2\.)?layer\.(\d+)\.(\w+)\.(convolution|normalization)',
   lambda m: f'backbone/block_{int(m[1]) + 1}/{_LAYER[m[2]]}{_BN[m[3]]}'),
  (r'features\.((?:0|18)\.[01])', lambda m: f'backbone/{_OUTER[m[1]]}'),
  (r'features\.1\.conv\.(0\.[01]|[12])',
   lambda m: f'backbone/block_0/{_OF_FIRST[m[1]]}'),
  (r'features\.(\d+)\.conv\.([01]\.[01]|[23])',
   lambda m: f'backbone/block_{int(m[1]) - 1}/{_OF_BLOCK[m[2]]}'),
  (r'classifier\.1', 'head'),
)  # fmt: skip


def from_torch(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Arrays of a PyTorch MobileNetV2 under our names, in our layout.

  Args:
    arrays: as mmsegmentation, APD's release, transformers or torchvision name
      them.

  Returns:
    The same under our names; a name that is none of theirs is kept.
  """
  return rename(arrays, PATTERNS)
