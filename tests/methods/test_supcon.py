"""The supervised contrastive baseline against loops, and over devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax import methods, sharding
from csdnet_jax.config import validate
from csdnet_jax.methods import supcon
from csdnet_jax.methods.base import Context
from csdnet_jax.methods.losses import normalise
from csdnet_jax.runtime.errors import UserError

import reference
import tiny


def draw(seed=0, n=8, classes=3):
  rng = np.random.default_rng(seed)
  z = rng.normal(size=(n, 4)) + 0.5
  return z.astype(np.float32), np.int32(rng.integers(0, classes, n))


def loops(z, y, temperature):
  """Equation 2 of the paper as it is written, in float64."""
  z = np.asarray(z, np.float64)
  z = z / np.linalg.norm(z, axis=1, keepdims=True)
  total = 0.0
  for i in range(len(z)):
    others = [a for a in range(len(z)) if a != i]
    positives = [p for p in others if y[p] == y[i]]
    below = sum(np.exp(z[i] @ z[a] / temperature) for a in others)
    for p in positives:
      share = np.exp(z[i] @ z[p] / temperature) / below
      total -= np.log(share) / len(positives)
  return total / len(z)


def contrast(z, y, temperature):
  z = normalise(z)
  return supcon.contrast(z, y, z, y, temperature=temperature)


@pytest.mark.parametrize('temperature', [0.1, 0.5])
def test_value_and_gradient_equal_loops(temperature):
  z, y = draw()
  value, grad = jax.value_and_grad(contrast)(z, y, temperature)
  assert value.shape == () and value.dtype == jnp.float32
  np.testing.assert_allclose(value, loops(z, y, temperature), rtol=1e-5)
  expected = reference.gradient(lambda x: loops(x, y, temperature), z)
  assert np.abs(expected).max() > 1e-3
  np.testing.assert_allclose(grad, expected, atol=1e-5)


def test_the_temperature_is_a_tenth_unless_said():
  z, y = draw()
  unit = normalise(z)
  assert supcon.contrast(unit, y, unit, y) == contrast(z, y, 0.1)


def test_an_anchor_alone_of_its_class_adds_nothing_and_is_finite():
  z, _ = draw()
  value, grad = jax.value_and_grad(contrast)(z, np.arange(8), 0.1)
  assert value == 0
  np.testing.assert_array_equal(grad, 0)


def test_only_directions_matter_and_zero_is_finite():
  z, y = draw()
  scaled = z * np.linspace(0.1, 9, 8, dtype=np.float32)[:, None]
  np.testing.assert_allclose(
    contrast(scaled, y, 0.1), contrast(z, y, 0.1), rtol=1e-5
  )
  z[0] = 0
  chex.assert_tree_all_finite(jax.value_and_grad(contrast)(z, y, 0.1))


@pytest.mark.parametrize('devices', [4, 8])
def test_split_over_devices_it_is_the_loss_of_the_whole_batch(devices):
  z, y = draw(n=16)
  mesh = sharding.make_mesh(jax.devices()[:devices])

  def split(z, y):
    rows, axis, z = z.shape[0], sharding.AXIS, normalise(z)
    value = supcon.contrast(
      z, y, sharding.gather(z, axis), sharding.gather(y, axis),
      self_offset=jax.lax.axis_index(axis) * rows,
    )  # fmt: skip
    return sharding.mean(value, axis)

  value = jax.jit(
    jax.shard_map(
      split,
      mesh=mesh,
      in_specs=(sharding.ROWS, sharding.ROWS),
      out_specs=sharding.REPLICATED,
      check_vma=False,
    )
  )(z, y)
  np.testing.assert_allclose(value, contrast(z, y, 0.1), rtol=1e-5)


def config(**fields):
  c = tiny.config()
  c.method.name = 'supcon'
  c.method.supcon.update(**fields)
  return c


@pytest.mark.parametrize(('devices', 'has_batch_norm'), [(4, False), (8, True)])
def test_any_number_of_devices_trains_the_same(devices, has_batch_norm):
  one = tiny.run(config(), 4, has_batch_norm=has_batch_norm)
  many = tiny.run(config(), 4, devices=devices, has_batch_norm=has_batch_norm)
  chex.assert_trees_all_close(one[0].params, many[0].params, atol=1e-5)
  chex.assert_trees_all_close(
    one[0].model_state, many[0].model_state, atol=1e-5
  )
  chex.assert_trees_all_close(one[1], many[1], rtol=1e-4, atol=1e-5)


def test_the_loss_is_both_cross_entropies_and_the_weighted_contrast():
  c = config(weight=0.5, temperature=0.2)
  model = tiny.model()
  method = methods.make(c, model)
  params, _ = model.init(jax.random.key(1), tiny.SIZE)
  batch = method.views(jax.random.split(jax.random.key(9), 8), tiny.batch(0))
  context = Context({}, (), (), None)
  total, aux = method.loss(params, context, batch, jax.random.key(0))
  outputs = [
    model.apply(params, {}, batch[view], train=True)[0]
    for view in ('raw', 'aug')
  ]
  expected = 0.0
  for out in outputs:
    log = np.asarray(jax.nn.log_softmax(out.logits), np.float64)
    target = 0.9 * np.eye(tiny.CLASSES)[batch['label']] + 0.1 / tiny.CLASSES
    expected += -(target * log).sum(1).mean()
  z = np.concatenate([out.embedding for out in outputs])
  expected += 0.5 * loops(z, np.tile(batch['label'], 2), 0.2)
  assert float(total) == pytest.approx(expected, rel=1e-5)
  assert set(aux.metrics) == {'loss', 'ce', 'ce_aug', 'supcon', 'train_top1'}


def test_without_its_weight_it_is_two_supervised_views():
  alone, figures = tiny.run(config(weight=0.0), 4)
  c = config()
  c.method.name = 'supervised'
  c.method.supervised.views = 2
  plain, expected = tiny.run(c, 4)
  chex.assert_trees_all_close(alone.params, plain.params, atol=1e-6)
  assert figures['loss'] == pytest.approx(expected['loss'], rel=1e-6)
  assert alone.memory == ()


@pytest.mark.parametrize(
  ('key', 'value'), [('weight', -1.0), ('temperature', 0.0)]
)
def test_a_field_out_of_range_is_named(key, value):
  c = config(**{key: value})
  with pytest.raises(UserError, match=rf'method\.supcon\.{key}'):
    validate(c)
