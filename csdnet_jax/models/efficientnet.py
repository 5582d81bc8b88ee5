"""EfficientNet-Lite: mobile inverted bottlenecks, made fast on a CPU too.

Tan and Le, EfficientNet, ICML 2019, without squeeze-and-excitation and with
ReLU6 (github.com/tensorflow/tpu, models/official/efficientnet/lite).

XLA's CPU backend is slow at every convolution of this network, so a 1x1 is
written as a matrix product everywhere, and on a CPU the stem is a product of
patches and the depthwise convolution a sum of k * k shifted images.
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

from csdnet_jax.models.dropout import dropout, path_scales

# What the Lite weights were trained with: bytes as (x - 127) / 128.
MEAN = (127 / 255,) * 3
STD = (128 / 255,) * 3
HAS_BATCH_NORM = True

EPSILON = 1e-3
# Not the 0.99 of a long training: fine-tuning on a few hundred leaves takes a
# few hundred steps, in which the averages must arrive at the new images.
MOMENTUM = 0.9

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


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
  """TensorFlow's SAME padding of one side: what is odd goes to the end."""
  total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
  return total // 2, total - total // 2


def _pad(x: jax.Array, kernel: int, stride: int) -> jax.Array:
  rows = same_padding(x.shape[1], kernel, stride)
  columns = same_padding(x.shape[2], kernel, stride)
  return jnp.pad(x, ((0, 0), rows, columns, (0, 0)))


def _window(
  x: jax.Array, i: int, j: int, size: tuple[int, int], stride: int
) -> jax.Array:
  """Every `stride`-th pixel of x from (i, j) on, `size` = (h, w) of them."""
  (batch, _, _, channels), (h, w) = x.shape, size
  stop = (batch, i + (h - 1) * stride + 1, j + (w - 1) * stride + 1, channels)
  return lax.slice(x, (0, i, j, 0), stop, (1, stride, stride, 1))


def _output_size(x: jax.Array, stride: int) -> tuple[int, int]:
  return -(-x.shape[1] // stride), -(-x.shape[2] // stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def shifted_depthwise(
  x: jax.Array, kernel: jax.Array, stride: int
) -> jax.Array:
  """Depthwise convolution, SAME padding, as k * k shifted multiply-adds.

  `y[b, u, v, c] = sum_ij kernel[i, j, c] x[b, s u + i - p, s v + j - p, c]`

  Args:
    x: [B, H, W, C] float32.
    kernel: [k, k, C] float32.
    stride: s, in both directions.

  Returns:
    [B, ceil(H / s), ceil(W / s), C] float32.
  """
  return _depthwise_forward(x, kernel, stride)[0]


def _depthwise_forward(x, kernel, stride):
  k = kernel.shape[0]
  size = _output_size(x, stride)
  padded = _pad(x, k, stride)
  y = sum(
    _window(padded, i, j, size, stride) * kernel[i, j]
    for i in range(k)
    for j in range(k)
  )
  # Only the shape of x is needed; XLA drops the array itself.
  return y, (x, padded, kernel)


def _depthwise_backward(stride, residuals, dy):
  x, padded, kernel = residuals
  return (
    _depthwise_input_gradient(x, kernel, stride, dy),
    _depthwise_kernel_gradient(padded, kernel, stride, dy),
  )


def _depthwise_input_gradient(x, kernel, stride, dy):
  # Each phase of the input, u = stride * q + r, meets only the taps i with
  # stride * o = u + p - i for a whole o: no products with zeros between.
  k = kernel.shape[0]
  height, width = x.shape[1:3]
  top = same_padding(height, k, stride)[0]
  left = same_padding(width, k, stride)[0]
  size = _output_size(x, stride)
  padded = jnp.pad(dy, ((0, 0), (k, k), (k, k), (0, 0)))
  phases = [
    [
      sum(
        _window(
          padded,
          (r + top - i) // stride + k,
          (t + left - j) // stride + k,
          size,
          1,
        )
        * kernel[i, j]
        for i in range((r + top) % stride, k, stride)
        for j in range((t + left) % stride, k, stride)
      )
      for t in range(stride)
    ]
    for r in range(stride)
  ]
  if stride == 1:
    return phases[0][0]
  rows = [jnp.stack(columns, axis=3) for columns in phases]
  dx = jnp.stack(rows, axis=2)
  h, w = size
  dx = dx.reshape(x.shape[0], h * stride, w * stride, x.shape[3])
  return dx[:, :height, :width]


