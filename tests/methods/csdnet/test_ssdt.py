"""Self-distillation between the views: value, direction, detachment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax.methods.csdnet import ssdt

import reference


def draw(seed=0, b=5, n=7):
  rng = np.random.default_rng(seed)
  return 3 * rng.normal(size=(2, b, n)).astype(np.float32)


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_every_direction_equals_numpy(temperature):
  raw, aug = draw()

  def value(direction):
    return float(
      ssdt.loss(raw, aug, temperature=temperature, direction=direction)
    )

  forth = reference.divergence(raw, aug, temperature)
  back = reference.divergence(aug, raw, temperature)
  assert forth != pytest.approx(back, rel=1e-2)
  assert value('raw_to_aug') == pytest.approx(forth, rel=1e-5)
  assert value('aug_to_raw') == pytest.approx(back, rel=1e-5)
  assert value('symmetric') == pytest.approx((forth + back) / 2, rel=1e-5)


def test_the_defaults_are_symmetric_at_temperature_4():
  raw, aug = draw()
  assert ssdt.loss(raw, aug) == ssdt.loss(
    raw, aug, temperature=4.0, direction='symmetric'
  )


@pytest.mark.parametrize('direction', ['raw_to_aug', 'aug_to_raw', 'symmetric'])
def test_only_the_source_learns(direction):
  raw, aug = draw()
  temperature = 2.0
  grads = jax.grad(ssdt.loss, argnums=(0, 1))(
    raw, aug, temperature=temperature, direction=direction
  )
  # d/ds T^2 KL(t || s) = T (softmax(s / T) - softmax(t / T)), over B images.
  p, q = (
    np.stack([reference.softmax(row / temperature) for row in logits])
    for logits in (raw, aug)
  )
  gap = temperature * (p - q) / len(raw)
  expected = {
    'raw_to_aug': (0 * gap, -gap),
    'aug_to_raw': (gap, 0 * gap),
    'symmetric': (gap / 2, -gap / 2),
  }[direction]
  for found, wanted in zip(grads, expected, strict=True):
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_equal_views_have_nothing_to_learn():
  raw, _ = draw()
  value, grad = jax.value_and_grad(ssdt.loss, argnums=(0, 1))(raw, raw)
  assert abs(value) < 1e-6
  np.testing.assert_allclose(jnp.stack(grad), 0.0, atol=1e-6)


def test_a_shift_of_an_images_logits_changes_nothing():
  raw, aug = draw()
  shift = np.arange(5, dtype=np.float32)[:, None]
  np.testing.assert_allclose(
    ssdt.loss(raw + 3 * shift, aug - shift), ssdt.loss(raw, aug), rtol=1e-4
  )


@pytest.mark.parametrize('huge', [1e4, 1e30])
def test_huge_logits_stay_finite(huge):
  raw, aug = draw()
  value, grads = jax.value_and_grad(ssdt.loss, argnums=(0, 1))(
    huge * raw, huge * aug
  )
  assert np.isfinite(value) and value >= 0
  assert np.isfinite(jnp.stack(grads)).all()


def test_an_unknown_direction_is_refused():
  with pytest.raises(ValueError, match='sideways'):
    ssdt.loss(*draw(), direction='sideways')
