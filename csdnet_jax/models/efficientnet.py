"""EfficientNet-Lite: mobile inverted bottlenecks, made fast on a CPU too.

Tan and Le, EfficientNet, ICML 2019, without squeeze-and-excitation and with
ReLU6 (github.com/tensorflow/tpu, models/official/efficientnet/lite).

XLA's CPU backend is slow at every convolution of this network, so a 1x1 is
written as a matrix product everywhere, and on a CPU the stem is a product of
patches and the depthwise convolution a sum of k * k shifted images; so they are
elsewhere where many networks are one program.
"""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from csdnet_jax.models import initialise, kernels, target
from csdnet_jax.models.batch_norm import BatchNorm
from csdnet_jax.models.dropout import path_scales
from csdnet_jax.models.head import classify

# Of BatchNorm, as the Lite weights were trained.
EPSILON = 1e-3

# Of the B0 network: repeats, kernel, stride, expansion, output channels.
STAGES = (
  (1, 3, 1, 1, 16),
  (2, 3, 2, 6, 24),
  (2, 5, 2, 6, 40),
  (3, 3, 2, 6, 80),
  (3, 5, 1, 6, 112),
  (4, 5, 2, 6, 192),
  (1, 3, 1, 6, 320),
)
# Of the stages at output stride 8, where those above 1 lose their stride.
DILATIONS = (1, 1, 1, 2, 2, 4, 4)


class Pointwise(nn.Module):
  """A 1x1 convolution without bias."""

  channels: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.param(
      'kernel',
      initialise.normal(math.sqrt(2 / self.channels)),
      (x.shape[-1], self.channels),
    )
    return kernels.project(x, kernel)


class Depthwise(nn.Module):
  """A k x k depthwise convolution without bias, SAME padding."""

  size: int
  stride: int
  dilation: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels = x.shape[-1]
    kernel = self.param(
      'kernel',
      initialise.normal(math.sqrt(2) / self.size),
      (self.size, self.size, channels),
    )
    if _on_cpu():
      return kernels.shifted_depthwise(x, kernel, self.stride, self.dilation)
    if kernels.many_networks():
      return kernels.tapped_depthwise(x, kernel, self.stride, self.dilation)
    return _convolution(
      x, kernel[:, :, None, :], self.stride, channels, self.dilation
    )


class Stem(nn.Module):
  """The first convolution, 3 x 3 with stride 2, without bias."""

  channels: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.param(
      'kernel',
      initialise.normal(math.sqrt(2 / (9 * self.channels))),
      (3, 3, x.shape[-1], self.channels),
    )
    if not (_on_cpu() or kernels.many_networks()):
      return _convolution(x, kernel, 2, 1)
    padded, size = kernels.pad(x, 3, 2), kernels.output_size(x, 2)
    patches = jnp.concatenate(
      [
        kernels.window(padded, i, j, size, 2)
        for i in range(3)
        for j in range(3)
      ],
      -1,
    )
    return kernels.project(patches, kernel.reshape(-1, self.channels))


def _on_cpu() -> bool:
  return target.platform() == 'cpu'


def _convolution(x, kernel, stride, groups, dilation=1):
  span = kernels.extent(kernel.shape[0], dilation)
  return lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    (stride, stride),
    [kernels.same_padding(n, span, stride) for n in x.shape[1:3]],
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


class Block(nn.Module):
  """Expand, filter, project; with a shortcut where the shapes allow it."""

  size: int
  stride: int
  expansion: int
  channels: int
  dilation: int = 1

  @nn.compact
  def __call__(self, x, path, train, axis):
    norm = functools.partial(BatchNorm, train, axis, epsilon=EPSILON)
    shortcut = x
    if self.expansion > 1:
      x = Pointwise(x.shape[-1] * self.expansion, name='expand')(x)
      x = norm(relu6=True, name='expand_bn')(x)
    x = Depthwise(
      self.size, self.stride, self.dilation, name='depthwise'
    )(x)  # fmt: skip
    x = norm(relu6=True, name='depthwise_bn')(x)
    x = Pointwise(self.channels, name='project')(x)
    x = norm(name='project_bn')(x)
    if self.stride > 1 or shortcut.shape[-1] != self.channels:
      return x
    if path is not None:
      x = x * path[:, None, None, None].astype(x.dtype)
    return shortcut + x


