"""SSDT: self-distillation between the two views, at the logits.

CSDNet, arXiv 2311.06056, third module. The divergence, temperature and
direction are not stated in reachable material; our choice: Hinton's KL.
"""

import jax
import jax.numpy as jnp
import optax


def _kl(target: jax.Array, source: jax.Array, temperature: float) -> jax.Array:
  target = jax.lax.stop_gradient(target).astype(jnp.float32) / temperature
  source = source.astype(jnp.float32) / temperature
  divergence = optax.losses.kl_divergence_with_log_targets(
    jax.nn.log_softmax(source), jax.nn.log_softmax(target)
  )
  return temperature**2 * jnp.mean(divergence)


def loss(
  logits_raw: jax.Array,
  logits_aug: jax.Array,
  *,
  temperature: float = 4.0,
  direction: str = 'symmetric',
) -> jax.Array:
  """T^2 KL(softmax(target / T) || softmax(source / T)), target detached.

    >>> p = jnp.array([[2.0, 0.0]])
    >>> float(loss(p, p))
    0.0

  Args:
    logits_raw: p_r, [B, classes] float32, of the raw view.
    logits_aug: p_a, [B, classes] float32, of the augmented view.
    temperature: T > 0.
    direction: 'raw_to_aug' (the raw view is the target), 'aug_to_raw', or
      'symmetric', half the sum of both.

  Returns:
    The divergence [], summed over classes and averaged over images.
  """
  if direction == 'raw_to_aug':
    return _kl(logits_raw, logits_aug, temperature)
  if direction == 'aug_to_raw':
    return _kl(logits_aug, logits_raw, temperature)
  if direction == 'symmetric':
    forth = _kl(logits_raw, logits_aug, temperature)
    return 0.5 * (forth + _kl(logits_aug, logits_raw, temperature))
  raise ValueError(
    "direction is 'raw_to_aug', 'aug_to_raw' or 'symmetric', not "
    f'{direction!r}.'
  )
