"""Initial values of parameters: one draw for all that are random."""

import math

import jax


def _is_random(path) -> bool:
  names = {'kernel', 'pos_embedding', 'relative_position_bias'}
  return (
    path[-1].key in names
    or jax.tree_util.keystr(path, simple=True, separator='/')
    == 'embedding/bias'
  )


def draw(key: jax.Array, params):
  """Puts normal draws where `params` hold standard deviations.

  The nets fill what is random, all that `_is_random`, with its standard
  deviation. One draw then serves them all: XLA takes a good part of a second
  to compile each, and a net has dozens.

  Args:
    key: a PRNG key.
    params: a tree of dicts of float32 arrays.

  Returns:
    `params` with `deviation * normal` in those leaves.
  """
  leaves, tree = jax.tree.flatten_with_path(params)
  total = sum(x.size for path, x in leaves if _is_random(path))
  noise, start = jax.random.normal(key, (total,)), 0
  drawn = []
  for path, x in leaves:
    if _is_random(path):
      size = math.prod(x.shape)
      x = x * noise[start : start + size].reshape(x.shape)
      start += size
    drawn.append(x)
  return jax.tree.unflatten(tree, drawn)
