"""Dropout and drop path, drawn from one key per row of the batch."""

import jax
import jax.numpy as jnp

# Folded into a row's key, which dropout uses as it is: equal keys would give
# equal draws.
_PATH = 1


def dropout(x: jax.Array, keys: jax.Array, rate: float) -> jax.Array:
  """Zeroes entries of x with probability `rate`: `x * keep / (1 - rate)`.

  Args:
    x: [B, C] float32.
    keys: [B] PRNG keys.
    rate: in [0, 1).

  Returns:
    [B, C] float32.
  """
  keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))
  return jnp.where(keep(keys), x / (1 - rate), 0)


def path_scales(keys: jax.Array, rates: tuple[float, ...]) -> jax.Array:
  """The factors of drop path: 0 with probability `rate`, else 1 / (1 - rate).

  All branches are drawn at once: XLA compiles each draw in a good part of a
  second.

  Args:
    keys: [B] PRNG keys.
    rates: of each residual branch, in [0, 1).

  Returns:
    [len(rates), B] float32.
  """
  keep = 1 - jnp.asarray(rates, jnp.float32)

  def draw(key):
    return jax.random.bernoulli(jax.random.fold_in(key, _PATH), keep)

  return (jax.vmap(draw)(keys) / keep).T
