"""Convolution and BatchNorm as PyTorch's networks have them, in NHWC."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from csdnet_jax.models import initialise

EPSILON = 1e-5
# Flax's momentum: PyTorch calls the same 0.1.
MOMENTUM = 0.9


class Conv(nn.Module):
  """A k x k convolution without bias, `dilation * (k // 2)` zeros around.

  Not SAME: that pads one side less at stride 2 and an even size.

  Attributes:
    channels: of the output.
    size: k, odd.
    stride: in both directions.
    dilation: the distance of the taps.
    depthwise: each channel by itself; `channels` is then the input's.
    dtype: of the product; the kernel is float32.
  """

  channels: int
  size: int
  stride: int = 1
  dilation: int = 1
  depthwise: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    groups = self.channels if self.depthwise else 1
    fan_out = self.size**2 * self.channels // groups
    kernel = self.param(
      'kernel',
      initialise.normal(math.sqrt(2 / fan_out)),  # He's.
      (self.size, self.size, x.shape[-1] // groups, self.channels),
    )
    pad = self.dilation * (self.size // 2)
    return lax.conv_general_dilated(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      (self.stride, self.stride),
      [(pad, pad)] * 2,
      rhs_dilation=(self.dilation, self.dilation),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=groups,
    )


class BatchNorm(nn.Module):
  """BatchNorm over images, pixels and devices, running averages beside it.

  `y = (x - m) / sqrt(v + 1e-5) * scale + bias`. In training m and the biased
  v are moments of the batch over all devices of `axis`, and the averages move
  as `r <- 0.9 r + 0.1 m`; otherwise the averages stand for them. The moments
  are float32, y has the dtype of x.
  """

  train: bool
  axis: str | None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = x.shape[-1:]
    scale = self.param('scale', initialise.ones, shape)
    bias = self.param('bias', initialise.zeros, shape)
    mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    var = self.variable('batch_stats', 'var', jnp.ones, shape)
    m, v = mean.value, var.value
    if self.train:
      m, v = _moments(x, self.axis)
      mean.value += (1 - MOMENTUM) * (lax.stop_gradient(m) - mean.value)
      var.value += (1 - MOMENTUM) * (lax.stop_gradient(v) - var.value)
    slope = scale * lax.rsqrt(v + EPSILON)
    y = x.astype(jnp.float32) * slope + (bias - m * slope)
    return y.astype(x.dtype)


def _moments(x, axis):
  x = x.astype(jnp.float32)
  moments = jnp.mean(x, (0, 1, 2)), jnp.mean(x * x, (0, 1, 2))
  mean, square = moments if axis is None else lax.pmean(moments, axis)
  return mean, jnp.maximum(square - mean * mean, 0)


_LEAVES = {'running_mean': 'mean', 'running_var': 'var'}


def rename(
  arrays: dict[str, np.ndarray], patterns: tuple[tuple[str, Any], ...]
) -> dict[str, np.ndarray]:
  """Arrays of a PyTorch network under our names, in our layout.

  Args:
    arrays: kernels are [out, in, h, w], dense ones [out, in].
    patterns: (regex, ours), for a whole name without its last part; the first
      that matches counts. Ours is as `re.sub` takes it.

  Returns:
    Kernels [h, w, in, out] and [in, out], a BatchNorm's scale, bias, mean and
    var. An array whose name matches no pattern comes back as it is.
  """
  ours = {}
  for name, array in arrays.items():
    module, _, leaf = name.rpartition('.')
    for pattern, new in patterns:
      if re.fullmatch(pattern, module):
        module = re.sub(pattern, new, module)
        break
    else:
      ours[name] = array
      continue
    if leaf == 'weight':
      leaf = 'scale' if array.ndim == 1 else 'kernel'
      array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    ours[f'{module}/{_LEAVES.get(leaf, leaf)}'] = array
  return ours
