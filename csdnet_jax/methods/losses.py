"""Directions: what every cosine in the methods is made of."""

import jax
import jax.numpy as jnp

_EPS = 1e-6


def at_least_float32(x: jax.Array) -> jax.Array:
  """Returns x in float32, or in float64 if that is what comes in."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def normalise(x: jax.Array) -> jax.Array:
  """Returns x / max(|x|, 1e-6) over the last axis, at least in float32.

  The gradient is finite at zero, which that of `x / norm(x)` is not.

    >>> normalise(jnp.array([3.0, 4.0])).tolist()
    [0.6000000238418579, 0.800000011920929]
  """
  x = at_least_float32(x)
  square = jnp.sum(x * x, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(square, _EPS**2))