def _depthwise_kernel_gradient(padded, kernel, stride, dy):
  # One pass for all the taps. Summed over pixels first, so that the images
  # of a batch go to different cores.
  k = kernel.shape[0]
  products = [
    _window(padded, i, j, dy.shape[1:3], stride) * dy
    for i in range(k)
    for j in range(k)
  ]
  zeros = [jnp.zeros((), dy.dtype)] * len(products)
  per_image = lax.reduce(
    products, zeros, lambda a, b: jax.tree.map(jnp.add, a, b), (1, 2)
  )
  return jnp.stack(per_image).sum(1).reshape(kernel.shape)


shifted_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def project(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """`x @ kernel` along the last axis of x, [B, H, W, C] float32."""
  # As matrices: from four axes XLA transposes x in memory for the gradient
  # of the kernel, a quarter of the whole training step.
  y = x.reshape(-1, x.shape[-1]) @ kernel
  return y.reshape(*x.shape[:-1], kernel.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  relu6: bool,
  axis: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Normalises x by the moments of the batch, over all devices of `axis`.

  `y = (x - m) / sqrt(v + 1e-3) * scale + bias`, then `min(max(y, 0), 6)`.
  The moments returned carry no gradient: they feed running averages. The
  gradient is written by hand since XLA compiles it in two thirds of the time
  that it needs for the derived one.

  Args:
    x: [B, H, W, C] float32.
    scale: [C] float32.
    bias: [C] float32.
    relu6: whether the clipping follows.
    axis: the name of the mapped device axis, None on one device.

  Returns:
    y [B, H, W, C], m [C] and the biased v [C], all float32.
  """
  return _batch_norm_forward(x, scale, bias, relu6, axis)[0]


def _means(a: jax.Array, b: jax.Array, axis: str | None):
  means = jnp.mean(a, (0, 1, 2)), jnp.mean(b, (0, 1, 2))
  return means if axis is None else lax.pmean(means, axis)


def _batch_norm_forward(x, scale, bias, relu6, axis):
  m, square = _means(x, x * x, axis)
  v = jnp.maximum(square - m * m, 0)
  inverse = lax.rsqrt(v + EPSILON)
  slope = scale * inverse
  y = x * slope + (bias - m * slope)
  return (
    (jnp.clip(y, 0, 6) if relu6 else y, m, v),
    (x, scale, bias, m, inverse),
  )


def _batch_norm_backward(relu6, axis, residuals, cotangents):
  x, scale, bias, m, inverse = residuals
  dy = cotangents[0]
  slope = scale * inverse
  if relu6:
    y = x * slope + (bias - m * slope)
    dy = jnp.where((y > 0) & (y < 6), dy, 0)
  # Each device returns the gradient of its own rows, as for any parameter;
  # the moments, which all the devices share, need the means over all.
  pixels = x.size // x.shape[-1]
  local = _means(dy, dy * x, None)
  mean_dy, mean_dyx = local if axis is None else lax.pmean(local, axis)
  tilt = (mean_dyx - m * mean_dy) * inverse * inverse
  dx = slope * (dy - mean_dy - (x - m) * tilt)
  return (
    dx,
    (local[1] - m * local[0]) * inverse * pixels,
    local[0] * pixels,
  )


batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


def _deviation(value: float):
  """Stands for a normal draw: see `csdnet_jax.models.draw`."""
  return nn.initializers.constant(value)


class Pointwise(nn.Module):
  """A 1x1 convolution without bias."""

  channels: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.param(
      'kernel',
      _deviation(math.sqrt(2 / self.channels)),
      (x.shape[-1], self.channels),
    )
    return project(x, kernel)


class Depthwise(nn.Module):
  """A k x k depthwise convolution without bias, SAME padding."""

  size: int
  stride: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels = x.shape[-1]
    kernel = self.param(
      'kernel',
      _deviation(math.sqrt(2) / self.size),
      (self.size, self.size, channels),
    )
    if _on_cpu():
      return shifted_depthwise(x, kernel, self.stride)
    return _convolution(x, kernel[:, :, None, :], self.stride, channels)


class Stem(nn.Module):
  """The first convolution, 3 x 3 with stride 2, without bias."""

  channels: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.param(
      'kernel',
      _deviation(math.sqrt(2 / (9 * self.channels))),
      (3, 3, x.shape[-1], self.channels),
    )
    if not _on_cpu():
      return _convolution(x, kernel, 2, 1)
    padded, size = _pad(x, 3, 2), _output_size(x, 2)
    patches = jnp.concatenate(
      [_window(padded, i, j, size, 2) for i in range(3) for j in range(3)], -1
    )
    return project(patches, kernel.reshape(-1, self.channels))


def _on_cpu() -> bool:
  return jax.default_backend() == 'cpu'


def _convolution(x, kernel, stride, groups):
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [same_padding(n, kernel.shape[0], stride) for n in x.shape[1:3]],
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


class BatchNorm(nn.Module):
  """BatchNorm over images, pixels and devices, running averages beside it.

  In training the averages move as `r <- 0.9 r + 0.1 m`.
  """

  relu6: bool
  train: bool
  axis: str | None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = x.shape[-1:]
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    var = self.variable('batch_stats', 'var', jnp.ones, shape)
    if self.train:
      y, m, v = batch_norm(x, scale, bias, self.relu6, self.axis)
      mean.value += (1 - MOMENTUM) * (m - mean.value)
      var.value += (1 - MOMENTUM) * (v - var.value)
      return y
    slope = scale * lax.rsqrt(var.value + EPSILON)
    y = x * slope + (bias - mean.value * slope)
    return jnp.clip(y, 0, 6) if self.relu6 else y


class Block(nn.Module):
  """Expand, filter, project; with a shortcut where the shapes allow it."""

  size: int
  stride: int
  expansion: int
  channels: int

  @nn.compact
  def __call__(self, x, path, train, axis):
    norm = functools.partial(BatchNorm, train=train, axis=axis)
    shortcut = x
    if self.expansion > 1:
      x = Pointwise(x.shape[-1] * self.expansion, name='expand')(x)
      x = norm(True, name='expand_bn')(x)
    x = Depthwise(self.size, self.stride, name='depthwise')(x)
    x = norm(True, name='depthwise_bn')(x)
    x = Pointwise(self.channels, name='project')(x)
    x = norm(False, name='project_bn')(x)
    if self.stride > 1 or shortcut.shape[-1] != self.channels:
      return x
    if path is not None:
      x = x * path[:, None, None, None]
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
    norm = functools.partial(BatchNorm, train=train, axis=axis)
    x = Stem(self.stem, name='stem')(x)
    x = norm(True, name='stem_bn')(x)
    blocks = layout(self.width, self.depth, self.stages)
    paths = [None] * len(blocks)
    if train and self.drop_path:
      rates = tuple(
        self.drop_path * i / len(blocks) for i in range(len(blocks))
      )
      paths = path_scales(keys, rates)
    make = nn.remat(Block, static_argnums=(3, 4)) if self.remat else Block
    for i, block in enumerate(blocks):
      x = make(*block, name=f'block_{i}')(x, paths[i], train, axis)
    x = Pointwise(self.top, name='top')(x)
    features = norm(True, name='top_bn')(x)
    embedding = jnp.mean(features, (1, 2))
    z = embedding
    if train and self.drop_rate:
      z = dropout(z, keys, self.drop_rate)
    zeros = nn.initializers.zeros
    logits = nn.Dense(self.classes, kernel_init=zeros, name='head')(z)
    return features, embedding, logits


def layout(
  width: float, depth: float, stages: tuple
) -> list[tuple[int, int, int, int]]:
  """Kernel, stride, expansion and output channels of every block in turn.

  >>> len(layout(1.0, 1.0, STAGES)), layout(1.1, 1.2, STAGES)[-1]
  (16, (3, 1, 6, 352))
  """
  blocks = []
  for i, (repeats, size, stride, expansion, channels) in enumerate(stages):
    if 0 < i < len(stages) - 1:
      repeats = math.ceil(repeats * depth)
    wide = channels * width
    rounded = max(8, int(wide + 4) // 8 * 8)
    if rounded < 0.9 * wide:
      rounded += 8
    blocks.append((size, stride, expansion, rounded))
    blocks += [(size, 1, expansion, rounded)] * (repeats - 1)
  return blocks


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
