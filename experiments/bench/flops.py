"""Floating-point operations of a traced program, 2 for each multiply-add.

Matrix products and convolutions alone are counted, as is usual where a share
of a chip's peak is told; those inside cuDNN's attention too, as often as XLA's
attention does them: what its backward pass computes again counts once. A
convolution that is written as shifted multiply-adds
(`kernels.shifted_depthwise`, on a CPU) counts nothing.
"""

import math

import jax

# cuDNN's in JAX, and their products of all queries by all keys: scores and
# values; of the backward pass the gradients of values, weights, queries, keys.
_ATTENTION = {
  'dot_product_attention_fwd_wrapper': 2,
  'dot_product_attention_bwd_wrapper': 4,
}


def count(jaxpr) -> int:
  """Returns the operations of one call.

    >>> a, b = jax.numpy.ones((2, 3)), jax.numpy.ones((3, 5))
    >>> count(jax.make_jaxpr(lambda a, b: a @ b)(a, b).jaxpr)
    60

  Args:
    jaxpr: of `jax.make_jaxpr(f)(...)` or `jax.jit(f).trace(...)`. A scan counts
      as often as it runs, a while loop once.
  """
  return sum(_operations(equation) for equation in jaxpr.eqns)


def _operations(equation) -> int:
  if equation.primitive.name == 'dot_general':
    (contracted, _), _ = equation.params['dimension_numbers']
    left, _ = (v.aval.shape for v in equation.invars)
    length = math.prod(left[i] for i in contracted)
    return 2 * math.prod(equation.outvars[0].aval.shape) * length
  if equation.primitive.name == 'conv_general_dilated':
    return _convolution(equation)
  if equation.primitive.name in _ATTENTION:
    query, key = (v.aval.shape for v in equation.invars[:2])
    # [B, N, heads, d], or [B, heads, N, d] where `layout` is not 0.
    keys = key[2 if equation.params['layout'] else 1]
    products = _ATTENTION[equation.primitive.name]
    return products * 2 * math.prod(query) * keys
  inner = sum(count(jaxpr) for jaxpr in _jaxprs(equation.params))
  return inner * equation.params.get('length', 1)


def _convolution(equation) -> int:
  kernel = equation.invars[1].aval.shape
  outputs = kernel[equation.params['dimension_numbers'].rhs_spec[0]]
  taps = math.prod(kernel) // outputs
  # A dilated input, as the gradient of a stride has it, is mostly zeros.
  zeros = math.prod(equation.params['lhs_dilation'])
  return 2 * math.prod(equation.outvars[0].aval.shape) * taps // zeros


def _jaxprs(params):
  def is_jaxpr(x):
    return hasattr(x, 'eqns')

  leaves = jax.tree.leaves(list(params.values()), is_leaf=is_jaxpr)
  return [x for x in leaves if is_jaxpr(x)]
