"""APD's step: its arms, groups, partition of optimisers, and the teacher."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from csdnet_jax import methods, optim, sharding
from csdnet_jax.config import default
from csdnet_jax.configs import common
from csdnet_jax.methods.apd import distill, method as apd, perspective
from csdnet_jax.methods.base import Context
from csdnet_jax.state import streams
from csdnet_jax.training.build import build

CLASSES, SIZE, CANVAS = 5, 33, 48


def config(arm='apd', **fields):
  c = common.segmentation(arm)
  c.batch_size = 8
  c.epochs = 10.0
  c.data.update(source='pairs', canvas=CANVAS)
  c.model.update(name='psp_tiny', size=SIZE, width=8)
  c.teacher.update(model='psp_tiny', dtype='float32')
  c.method.apd.hidden = 8
  c.update_from_flattened_dict(fields)
  return c


def batch(seed, rows=8, ignored=()):
  """Blocks of classes in noise; the masks of the rows `ignored` hold none."""
  rng = np.random.default_rng(seed)
  blocks = rng.integers(0, CLASSES + 1, (rows, 6, 6)).astype(np.uint8)
  mask = np.kron(blocks, np.ones((8, 8), np.uint8))
  mask[mask == CLASSES] = 255
  mask[list(ignored)] = 255
  return {
    'image': rng.integers(0, 256, (rows, CANVAS, CANVAS, 3), np.uint8),
    'mask': mask,
    'extent': np.full((rows, 2), CANVAS, np.int32),
    'centre': np.full((rows, 2), CANVAS / 2, np.float32),
    'scale': np.linspace(0.9, 1.2, rows).astype(np.float32),
    'weight': np.ones(rows, np.float32),
    'id': np.arange(rows, dtype=np.int32),
  }


def built(config, devices=1):
  return build(
    config, classes=CLASSES, n_train=80, devices=jax.devices()[:devices]
  )


def excite(key, tree):
  """Random values for all that starts at zero, so that every term is felt."""
  leaves, structure = jax.tree.flatten(tree)
  keys = jax.random.split(key, len(leaves))
  return jax.tree.unflatten(
    structure,
    [
      x + 0.1 * jax.random.normal(k, x.shape)
      for x, k in zip(leaves, keys, strict=True)
    ],
  )


@functools.cache
def teacher_weights():
  run = built(config())
  params, state = run.method.teacher.init(jax.random.key(7), SIZE)
  return jax.device_get((excite(jax.random.key(8), params), state))


def first_state(run):
  state = jax.jit(run.init)()
  return state.replace(params=excite(jax.random.key(1), state.params))


def train(config, steps=3, devices=1, ignored=()):
  """The state and the figures after some steps, and the first state."""
  run = built(config, devices)
  start = first_state(built(config)) if devices > 1 else first_state(run)
  state = sharding.replicate(jax.device_get(start), run.mesh)
  frozen = ()
  if run.method.teacher:
    frozen = sharding.replicate(teacher_weights(), run.mesh)
  order = sharding.row_order(config.batch_size, devices, config.accumulate)
  for i in range(steps):
    rows = {k: x[order] for k, x in batch(i, ignored=ignored).items()}
    rows = sharding.shard_batch(rows, run.mesh)
    state, figures = run.train_step(state, rows, frozen)
  chex.assert_trees_all_equal(
    jax.device_get(frozen), teacher_weights() if run.method.teacher else ()
  )
  return jax.device_get(state), jax.device_get(figures)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('scope', 'accumulate'), [('group', 1), ('group', 2), ('global', 1)]
)
def test_four_devices_train_as_one(scope, accumulate):
  """Labels lie unevenly: the means are over pixels and groups, not devices."""
  fields = {'method.apd.scope': scope, 'accumulate': accumulate}
  fields['method.apd.mask_ignored'] = scope == 'global'
  devices = 4 if accumulate == 1 else 2
  c = config(**fields)
  one, figures1 = train(c, ignored=(1, 4, 5))
  many, figures = train(c, devices=devices, ignored=(1, 4, 5))
  chex.assert_trees_all_close(one.params, many.params, atol=1e-5)
  chex.assert_trees_all_close(one.model_state, many.model_state, atol=1e-5)
  chex.assert_trees_all_close(figures1, figures, rtol=1e-4, atol=1e-5)


def test_groups_that_would_cross_devices_are_refused():
  with pytest.raises(Exception, match='8 devices cannot share.*groups of 2'):
    built(config(), devices=8)
  built(config(**{'method.apd.scope': 'image'}), devices=8)


def loss_of(config, ignored=()):
  """What the first step of a config computes, and its first parameters."""
  run = built(config)
  state = first_state(run)
  rows = batch(0, ignored=ignored)
  step_key = jax.random.fold_in(streams(config.seed).loop, 0)
  view_key, loss_key = jax.random.split(step_key)
  keys = sharding.row_keys(view_key, 8, None)
  context = Context(state.model_state, (), teacher_weights(), None)

  def loss(params):
    views = run.method.views(keys, rows)
    return run.method.loss(params, context, views, loss_key)

  return loss, state.params


def terms(config, ignored=(), params=None):
  """The first loss, its terms, and its gradient."""
  loss, first = loss_of(config, ignored)
  (value, aux), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(
    first if params is None else params
  )
  return value, aux.metrics, grads


def metrics_of(config, ignored=()):
  """The terms of the first loss."""
  loss, params = loss_of(config, ignored)
  return jax.jit(loss)(params)[1].metrics


@pytest.mark.slow
def test_the_scopes_differ_and_global_is_one_group():
  of = {
    scope: metrics_of(config(**{'method.apd.scope': scope}))['observation']
    for scope in ('group', 'image', 'global')
  }
  assert len({round(float(x), 9) for x in of.values()}) == 3
  whole = metrics_of(config(**{'method.apd.group': 8}))['observation']
  assert float(whole) == pytest.approx(float(of['global']), rel=1e-5)


@pytest.mark.slow
def test_the_teacher_projector_learns_from_its_own_loss_alone():
  c = config()
  _, _, grads = terms(c)
  c.method.apd.update(kd=0.0, observation=0.0, alignment=0.0)
  _, _, alone = terms(c)
  own = 'teacher_projector'
  chex.assert_trees_all_close(grads[own], alone[own], rtol=1e-5, atol=1e-8)
  assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(alone[own]))
  # And no other part from that loss: without the rest, it is a student's.
  c.method.apd.arm = 'student'
  student = terms_of_student(c)
  for name, tree in student.items():
    chex.assert_trees_all_close(alone[name], tree, rtol=1e-4, atol=1e-7)
  assert all(not np.any(x) for x in jax.tree.leaves(alone['projector']))


def terms_of_student(c):
  both = first_state(built(config())).params
  params = {k: v for k, v in both.items() if 'projector' not in k}
  return terms(c, params=params)[2]


@pytest.mark.slow
@pytest.mark.parametrize('scope', ['group', 'global'])
def test_crops_without_a_label_leave_all_finite(scope):
  c = config(**{'method.apd.scope': scope})
  value, metrics, grads = terms(c, ignored=range(8))
  assert float(metrics['labelled']) == 0
  for name in ('ce', 'observation', 'alignment', 'ce_teacher_projector'):
    assert float(metrics[name]) == 0
  for x in jax.tree.leaves((value, metrics, grads)):
    assert np.isfinite(x).all()


@pytest.mark.slow
def test_a_row_of_weight_zero_has_no_labels_and_is_counted():
  run = built(config('student'))
  rows = batch(0)
  rows['weight'][[2, 5]] = 0
  keys = jax.random.split(jax.random.key(3), 8)
  views = run.method.views(keys, rows)
  assert (np.asarray(views['label'])[[2, 5]] == 255).all()
  state = first_state(run)
  context = Context(state.model_state, (), (), None)
  _, aux = run.method.loss(state.params, context, views, jax.random.key(0))
  assert float(aux.metrics['crops_without_label']) == 25.0  # Percent.


@pytest.mark.slow
@pytest.mark.parametrize('arm', ['kd', 'cwd', 'skd', 'apd'])
def test_crops_without_label_teach_nothing(arm):
  metrics = metrics_of(config(arm), ignored=range(8))
  assert float(metrics['loss']) == 0


@pytest.mark.slow
def test_ignored_pixels_may_be_left_out_of_both_divergences():
  c = config(**{'method.apd.mask_ignored': True})
  left_out, parity = metrics_of(c), metrics_of(config())
  for name in ('kd', 'observation'):
    assert abs(float(left_out[name] - parity[name])) > 1e-9
  assert float(left_out['alignment']) == float(parity['alignment'])


@pytest.mark.slow
def test_a_teacher_in_bfloat16_teaches_nearly_the_same():
  full = metrics_of(config())
  half = metrics_of(config(**{'teacher.dtype': 'bfloat16'}))
  assert float(half['ce']) == pytest.approx(float(full['ce']), rel=1e-5)
  for name in ('kd', 'observation', 'alignment'):
    assert float(half[name]) == pytest.approx(float(full[name]), rel=0.05)
    assert float(half[name]) != float(full[name])


@pytest.mark.slow
def test_each_arm_is_its_sum():
  """Against the losses of `distill` and `perspective`, on one forward."""
  run = built(config())
  state = first_state(run)
  student_params = {
    k: v for k, v in state.params.items() if 'projector' not in k
  }
  view_key, key = jax.random.split(
    jax.random.fold_in(streams(config().seed).loop, 0)
  )
  views = run.method.views(sharding.row_keys(view_key, 8, None), batch(0))
  student, _ = jax.jit(functools.partial(run.model.apply, train=True))(
    state.params, state.model_state, views['raw'],
    keys=sharding.row_keys(jax.random.fold_in(key, 0), 8, None),
  )  # fmt: skip
  teacher, _ = jax.jit(
    functools.partial(run.method.teacher.apply, train=False)
  )(*teacher_weights(), views['raw'])
  ce = perspective.cross_entropy(student.logits, views['label'])
  ce += 0.4 * perspective.cross_entropy(student.aux, views['label'])
  kd = perspective.logit_kd(student.logits, teacher.logits, (SIZE, SIZE))
  expected = {
    'student': ce,
    'teacher': ce,
    'kd': ce + 10 * kd,
    'cwd': ce + 3 * distill.channelwise(student.logits, teacher.logits),
    'skd': ce
    + 10 * kd
    + 0.5 * distill.pairwise(student.features, teacher.features),
  }
  for arm, value in expected.items():
    found = jax.jit(loss_of(config(arm))[0])(student_params)[0]
    assert float(found) == pytest.approx(float(value), rel=1e-5), arm


def test_clipping_and_decay_act_on_the_student_alone():
  """A huge gradient of the teacher's projector must not shrink the rest."""
  params = {
    'head': {'kernel': jnp.array([3.0, 4.0])},
    'teacher_projector': {'kernel': jnp.array([1.0])},
  }
  c = default().optim
  c.update(
    name='sgd', schedule='linear', final=1.0, lr=0.1, clip=1.0,
    weight_decay=0.5, groups=(),
  )  # fmt: skip
  adam = optax.adam(1e-5, 0.9, 0.99)
  tx = optim.make(
    c, params, steps=10, warmup_steps=0, partitions={'teacher_projector': adam}
  )
  grads = {
    'head': {'kernel': jnp.array([0.3, 0.4])},
    'teacher_projector': {'kernel': jnp.array([1e6])},
  }
  updates, _ = tx.update(grads, tx.init(params), params)
  np.testing.assert_allclose(
    updates['head']['kernel'], -0.1 * np.array([0.3 + 1.5, 0.4 + 2.0]),
    rtol=1e-6,
  )  # fmt: skip
  # Adam's first step is its rate, and it knows no decay.
  np.testing.assert_allclose(
    updates['teacher_projector']['kernel'], [-1e-5], rtol=1e-3
  )


