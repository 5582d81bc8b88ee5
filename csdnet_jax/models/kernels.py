"""EfficientNet-Lite's costly operations, written for XLA's CPU backend.

That backend is slow at every convolution of the network, so a 1x1 is written
as a matrix product and the depthwise convolution as a sum of k * k shifted
images. On other devices such a sum serves where many networks are one program.
"""

import contextlib
import contextvars
import functools

import jax
import jax.numpy as jnp
from jax import lax

_many = contextvars.ContextVar('many', default=False)


@contextlib.contextmanager
def of_many_networks():
  """What is traced within is mapped over networks with weights of their own.

  A convolution by many kernels would be one of as many groups, which cuDNN is
  slow at; sums and matrix products get but another axis.
  """
  token = _many.set(True)
  try:
    yield
  finally:
    _many.reset(token)


def many_networks() -> bool:
  """Returns whether `of_many_networks` is around."""
  return _many.get()


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
  """TensorFlow's SAME padding of one side: what is odd goes to the end."""
  total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
  return total // 2, total - total // 2


def extent(kernel: int, dilation: int) -> int:
  """Pixels from the first to the last tap of one side of a kernel."""
  return (kernel - 1) * dilation + 1


def pad(x: jax.Array, kernel: int, stride: int) -> jax.Array:
  """SAME padding of x, [B, H, W, C], for taps that span `kernel` pixels."""
  rows = same_padding(x.shape[1], kernel, stride)
  columns = same_padding(x.shape[2], kernel, stride)
  return jnp.pad(x, ((0, 0), rows, columns, (0, 0)))


def window(
  x: jax.Array, i: int, j: int, size: tuple[int, int], stride: int
) -> jax.Array:
  """Every `stride`-th pixel of x from (i, j) on, `size` = (h, w) of them."""
  (batch, _, _, channels), (h, w) = x.shape, size
  stop = (batch, i + (h - 1) * stride + 1, j + (w - 1) * stride + 1, channels)
  return lax.slice(x, (0, i, j, 0), stop, (1, stride, stride, 1))


def output_size(x: jax.Array, stride: int) -> tuple[int, int]:
  return -(-x.shape[1] // stride), -(-x.shape[2] // stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def shifted_depthwise(
  x: jax.Array, kernel: jax.Array, stride: int, dilation: int = 1
) -> jax.Array:
  """Depthwise convolution, SAME padding, as k * k shifted multiply-adds.

  `y[b, u, v, c] = sum_ij kernel[i, j, c] x[b, s u + d i - p, s v + d j - p, c]`

  Args:
    x: [B, H, W, C] float32 or bfloat16.
    kernel: [k, k, C] float32.
    stride: s, in both directions.
    dilation: d, the distance of the taps.

  Returns:
    [B, ceil(H / s), ceil(W / s), C] of x's dtype, summed in float32.
  """
  return _depthwise_forward(x, kernel, stride, dilation)[0]


def tapped_depthwise(
  x: jax.Array, kernel: jax.Array, stride: int, dilation: int = 1
) -> jax.Array:
  """`shifted_depthwise` with the gradients that JAX derives.

  Those written by hand sum all taps in one pass, which suits a CPU alone.
  """
  k = kernel.shape[0]
  size = output_size(x, stride)
  padded = pad(x, extent(k, dilation), stride)
  y = sum(
    window(padded, dilation * i, dilation * j, size, stride) * kernel[i, j]
    for i in range(k)
    for j in range(k)
  )
  return y.astype(x.dtype)


def _depthwise_forward(x, kernel, stride, dilation):
  k = kernel.shape[0]
  size = output_size(x, stride)
  # Behind a barrier here and below: XLA would otherwise fuse the neighbouring
  # BatchNorm into the loops over the taps, which makes them slower.
  padded = lax.optimization_barrier(pad(x, extent(k, dilation), stride))
  y = sum(
    window(padded, dilation * i, dilation * j, size, stride) * kernel[i, j]
    for i in range(k)
    for j in range(k)
  )
  # Only the shape of x is needed; XLA drops the array itself.
  return y.astype(x.dtype), (x, padded, kernel)


def _depthwise_backward(stride, dilation, residuals, dy):
  x, padded, kernel = residuals
  # Both gradients read the padded array: it is one that XLA keeps in memory.
  edge, size = _edge(kernel, dilation), dy.shape[1:3]
  around = jnp.pad(dy, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
  around = lax.optimization_barrier(around)
  dy = window(around, edge, edge, size, 1)
  dx = _depthwise_input_gradient(x, kernel, stride, dilation, around)
  dkernel = _depthwise_kernel_gradient(padded, kernel, stride, dilation, dy)
  return dx.astype(x.dtype), dkernel


def _edge(kernel, dilation):
  """Zeros around dy, as many as any tap reaches."""
  half = kernel.shape[0] // 2
  return dilation * half + kernel.shape[0] - half


def _depthwise_input_gradient(x, kernel, stride, dilation, around):
  # Each phase of the input, u = stride * q + r, meets only the taps i with
  # stride * o = u + p - dilation * i for a whole o: no products with zeros
  # between.
  k = kernel.shape[0]
  edge, span = _edge(kernel, dilation), extent(k, dilation)
  height, width = x.shape[1:3]
  top = same_padding(height, span, stride)[0]
  left = same_padding(width, span, stride)[0]
  size = output_size(x, stride)

  def taps(shift):
    return [i for i in range(k) if (shift - dilation * i) % stride == 0]

  phases = [
    [
      sum(
        window(
          around,
          (r + top - dilation * i) // stride + edge,
          (t + left - dilation * j) // stride + edge,
          size,
          1,
        )
        * kernel[i, j]
        for i in taps(r + top)
        for j in taps(t + left)
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


def _depthwise_kernel_gradient(padded, kernel, stride, dilation, dy):
  # One pass for all the taps. Summed over pixels first, so that the images
  # of a batch go to different cores.
  k = kernel.shape[0]
  products = [
    window(padded, dilation * i, dilation * j, dy.shape[1:3], stride)
    * dy.astype(kernel.dtype)
    for i in range(k)
    for j in range(k)
  ]
  zeros = [jnp.zeros((), kernel.dtype)] * len(products)
  per_image = lax.reduce(
    products, zeros, lambda a, b: jax.tree.map(jnp.add, a, b), (1, 2)
  )
  return jnp.stack(per_image).sum(1).reshape(kernel.shape)


shifted_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def project(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """`x @ kernel` along the last axis of x, [B, H, W, C], in x's dtype."""
  # As matrices: from four axes XLA transposes x in memory for the gradient
  # of the kernel, a quarter of the whole training step.
  y = x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)
  return y.reshape(*x.shape[:-1], kernel.shape[-1])
