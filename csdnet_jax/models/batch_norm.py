"""BatchNorm over images, pixels and devices, with ReLU6 in it or not."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from csdnet_jax.models import initialise

# PyTorch calls the same 0.1. Not the 0.99 of a long training: fine-tuning on a
# few hundred leaves takes a few hundred steps, in which the averages must
# arrive at the new images.
MOMENTUM = 0.9


class BatchNorm(nn.Module):
  """BatchNorm over images, pixels and devices, running averages beside it.

  `y = (x - m) / sqrt(v + epsilon) * scale + bias`. In training m and the biased
  v are moments of the batch over all devices of `axis`, and the averages move
  as `r <- 0.9 r + 0.1 m`; otherwise the averages stand for them. The moments
  are float32, y has the dtype of x. Where the collection `batch_stats` is not
  mutable (`config.model.freeze_bn`), the averages stand for them in training
  too.

  Attributes:
    train: whether this is training.
    axis: the name of the mapped device axis, None on one device.
    relu6: whether `min(max(y, 0), 6)` follows.
    epsilon: PyTorch's unless the weights were trained with another.
  """

  train: bool
  axis: str | None
  relu6: bool = False
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = x.shape[-1:]
    scale = self.param('scale', initialise.ones, shape)
    bias = self.param('bias', initialise.zeros, shape)
    mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    var = self.variable('batch_stats', 'var', jnp.ones, shape)
    if self.train and self.is_mutable_collection('batch_stats'):
      y, m, v = batch_norm(x, scale, bias, self.epsilon, self.relu6, self.axis)
      mean.value += (1 - MOMENTUM) * (m - mean.value)
      var.value += (1 - MOMENTUM) * (v - var.value)
      return y
    slope = scale * lax.rsqrt(var.value + self.epsilon)
    y = x * slope + (bias - mean.value * slope)
    return (jnp.clip(y, 0, 6) if self.relu6 else y).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def batch_norm(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  epsilon: float,
  relu6: bool,
  axis: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Normalises x by the moments of the batch, over all devices of `axis`.

  `y = (x - m) / sqrt(v + epsilon) * scale + bias`, then with `relu6`
  `min(max(y, 0), 6)`. The moments returned carry no gradient: they feed running
  averages. The gradient is written by hand since XLA compiles it in two thirds
  of the time that it needs for the derived one, and keeps x alone for it.

  Args:
    x: [B, H, W, C] float32 or bfloat16; all sums are float32.
    scale: [C] float32.
    bias: [C] float32.
    epsilon: keeps a constant channel finite.
    relu6: whether the clipping follows.
    axis: the name of the mapped device axis, None on one device.

  Returns:
    y [B, H, W, C] of x's dtype, m [C] and the biased v [C], both float32.
  """
  return _forward(x, scale, bias, epsilon, relu6, axis)[0]


def _means(a: jax.Array, b: jax.Array, axis: str | None):
  means = jnp.mean(a, (0, 1, 2)), jnp.mean(b, (0, 1, 2))
  return means if axis is None else lax.pmean(means, axis)


def _forward(x, scale, bias, epsilon, relu6, axis):
  wide = x.astype(scale.dtype)
  m, square = _means(wide, wide * wide, axis)
  v = jnp.maximum(square - m * m, 0)
  inverse = lax.rsqrt(v + epsilon)
  slope = scale * inverse
  y = wide * slope + (bias - m * slope)
  y = (jnp.clip(y, 0, 6) if relu6 else y).astype(x.dtype)
  return (y, m, v), (x, scale, bias, m, inverse)


def _backward(epsilon, relu6, axis, residuals, cotangents):
  del epsilon  # Its part is in the inverse.
  x, scale, bias, m, inverse = residuals
  dtype, x = x.dtype, x.astype(scale.dtype)
  dy = cotangents[0].astype(scale.dtype)
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
    dx.astype(dtype),
    (local[1] - m * local[0]) * inverse * pixels,
    local[0] * pixels,
  )


batch_norm.defvjp(_forward, _backward)