class Net(nn.Module):
  """EfficientNet-Lite of any width and depth.

  Attributes:
    classes: the width of the head, whose kernel starts at zero.
    drop_rate: dropout of the embedding before the head.
    drop_path: block i of n drops its branch with probability drop_path * i / n.
    width: multiplies the channels of the stages.
    depth: multiplies the repeats of all stages but the first and the last.
    stages: repeats, kernel, stride, expansion, channels.
    stem: channels of the stem, whatever the width.
    top: channels of the last feature map, whatever the width.
    remat: recompute each block in the backward pass instead of keeping it.
    dtype: of the activations. Parameters, the moments of BatchNorm and all
      outputs are float32 even where this is bfloat16.
  """

  classes: int
  drop_rate: float
  drop_path: float
  width: float = 1.0
  depth: float = 1.0
  stages: tuple = STAGES
  stem: int = 32
  top: int = 1280
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, *, train, keys, axis):
    norm = functools.partial(BatchNorm, train, axis, epsilon=EPSILON)
    blocks = layout(self.width, self.depth, self.stages)
    maps = _trunk(self, blocks, x, train, keys, axis)
    fine = maps[_last_of_stride_8(blocks)].astype(jnp.float32)
    x = Pointwise(self.top, name='top')(maps[-1])
    features = norm(relu6=True, name='top_bn')(x).astype(jnp.float32)
    embedding = jnp.mean(features, (1, 2))
    logits = classify(
      embedding, self.classes,
      drop_rate=self.drop_rate, train=train, keys=keys,
    )  # fmt: skip
    return features, embedding, logits, None, fine


class Backbone(nn.Module):
  """The network at output stride 8 without its head, for segmentation.

  Stages 4 to 7 have stride 1, and all their blocks are dilated by 2, 2, 4 and
  4, as in APD's release; images have sides of 8 k + 1 pixels. The last 1 x 1,
  to 1280 channels, is left out (our choice, as for MobileNetV2): the head's
  3 x 3 over it would cost more than the whole backbone.

  Attributes:
    width, depth, stages, stem: of `Net`.
    drop_path, remat, dtype: of `Net`.
  """

  width: float = 1.0
  depth: float = 1.0
  stages: tuple = STAGES
  stem: int = 32
  drop_path: float = 0.0
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, *, train, keys, axis):
    """Returns the maps of stage 6's first block and of stage 7.

    [B, h, w, C] of `dtype`; the first is what the release's auxiliary head
    reads, 192 channels in Lite0.
    """
    blocks, middle = dilated_layout(self.width, self.depth, self.stages)
    maps = _trunk(self, blocks, x, train, keys, axis)
    return maps[middle], maps[-1]


def _trunk(net, blocks, x, train, keys, axis):
  """The maps after each block, as submodules of `net`."""
  x = Stem(net.stem, name='stem')(x.astype(net.dtype))
  norm = functools.partial(BatchNorm, train, axis, epsilon=EPSILON)
  x = norm(relu6=True, name='stem_bn')(x)
  paths = [None] * len(blocks)
  if train and net.drop_path:
    rates = tuple(net.drop_path * i / len(blocks) for i in range(len(blocks)))
    paths = path_scales(keys, rates)
  make = nn.remat(Block, static_argnums=(3, 4)) if net.remat else Block
  maps = []
  for i, block in enumerate(blocks):
    x = make(*block, name=f'block_{i}')(x, paths[i], train, axis)
    maps.append(x)
  return maps


