"""ResNet for classes and, dilated behind a deep stem, for segmentation.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016, with the
stride on the 3 x 3 convolution, as torchvision, timm and transformers have it.
The deep stem and the dilations are those of semseg and of APD's release:
Zhao et al., Pyramid Scene Parsing Network, CVPR 2017.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from csdnet_jax.models.batch_norm import BatchNorm
from csdnet_jax.models.convolution import Conv, rename
from csdnet_jax.models.dropout import path_scales
from csdnet_jax.models.head import classify


class Block(nn.Module):
  """Two or three convolutions beside a shortcut, which may project.

  Attributes:
    convolutions: (size, channels, stride, dilation) of each.
    dtype: of the convolutions.
  """

  convolutions: tuple[tuple[int, int, int, int], ...]
  dtype: Any

  @nn.compact
  def __call__(self, x, path, train, axis):
    conv = functools.partial(Conv, dtype=self.dtype)
    norm = functools.partial(BatchNorm, train, axis)
    y, strides = x, 1
    for i, (size, channels, stride, dilation) in enumerate(self.convolutions):
      y = nn.relu(y) if i else y
      y = conv(channels, size, stride, dilation, name=f'conv{i + 1}')(y)
      y = norm(name=f'bn{i + 1}')(y)
      strides *= stride
    if strides > 1 or x.shape[-1] != channels:
      x = conv(channels, 1, strides, name='shortcut')(x)
      x = norm(name='shortcut_bn')(x)
    if path is not None:
      y = y * path.astype(y.dtype)[:, None, None, None]
    return nn.relu(x + y)


class Backbone(nn.Module):
  """The network without its head.

  Attributes:
    depths: blocks in each of the layers 1 to 4.
    bottleneck: blocks of 1 x 1, 3 x 3 and 1 x 1 convolutions, the last with
      four times the channels, instead of two 3 x 3.
    width: channels of layer 1 before that; each layer doubles them.
    deep_stem: three 3 x 3 convolutions instead of one 7 x 7.
    output_stride: 32, or 8: layers 3 and 4 are dilated, by 2 and 4.
    context: of two rules for that, which fit the same weights, so that the
      wrong one fails silently; see `layout`.
    drop_path: block i of n drops its branch with probability
      drop_path * i / (n - 1).
    remat: recompute each block in the backward pass instead of keeping it.
    dtype: of convolutions and activations; parameters and the moments of
      BatchNorm are float32.
  """

  depths: tuple[int, ...]
  bottleneck: bool
  width: int = 64
  deep_stem: bool = False
  output_stride: int = 32
  context: bool = False
  drop_path: float = 0.0
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, *, train, keys, axis):
    """Returns the maps of layers 3 and 4, [B, h, w, C] of `dtype`."""
    stem = ((7, self.width, 2),)
    if self.deep_stem:
      stem = (3, self.width, 2), (3, self.width, 1), (3, 2 * self.width, 1)
    for i, (size, channels, stride) in enumerate(stem, 1):
      conv = Conv(channels, size, stride, dtype=self.dtype, name=f'conv{i}')
      x = nn.relu(BatchNorm(train, axis, name=f'bn{i}')(conv(x)))
    x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    paths = [None] * sum(self.depths)
    if train and self.drop_path:
      last = max(sum(self.depths) - 1, 1)
      rates = tuple(self.drop_path * i / last for i in range(last + 1))
      paths = path_scales(keys, rates)
    paths = iter(paths)
    make = nn.remat(Block, static_argnums=(3, 4)) if self.remat else Block
    maps = []
    layers = layout(
      self.depths, self.bottleneck, self.width,
      self.output_stride, context=self.context,
    )  # fmt: skip
    for i, blocks in enumerate(layers, 1):
      for j, convolutions in enumerate(blocks):
        block = make(convolutions, self.dtype, name=f'layer{i}_{j}')
        x = block(x, next(paths), train, axis)
      maps.append(x)
    return maps[-2], maps[-1]


def layout(
  depths: tuple[int, ...],
  bottleneck: bool,
  width: int,
  output_stride: int,
  *,
  context: bool = False,
) -> list[list[tuple[tuple[int, int, int, int], ...]]]:
  """Size, channels, stride and dilation of each convolution of each block.

  At `output_stride` 8 the layers 3 and 4 have stride 1 and d = 2 and 4. APD's
  Cityscapes and ADE20K networks dilate by d the first 3 x 3 of every block,
  and no other. Its PASCAL Context networks (`context`) dilate all 3 x 3 by d,
  but the one that lost its stride, in the first block of a layer, by d / 2.

  >>> layout((1, 1, 1, 1), True, 64, 8)[3]
  [((1, 512, 1, 1), (3, 512, 1, 4), (1, 2048, 1, 1))]
  """
  layers = []
  for i, depth in enumerate(depths):
    dilated = output_stride == 8 and i >= 2
    d = 2 ** (i - 1) if dilated else 1
    channels = width * 2**i
    blocks = []
    for j in range(depth):
      stride = 2 if i and j == 0 and not dilated else 1
      first = d // 2 if dilated and context and j == 0 else d
      if bottleneck:
        block = (
          (1, channels, 1, 1),
          (3, channels, stride, first),
          (1, 4 * channels, 1, 1),
        )
      else:
        second = d if context else 1
        block = (3, channels, stride, first), (3, channels, 1, second)
      blocks.append(block)
    layers.append(blocks)
  return layers


class Net(nn.Module):
  """A ResNet of any width and depth that tells classes apart.

  Attributes:
    classes: the width of the head, whose kernel starts at zero.
    drop_rate: dropout of the embedding before the head.
    drop_path, depths, bottleneck, width, remat, dtype: of `Backbone`.
  """

  classes: int
  drop_rate: float
  drop_path: float
  depths: tuple[int, ...]
  bottleneck: bool
  width: int = 64
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, *, train, keys, axis):
    backbone = Backbone(
      self.depths, self.bottleneck, self.width,
      drop_path=self.drop_path, remat=self.remat, dtype=self.dtype,
      name='backbone',
    )  # fmt: skip
    _, features = backbone(x, train=train, keys=keys, axis=axis)
    features = features.astype(jnp.float32)
    embedding = jnp.mean(features, (1, 2))
    logits = classify(
      embedding, self.classes,
      drop_rate=self.drop_rate, train=train, keys=keys,
    )  # fmt: skip
    return features, embedding, logits


def _next(stage: str) -> int:
  return int(stage) + 1


_STEM = {str(i): i // 3 + 1 for i in (0, 1, 3, 4, 6, 7)}
_BLOCK = r'layer(\d)\.(\d+)\.'
_STAGE = r'(?:resnet\.)?encoder\.stages\.(\d)\.layers\.(\d+)\.'
_KINDS = {'convolution': 'conv', 'normalization': 'bn'}
_SHORTCUTS = {
  '0': 'shortcut',
  '1': 'shortcut_bn',
  'convolution': 'shortcut',
  'normalization': 'shortcut_bn',
}

# torchvision's, which timm's and semseg's are; then transformers'.
PATTERNS = (
  (r'(conv|bn)(\d)', r'backbone/\1\2'),
  # semseg's networks, and so APD's, count convolution, norm and ReLU.
  (r'layer0\.([036])', lambda m: f'backbone/conv{_STEM[m[1]]}'),
  (r'layer0\.([147])', lambda m: f'backbone/bn{_STEM[m[1]]}'),
  (_BLOCK + r'(conv\d|bn\d)', r'backbone/layer\1_\2/\3'),
  (_BLOCK + r'downsample\.([01])',
   lambda m: f'backbone/layer{m[1]}_{m[2]}/{_SHORTCUTS[m[3]]}'),
  (r'(?:resnet\.)?embedder\.embedder\.(convolution|normalization)',
   lambda m: f'backbone/{_KINDS[m[1]]}1'),
  (_STAGE + r'layer\.(\d)\.(convolution|normalization)',
   lambda m: f'backbone/layer{_next(m[1])}_{m[2]}/'
   f'{_KINDS[m[4]]}{_next(m[3])}'),
  (_STAGE + r'shortcut\.(convolution|normalization)',
   lambda m: f'backbone/layer{_next(m[1])}_{m[2]}/{_SHORTCUTS[m[3]]}'),
  (r'fc|classifier\.1', 'head'),
)  # fmt: skip


def from_torch(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Arrays of a PyTorch ResNet under our names, in our layout.

  Args:
    arrays: as torchvision, timm, semseg or transformers name them.

  Returns:
    The same under our names; a name that is none of theirs is kept.
  """
  return rename(arrays, PATTERNS)
