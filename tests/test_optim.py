"""Optimisers against NumPy, and the table of multipliers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax import models, optim
from csdnet_jax.config import default

PARAMS = {
  'stem': {'kernel': jnp.array([1.0, -2.0]), 'bias': jnp.array([0.5])},
  'head': {'kernel': jnp.array([3.0]), 'bias': jnp.array([1.0])},
}
GRADS = jax.tree.map(lambda p: 0.1 * p + 0.05, PARAMS)


def _config(**fields):
  config = default().optim
  config.update(schedule='linear', final=1.0, clip=0.0, lr=0.1)
  config.update(**fields)
  return config


def _updated(config, *, steps=1):
  tx = optim.make(config, PARAMS, steps=10, warmup_steps=0)
  params, state = PARAMS, tx.init(PARAMS)
  for _ in range(steps):
    updates, state = tx.update(GRADS, state, params)
    params = jax.tree.map(jnp.add, params, updates)
  return params


def test_every_matching_row_multiplies():
  lrs, decayed = optim.grouped(default().optim, PARAMS)
  assert lrs == {
    'stem': {'kernel': 1.0, 'bias': 1.0},
    'head': {'kernel': 5.0, 'bias': 5.0},
  }
  assert decayed == {
    'stem': {'kernel': True, 'bias': False},
    'head': {'kernel': True, 'bias': False},
  }


def test_adamw_against_numpy():
  config = _config(name='adamw', weight_decay=0.2)
  got = _updated(config, steps=3)
  for (room, name), lr, wd in [
    (('stem', 'kernel'), 0.1, 0.2),
    (('stem', 'bias'), 0.1, 0.0),
    (('head', 'kernel'), 0.5, 0.2),
    (('head', 'bias'), 0.5, 0.0),
  ]:
    p, g = np.array(PARAMS[room][name]), np.array(GRADS[room][name])
    m = v = 0.0
    for t in range(1, 4):
      m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
      adam = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
      p = p - lr * (adam + wd * p)
    np.testing.assert_allclose(got[room][name], p, rtol=1e-4)


def test_sgd_against_numpy():
  got = _updated(_config(name='sgd', weight_decay=0.2), steps=3)
  p, g = np.array(PARAMS['stem']['kernel']), np.array(GRADS['stem']['kernel'])
  trace = 0.0
  for _ in range(3):
    trace = 0.9 * trace + g + 0.2 * p
    p = p - 0.1 * trace
  np.testing.assert_allclose(got['stem']['kernel'], p, rtol=1e-5)


def test_zero_freezes_and_leaves_the_clipping_norm():
  groups = (('^stem/', 0.0, True),)
  config = _config(name='sgd', weight_decay=0.0, clip=0.01, groups=groups)
  got = _updated(config)
  np.testing.assert_array_equal(got['stem']['kernel'], PARAMS['stem']['kernel'])
  np.testing.assert_array_equal(got['stem']['bias'], PARAMS['stem']['bias'])
  moved = jnp.concatenate(
    [got['head'][n] - PARAMS['head'][n] for n in ('kernel', 'bias')]
  )
  # The head alone has the whole norm of 0.01, times lr 0.1.
  assert float(jnp.linalg.norm(moved)) == pytest.approx(0.001, rel=1e-4)


def test_frozen_parameters_and_other_partitions_are_not_trained():
  config = _config(groups=(('^stem/', 0.0, True),))
  params = PARAMS | {'projector': {'kernel': jnp.ones((2, 2))}}
  found = optim.partition(config, params, partitions=['projector'])
  assert found == {
    'stem': {'kernel': 'freeze', 'bias': 'freeze'},
    'head': {'kernel': 'train', 'bias': 'train'},
    'projector': {'kernel': 'projector'},
  }


def test_frozen_parameters_hold_no_state():
  config = _config(name='adamw', groups=(('^stem/', 0.0, True),))
  tx = optim.make(config, PARAMS, steps=10, warmup_steps=0)
  shapes = [x.size for x in jax.tree.leaves(tx.init(PARAMS)) if x.ndim]
  assert sum(shapes) == 2 * 2  # First and second moment of the head.


NETWORK = {
  'stem': {'kernel': 0}, 'stem_bn': {'scale': 0},
  'stage_0_block_0': {'conv': {'kernel': 0}, 'conv_norm': {'bias': 0}},
  'merge_1': {'norm': {'scale': 0}},
  'stage_1_block_0': {
    'LayerNorm_2': {'scale': 0}, 'LayerScale_0': {'scale': 0},
  },
  'norm': {'bias': 0}, 'head': {'kernel': 0}, 'projector': {'kernel': 0},
}  # fmt: skip


def _learning(**fields):
  found = optim.partition(_config(**fields), NETWORK, extras=['projector'])
  return {k for k, label in optim.names(found).items() if label == 'train'}


def test_what_is_tuned_is_the_head_or_norms_or_all():
  head = {'head/kernel', 'projector/kernel'}
  norms = {
    'stem_bn/scale', 'stage_0_block_0/conv_norm/bias', 'merge_1/norm/scale',
    'stage_1_block_0/LayerNorm_2/scale', 'norm/bias',
  }  # fmt: skip
  assert _learning() == optim.names(NETWORK).keys()
  assert _learning(tune='head') == head
  assert _learning(tune='norms') == head | norms
  # A row that freezes freezes whatever is tuned.
  assert _learning(tune='norms', groups=(('(?i)norm', 0.0, True),)) == (
    head | {'stem_bn/scale'}
  )


def test_the_rate_decays_by_the_layer():
  config = _config(layer_decay=0.5, groups=(('^head/', 5.0, True),))
  lrs, _ = optim.grouped(config, NETWORK, ['projector'])
  assert optim.names(lrs) == {
    'head/kernel': 5.0, 'projector/kernel': 1.0, 'norm/bias': 1.0,
    'stage_1_block_0/LayerNorm_2/scale': 0.5,
    'stage_1_block_0/LayerScale_0/scale': 0.5,
    'merge_1/norm/scale': 0.25,
    'stage_0_block_0/conv/kernel': 0.125,
    'stage_0_block_0/conv_norm/bias': 0.125,
    'stem/kernel': 0.0625, 'stem_bn/scale': 0.0625,
  }  # fmt: skip


@pytest.mark.parametrize(
  ('name', 'size', 'last', 'lowest'),
  [
    ('efficientnet_tiny', 32, 'block_2/project/kernel', 'stem_bn/bias'),
    ('resnet_tiny', 32, 'backbone/layer4_1/conv1/kernel', 'backbone/bn1/bias'),
    (
      'dinov2_tiny_reg', 16, 'Transformer/encoderblock_1/LayerScale_0/scale',
      'Transformer/registers',
    ),
    (
      'clip_tiny', 16, 'Transformer/encoderblock_1/LayerNorm_0/bias',
      'Transformer/pre_norm/bias',
    ),
    (
      'dinov3_tiny', 16, 'Transformer/encoderblock_1/LayerScale_0/scale',
      'Transformer/registers',
    ),
    ('convnext_micro', 64, 'stage_2_block_1/norm/bias', 'stem_norm/bias'),
    ('swin_micro', 24, 'stage_1_block_1/mlp/Dense_0/kernel', 'embedding/bias'),
    ('psp_resnet18', 65, 'backbone/layer4_1/bn1/bias', 'backbone/bn3/scale'),
  ],
)  # fmt: skip
def test_the_layers_of_a_network_are_told_by_its_names(
  name, size, last, lowest
):
  model = models.build(name, classes=2, drop_rate=0.0, drop_path=0.0)
  key = jax.random.key(0)
  params, _ = jax.eval_shape(lambda: model.init(key, size))
  found = optim.heights(params)
  top = {k.split('/')[0] for k, height in found.items() if height == 0}
  assert top <= {
    'head', 'norm', 'top', 'top_bn', 'Transformer', 'context', 'aux', 'aux_head'
  }  # fmt: skip
  assert found['head/kernel'] == 0
  assert found[last] == 1
  assert found[lowest] == max(found.values())
  assert set(found.values()) == set(range(max(found.values()) + 1))


@pytest.mark.parametrize('name', ['cosine', 'linear'])
def test_schedule_warms_up_and_ends(name):
  config = _config(schedule=name, lr=1.0, final=0.01)
  rate = optim.schedule(config, steps=100, warmup_steps=10)
  values = np.array([float(rate(i)) for i in range(101)])
  assert 0 < values[0] < 0.2
  assert np.argmax(values) == 10
  assert values[10] == pytest.approx(1.0)
  assert np.all(np.diff(values[10:]) <= 0)
  assert values[100] == pytest.approx(0.01, rel=1e-3)


def test_describe_counts_every_parameter():
  lines = optim.describe(_config(groups=(('^stem/', 0.0, True),)), PARAMS)
  assert lines[0].startswith('lr 0.1')
  assert '3 parameters (frozen)' in lines[1]
