"""Convolution and arrays as PyTorch's networks have them, in NHWC."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from csdnet_jax.models import initialise


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