@pytest.mark.slow
def test_the_step_is_one_program_and_logs_the_norm_of_the_student():
  c = config()
  run = built(c)
  state = first_state(run)
  args = sharding.replicate(state, run.mesh), batch(0), teacher_weights()
  program = run.train_step.lower(*args).compile()
  calls = re.findall(r'custom_call_target="([^"]*)"', program.as_text())
  assert not [call for call in calls if 'callback' in call]
  assert program.as_text().count('\nENTRY ') == 1
  _, figures = program(*args)
  _, _, grads = terms(c)
  own = {k: v for k, v in grads.items() if k != 'teacher_projector'}
  norm = float(optax.tree.norm(own))
  assert float(figures['grad_norm']) == pytest.approx(norm, rel=1e-4)
  assert norm < float(optax.tree.norm(grads))


def test_poly_is_the_release_s_schedule():
  c = config('student').optim
  rate = optim.schedule(c, steps=100, warmup_steps=0)
  for k in (0, 1, 50, 99):
    expected = 0.005 * (1 - k / 100) ** 0.9
    assert float(rate(k)) == pytest.approx(expected, rel=1e-5)


def test_all_above_the_backbone_learns_ten_times_faster():
  run = built(config())
  params = jax.eval_shape(run.init).params
  params = {k: v for k, v in params.items() if k != 'teacher_projector'}
  lrs, decayed = optim.grouped(config().optim, params)
  assert set(jax.tree.leaves(decayed)) == {True}
  for part, tree in lrs.items():
    assert set(jax.tree.leaves(tree)) == {1.0 if part == 'backbone' else 10.0}


