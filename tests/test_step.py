"""The train step: one program, the loss of the paper, any number of devices."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax import memory, methods, sharding
from csdnet_jax.configs import common
from csdnet_jax.evaluation import metrics
from csdnet_jax.methods.base import Context
from csdnet_jax.methods.csdnet import ddl
from csdnet_jax.step import make_eval_step

import tiny

MODES = ('spotlight', 'erase', 'views', 'none')


@pytest.mark.parametrize('mode', MODES)
def test_one_trace_one_program_no_callback_and_donation(mode):
  step, state, mesh = tiny.setup(tiny.config(mode=mode))
  chex.clear_trace_counter()
  compiled = sharding.compile_step(
    chex.assert_max_traces(step, n=1), mesh, donate=True
  )
  batches = [sharding.shard_batch(tiny.batch(i), mesh) for i in range(3)]
  before = state
  with jax.transfer_guard('disallow'):
    for batch in batches:
      state, _ = compiled(state, batch, ())
  assert all(x.is_deleted() for x in jax.tree.leaves(before))
  assert int(state.step) == 3
  # From the cache of traces: lowering again must not count as a second one.
  program = compiled.lower(state, batches[0], ()).compile().as_text()
  calls = re.findall(r'custom_call_target="([^"]*)"', program)
  assert not [call for call in calls if 'callback' in call]
  assert program.count('\nENTRY ') == 1
  assert 'input_output_alias' in program


@pytest.mark.parametrize(
  ('mode', 'devices', 'has_batch_norm', 'accumulate'),
  [
    ('spotlight', 4, False, 1),
    ('spotlight', 8, True, 1),
    ('views', 4, True, 2),
    ('views', 8, False, 1),
  ],
)
def test_any_number_of_devices_trains_the_same(
  mode, devices, has_batch_norm, accumulate
):
  config = tiny.config(mode=mode, saliency='margin')
  config.accumulate = accumulate
  one, figures1 = tiny.run(config, 6, has_batch_norm=has_batch_norm)
  many, figures = tiny.run(
    config, 6, devices=devices, has_batch_norm=has_batch_norm
  )
  for name in ('labels', 'ids', 'ptr', 'count'):
    np.testing.assert_array_equal(
      getattr(one.memory, name), getattr(many.memory, name)
    )
  chex.assert_trees_all_close(one.memory.keys, many.memory.keys, atol=1e-5)
  chex.assert_trees_all_close(one.params, many.params, atol=1e-5)
  chex.assert_trees_all_close(one.model_state, many.model_state, atol=1e-5)
  chex.assert_trees_all_close(figures1, figures, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('mode', ['spotlight', 'views'])
def test_pmap_and_shard_map_are_equal_bit_for_bit(mode):
  config = tiny.config(mode=mode)
  config.ema = 0.9
  one, figures1 = tiny.run(config, 6, devices=4, has_batch_norm=True)
  config.parallel = 'pmap'
  two, figures2 = tiny.run(config, 6, devices=4, has_batch_norm=True)
  chex.assert_trees_all_equal((one, figures1), (two, figures2))


def test_accumulation_is_the_mean_gradient_of_its_micro_batches():
  """Plain cross-entropy of undistorted views knows no other rows."""
  config = tiny.config()
  config.method.name = 'supervised'
  config.views.update(
    area=(1.0, 1.0), ratio=(1.0, 1.0), flip=False, rotate=0.0, brightness=0.0
  )
  whole, figures1 = tiny.run(config, 3)
  config.accumulate = 4
  parts, figures2 = tiny.run(config, 3)
  chex.assert_trees_all_close(whole.params, parts.params, atol=1e-5)
  chex.assert_trees_all_close(figures1, figures2, rtol=1e-4)


def test_accumulation_contrasts_each_micro_batch_and_pushes_once():
  config = tiny.config(alpha=1.0)
  config.accumulate = 2
  state, figures = tiny.run(config, 1)
  rows = tiny.batch(0)
  m = state.memory
  # 16 keys of 8 images, in the order of the rows.
  assert (m.ptr, m.count) == (16, 16)
  np.testing.assert_array_equal(m.labels[:16], np.repeat(rows['label'], 2))
  np.testing.assert_array_equal(m.ids[:16], np.repeat(rows['id'], 2))
  # The keys are those of the first parameters: none saw another's update.
  halves = zip(
    np.split(m.keys[:16], 2), np.split(m.labels[:16], 2), strict=True
  )
  contrasts = [float(ddl.loss(z, y, y, z, y, y)[0]) for z, y in halves]
  assert figures['ddl'] == pytest.approx(np.mean(contrasts), rel=1e-5)


def test_an_accumulated_step_is_one_program():
  config = tiny.config()
  config.accumulate = 2
  step, state, mesh = tiny.setup(config)
  compiled = sharding.compile_step(step, mesh, donate=True)
  batch = sharding.shard_batch(tiny.batch(0), mesh)
  program = compiled.lower(state, batch, ()).compile().as_text()
  assert program.count('\nENTRY ') == 1
  assert ' while(' in program


def test_the_loss_is_the_weighted_sum_of_its_terms():
  config = tiny.config(aug_weight=0.75, alpha=0.5, beta=2.0)
  _, f = tiny.run(config, 3)
  total = f['ce'] + 0.75 * f['ce_aug'] + 0.5 * f['ddl'] + 2.0 * f['ssdt']
  assert f['loss'] == pytest.approx(total, rel=1e-5)
  assert f['ssdt'] > 0 and f['ddl'] > 0


def test_the_queue_holds_both_views_of_the_last_batches_in_order():
  state, _ = tiny.run(tiny.config(), 4)  # 64 keys pushed into 24 slots.
  m = state.memory
  labels = np.concatenate(
    [np.repeat(tiny.batch(i)['label'], 2) for i in range(4)]
  )
  ids = np.concatenate([np.repeat(tiny.batch(i)['id'], 2) for i in range(4)])
  assert (m.ptr, m.count) == (64 % 24, 24)
  np.testing.assert_array_equal(np.roll(m.labels, -m.ptr), labels[-24:])
  np.testing.assert_array_equal(np.roll(m.ids, -m.ptr), ids[-24:])
  np.testing.assert_allclose(np.linalg.norm(m.keys, axis=1), 1.0, rtol=1e-5)


def test_a_redrawn_view_is_masked_by_the_map_of_the_raw_one():
  """Without randomness both draws are one, and so are the losses."""
  config = tiny.config()
  config.views.update(
    area=(1.0, 1.0), ratio=(1.0, 1.0), flip=False, rotate=0.0, brightness=0.0
  )
  config.method.csdnet.redraw = False
  _, raw = tiny.run(config, 2)
  config.method.csdnet.redraw = True
  _, redrawn = tiny.run(config, 2)
  chex.assert_trees_all_close(raw, redrawn, rtol=1e-3, atol=1e-4)
  config.views.flip = True
  _, redrawn = tiny.run(config, 2)
  assert abs(float(raw['ce_aug'] - redrawn['ce_aug'])) > 1e-4


def test_without_a_queue_the_memory_is_empty():
  state, _ = tiny.run(tiny.config(queue=0, beta=0.0, averaging='joint'), 2)
  assert state.memory == ()


def test_only_the_raw_view_moves_the_running_averages():
  config = tiny.config(mode='views')
  config.views.update(
    area=(1.0, 1.0), ratio=(1.0, 1.0), flip=False, rotate=0.0, brightness=0.0
  )
  state, _ = tiny.run(config, 1, has_batch_norm=True)
  model = tiny.model(has_batch_norm=True)
  params, start = model.init(jax.random.key(0), tiny.SIZE)
  method = methods.make(config, model)
  keys = jax.random.split(jax.random.key(9), 8)
  raw = method.views(keys, tiny.batch(0))['raw']  # No randomness is left in it.
  _, expected = model.apply(params, start, raw, train=True)
  chex.assert_trees_all_close(state.model_state, expected, atol=1e-6)


def test_ema_averages_parameters_and_model_state_and_is_evaluated():
  config = tiny.config()
  config.ema = 0.9
  step, state, mesh = tiny.setup(config, has_batch_norm=True)
  first = jax.device_get((state.params, state.model_state))
  state, _ = sharding.compile_step(step, mesh, donate=True)(
    state, sharding.shard_batch(tiny.batch(0), mesh), ()
  )
  expected = jax.tree.map(
    lambda a, b: 0.9 * a + 0.1 * b, first, (state.params, state.model_state)
  )
  chex.assert_trees_all_close(state.ema, expected, atol=1e-6)

  model = tiny.model(has_batch_norm=True)
  method = methods.make(config, model)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (8, tiny.SIZE, tiny.SIZE, 3), np.uint8)
  batch = {
    'image': images,
    'label': np.arange(8) % tiny.CLASSES,
    'mask': np.ones(8, bool),
  }
  _, found = make_eval_step(method, classes=tiny.CLASSES)(state, batch)
  outputs, _ = model.apply(*state.ema, images / 255.0, train=False)
  np.testing.assert_allclose(found['embedding'], outputs.embedding, atol=1e-5)


@pytest.mark.parametrize('devices', [1, 4])
def test_evaluation_is_exact_whatever_the_padding(devices):
  config = tiny.config()
  model = tiny.model()
  method = methods.make(config, model)
  mesh = sharding.make_mesh(jax.devices()[:devices])
  _, state, _ = tiny.setup(config, devices=devices)
  step = sharding.compile_step(
    make_eval_step(method, classes=tiny.CLASSES, axis=sharding.axis_of(mesh)),
    mesh,
    donate=False,
    out_specs=(sharding.REPLICATED, sharding.ROWS),
  )
  rng = np.random.default_rng(1)
  batch = {
    'image': rng.integers(0, 256, (8, tiny.SIZE, tiny.SIZE, 3), np.uint8),
    'label': (np.arange(8) % tiny.CLASSES).astype(np.int32),
    'mask': np.arange(8) < 5,
  }
  sums, _ = step(state, sharding.shard_batch(batch, mesh))
  outputs, _ = model.apply(
    jax.device_get(state.params), {}, batch['image'] / 255.0, train=False
  )
  right = np.argmax(outputs.logits, -1)[:5] == batch['label'][:5]
  figures = metrics.classification_figures(jax.device_get(sums))
  assert figures['n'] == 5
  assert figures['top1'] == pytest.approx(100 * right.mean())


def test_two_supervised_views_are_csdnet_with_its_modules_off():
  config = tiny.config(mode='none', alpha=0.0, beta=0.0, queue=0)
  csdnet, figures1 = tiny.run(config, 3)
  config.method.name = 'supervised'
  config.method.supervised.views = 2
  plain, figures = tiny.run(config, 3)
  assert figures['loss'] == pytest.approx(figures['ce'] + figures['ce_aug'])
  assert figures['loss'] == pytest.approx(figures1['loss'], rel=1e-5)
  chex.assert_trees_all_close(csdnet.params, plain.params, atol=1e-5)


def test_clevit_is_its_cross_entropies_and_the_peers_contrast():
  """The whole loss of the preset, against loops in NumPy."""
  config = common.clevit(tiny.config(), aug_weight=0.75)
  model = tiny.model()
  method = methods.make(config, model)
  params, _ = model.init(jax.random.key(1), tiny.SIZE)
  keys = jax.random.split(jax.random.key(9), 8)
  batch = method.views(keys, tiny.batch(0))
  context = Context({}, (), (), None)
  loss, aux = method.loss(params, context, batch, jax.random.key(0))
  outputs = [
    model.apply(params, {}, batch[view], train=True)[0]
    for view in ('raw', 'aug')
  ]
  expected = 0.0
  for out, weight in zip(outputs, (1.0, 0.75), strict=True):
    log = np.asarray(jax.nn.log_softmax(out.logits), np.float64)
    target = 0.9 * np.eye(tiny.CLASSES)[batch['label']] + 0.1 / tiny.CLASSES
    expected += weight * -(target * log).sum(1).mean()
  z = np.concatenate([out.embedding for out in outputs]).astype(np.float64)
  z /= np.linalg.norm(z, axis=1, keepdims=True)
  y = np.tile(batch['label'], 2)
  for i in range(16):
    for j in range(16):
      cosine = z[i] @ z[j]
      pair = 1 - cosine if y[i] == y[j] else max(cosine - 0.4, 0)
      expected += pair / 16**2
  assert float(loss) == pytest.approx(expected, rel=1e-5)
  assert not aux.metrics['ssdt'] * config.method.csdnet.beta


def test_one_supervised_view():
  config = tiny.config()
  config.method.name = 'supervised'
  state, figures = tiny.run(config, 3)
  assert state.memory == ()
  assert figures['loss'] == figures['ce']


def test_the_queue_is_read_before_it_is_written():
  """The first step's contrast is over the batch alone."""
  config = tiny.config()
  _, with_queue = tiny.run(config, 1)
  config.method.csdnet.queue = 0
  _, without = tiny.run(config, 1)
  assert with_queue['ddl'] == pytest.approx(without['ddl'], rel=1e-6)
  config.method.csdnet.queue = 24
  _, second = tiny.run(config, 2)
  config.method.csdnet.queue = 0
  _, second_without = tiny.run(config, 2)
  assert second['ddl'] != pytest.approx(second_without['ddl'], rel=1e-4)


def test_a_push_larger_than_the_memory_is_refused():
  with pytest.raises(ValueError, match='do not fit'):
    memory.push(
      memory.init(2, 3), jnp.ones((3, 3)), jnp.zeros(3, int), jnp.zeros(3, int)
    )
