"""What the losses of several methods are made of: directions, entropies."""

import jax
import jax.numpy as jnp
import optax

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


def cross_entropy(
  logits: jax.Array, labels: jax.Array, smoothing: float
) -> jax.Array:
  """The mean over B of the cross-entropy with smoothed labels.

  `-mean_i sum_c ((1 - s) [c = y_i] + s / C) log softmax(p_i)_c`; smoothing as
  in Szegedy et al., CVPR 2016, section 7.

    >>> zeros = jnp.zeros((2, 4))
    >>> round(float(cross_entropy(zeros, jnp.array([0, 3]), 0.1)), 4)  # log 4.
    1.3863

  Args:
    logits: p, [B, C] float32.
    labels: y, [B] int32.
    smoothing: s in [0, 1).

  Returns:
    [] float32.
  """
  targets = optax.losses.smooth_labels(
    jax.nn.one_hot(labels, logits.shape[-1]), smoothing
  )
  return jnp.mean(optax.losses.softmax_cross_entropy(logits, targets))


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Top-1 of this batch in percent, [] float32."""
  return 100.0 * jnp.mean(jnp.argmax(logits, -1) == labels)