def layout(
  width: float, depth: float, stages: tuple
) -> list[tuple[int, int, int, int]]:
  """Kernel, stride, expansion and output channels of every block in turn.

  >>> len(layout(1.0, 1.0, STAGES)), layout(1.1, 1.2, STAGES)[-1]
  (16, (3, 1, 6, 352))
  """
  return sum(_by_stage(width, depth, stages), [])


def _last_of_stride_8(blocks) -> int:
  """Which block is the last before the image is cut to less than an eighth."""
  strides = 2 * np.cumprod([stride for _, stride, *_ in blocks])
  return int(np.sum(strides <= 8)) - 1


def dilated_layout(
  width: float, depth: float, stages: tuple
) -> tuple[list[tuple[int, int, int, int, int]], int]:
  """`layout` at output stride 8, with each block's dilation behind it.

  Returns:
    The blocks, and which of them is the first of stage 6.

  >>> blocks, middle = dilated_layout(1.0, 1.0, STAGES)
  >>> blocks[middle], middle
  ((5, 1, 6, 192, 4), 11)
  """
  by_stage = _by_stage(width, depth, stages)
  blocks = [
    (size, 1 if dilation > 1 else stride, expansion, channels, dilation)
    for stage, dilation in zip(by_stage, DILATIONS, strict=True)
    for size, stride, expansion, channels in stage
  ]
  return blocks, sum(map(len, by_stage[:5]))


def _by_stage(width, depth, stages):
  """`layout`, the blocks of each stage in a list of their own."""
  layers = []
  for i, (repeats, size, stride, expansion, channels) in enumerate(stages):
    if 0 < i < len(stages) - 1:
      repeats = math.ceil(repeats * depth)
    wide = channels * width
    rounded = max(8, int(wide + 4) // 8 * 8)
    if rounded < 0.9 * wide:
      rounded += 8
    first, rest = (size, stride), (size, 1)
    layers.append(
      [
        (*shape, expansion, rounded)
        for shape in [first] + [rest] * (repeats - 1)
      ]
    )
  return layers


# PyTorch's names, in order: the first match counts.
_BLOCK = r'^_blocks\.(\d+)\.'
_MODULES = (
  (r'^_conv_stem\.', r'stem/'),
  (r'^_bn0\.', r'stem_bn/'),
  (_BLOCK + r'_expand_conv\.', r'block_\1/expand/'),
  (_BLOCK + r'_bn0\.', r'block_\1/expand_bn/'),
  (_BLOCK + r'_depthwise_conv\.', r'block_\1/depthwise/'),
  (_BLOCK + r'_bn1\.', r'block_\1/depthwise_bn/'),
  (_BLOCK + r'_project_conv\.', r'block_\1/project/'),
  (_BLOCK + r'_bn2\.', r'block_\1/project_bn/'),
  (r'^_conv_head\.', r'top/'),
  (r'^_bn1\.', r'top_bn/'),
  (r'^_fc\.', r'head/'),
)
_LEAVES = (
  (r'_bn/weight$', '_bn/scale'),
  (r'/weight$', '/kernel'),
  (r'/running_mean$', '/mean'),
  (r'/running_var$', '/var'),
)


def from_torch(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Arrays of the PyPI packages' files under our names, in our layout."""
  return dict(_rename(name, array) for name, array in arrays.items())


def _rename(name, array):
  for pattern, ours in _MODULES:
    if re.search(pattern, name):
      name = re.sub(pattern, ours, name)
      break
  else:
    return name, array
  for pattern, ours in _LEAVES:
    name = re.sub(pattern, ours, name)
  if array.ndim == 4:
    array = array.transpose(2, 3, 1, 0)
    if name.endswith('depthwise/kernel'):
      array = array[:, :, 0]
    elif array.shape[:2] == (1, 1):
      array = array[0, 0]
  elif array.ndim == 2:
    array = array.T
  return name, array