def test_a_frozen_backbone_leaves_what_stands_above_it_and_the_projectors():
  c = config()
  c.optim.tune = 'head'
  run = built(c)
  params = jax.eval_shape(run.init).params
  found = optim.partition(
    c.optim, params, ['teacher_projector'], run.method.extras
  )
  assert {part: set(jax.tree.leaves(tree)) for part, tree in found.items()} == {
    'backbone': {'freeze'},
    'teacher_projector': {'teacher_projector'},
    **{
      k: {'train'} for k in ('context', 'aux', 'aux_head', 'head', 'projector')
    },
  }


def test_projectors_start_as_pytorch_draws_them():
  drawn = apd.init_projector(jax.random.key(0), 64, 256)
  for layer, inputs in (('hidden', 64), ('out', 256)):
    for x in jax.tree.leaves(drawn[layer]):
      bound = inputs**-0.5
      assert np.abs(x).max() <= bound
      assert np.abs(x).max() > 0.95 * bound and abs(x.mean()) < 0.2 * bound
  assert drawn['hidden']['kernel'].shape == (64, 256)
  assert drawn['out']['kernel'].shape == (256, 256)


def test_networks_of_other_widths_meet_behind_the_projectors():
  c = config(**{'teacher.width': 12, 'model.width': 6})
  run = built(c)
  shapes = jax.eval_shape(run.init).params
  assert shapes['projector']['hidden']['kernel'].shape == (6, 8)
  assert shapes['teacher_projector']['hidden']['kernel'].shape == (12, 8)


def test_a_classifier_has_no_teacher_and_no_extras():
  c = default()
  c.model.name = 'efficientnet_tiny'
  c.model.size = 32
  run = built(c)
  assert run.method.teacher is None and not run.method.extras
  assert methods.task(c) == 'classification'
