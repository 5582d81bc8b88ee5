"""Initial values of parameters: declared where one is made, drawn all at once.

XLA takes a good part of a second to compile a normal draw, and a network has
dozens. So an initializer of this file, given to `self.param` or to a layer of
Flax, returns a box that says what is to be drawn, which Flax opens for the
layer; `draw` then fills the boxes from one draw.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from flax.core import meta

Initializer = Callable[..., 'Declared']


class Declared(struct.PyTreeNode, meta.AxisMetadata):
  """A parameter's initial value, as its layer declares it.

  Attributes:
    value: of the parameter; if `random`, the deviation in each of its entries.
    random: whether it is a normal draw with that deviation.
  """

  value: jax.Array
  random: bool = struct.field(pytree_node=False)

  def unbox(self) -> jax.Array:
    return self.value

  def replace_boxed(self, val: Any) -> 'Declared':
    return self.replace(value=val)

  def add_axis(self, index: int, params: dict[Any, Any]) -> 'Declared':
    return self

  def remove_axis(self, index: int, params: dict[Any, Any]) -> 'Declared':
    return self


def normal(deviation: float) -> Initializer:
  """An initializer: normal draws with mean zero and that deviation."""
  return _initializer(deviation, random=True)


def constant(value: float) -> Initializer:
  """An initializer: that value everywhere."""
  return _initializer(value, random=False)


def _initializer(value, *, random):
  def init(key, shape, dtype=jnp.float32):
    del key  # `draw` has the one key.
    return Declared(jnp.full(shape, value, dtype), random)

  return init


zeros, ones = constant(0.0), constant(1.0)


def draw(key: jax.Array, params: Any, *, declared: bool = True) -> Any:
  """Opens the boxes of freshly made parameters and fills what is random.

  Args:
    key: a PRNG key.
    params: nested dicts of arrays and `Declared`.
    declared: whether every parameter must be; otherwise the others stay as
      they are.

  Returns:
    The same dicts of arrays: `deviation * normal` where random, in the order
    of the sorted names.

  Raises:
    ValueError: a parameter is not declared but must be.
  """
  leaves, tree = jax.tree.flatten_with_path(
    params, is_leaf=meta.is_axis_metadata
  )
  for path, x in leaves:
    if declared and not isinstance(x, Declared):
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      raise ValueError(
        f'the parameter {name} is not declared: make it with an initializer '
        'of csdnet_jax.models.initialise'
      )
  total = sum(x.value.size for _, x in leaves if _is_random(x))
  noise = jax.random.normal(key, (total,)) if total else None
  drawn, start = [], 0
  for _, x in leaves:
    value = meta.unbox(x)
    if _is_random(x):
      size = math.prod(value.shape)
      value = value * noise[start : start + size].reshape(value.shape)
      start += size
    drawn.append(value)
  return jax.tree.unflatten(tree, drawn)


def _is_random(leaf) -> bool:
  return isinstance(leaf, Declared) and leaf.random
