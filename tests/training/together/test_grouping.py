"""Which runs share a program is decided by values, not by trying."""

import jax
import pytest

from csdnet_jax.config import default
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training.together.grouping import (
  alone,
  differing,
  groups,
  require_shared,
  with_numbers,
)


def _config(**fields):
  config = default()
  config.update_from_flattened_dict(fields)
  return config


def _groups(*fields, sizes=None):
  configs = [_config(**f) for f in fields]
  return groups(configs, sizes or [()] * len(configs))


def test_what_is_counted_in_epochs_and_where_images_lie_may_differ():
  require_shared(
    [
      _config(epochs=3.0, **{'optim.warmup': 1.0, 'data.root': 'a'}),
      _config(eval_every=2.5, seed=3, **{'optim.lr': 0.1}),
    ]
  )


@pytest.mark.parametrize(
  'fields',
  [
    {'method.csdnet.queue': 16},
    {'batch_size': 8},
    {'data.canvas': 99},
    {'init_from': ''},
    {'optim.clip': 0.0},
  ],
)
def test_runs_that_share_no_shapes_are_refused_by_name(fields):
  (key,) = fields
  with pytest.raises(UserError, match=rf'config\.{key}; give them one value'):
    require_shared([_config(), _config(**fields), _config()])


@pytest.mark.parametrize(
  ('key', 'one', 'other'),
  [
    ('optim.lr', 1e-3, 3e-3),
    ('optim.weight_decay', 0.05, 0.1),
    ('optim.clip', 5.0, 1.0),
    ('optim.label_smoothing', 0.1, 0.2),
    ('optim.groups', (('x', 5.0, True),), (('x', 2.0, True),)),
    ('ema', 0.9, 0.99),
    ('views.area', (0.5, 1.0), (0.2, 0.9)),
    ('views.rotate', 15.0, 180.0),
    ('method.csdnet.alpha', 1.0, 0.5),
    ('method.csdnet.beta', 1.0, 0.0),
    ('method.csdnet.hidden', (0.15, 0.45), (0.3, 0.6)),
    ('method.csdnet.temperature', 4.0, 1.0),
    ('seed', 0, 7),
    ('data.split_seed', 0, 7),
    ('data.resplit', False, True),
  ],
)
def test_runs_that_differ_in_a_number_share_a_program(key, one, other):
  assert _groups({key: one}, {key: other}) == [[0, 1]]


@pytest.mark.parametrize(
  ('key', 'one', 'other'),
  [
    ('optim.clip', 5.0, 0.0),
    ('optim.groups', (('x', 5.0, True),), (('x', 0.0, True),)),
    ('optim.groups', (('x', 5.0, True),), (('x', 5.0, False),)),
    ('optim.warmup', 2.0, 3.0),
    ('optim.schedule', 'cosine', 'linear'),
    ('ema', 0.0, 0.9),
    ('epochs', 30.0, 60.0),
    ('batch_size', 8, 16),
    ('views.flip', True, False),
    ('views.contrast', 0.0, 0.2),
    ('method.csdnet.queue', 0, 64),
    ('method.csdnet.mode', 'none', 'spotlight'),
    ('method.name', 'csdnet', 'supervised'),
    ('model.name', 'efficientnet_lite0', 'resnet18'),
    ('model.drop_rate', 0.2, 0.3),
    ('model.size', 128, 160),
    ('data.root', 'a', 'b'),
    ('init_from', 'imagenet', ''),
  ],
)
def test_runs_that_python_tells_apart_do_not(key, one, other):
  assert _groups({key: one}, {key: other}) == [[0], [1]]


def test_groups_keep_the_order_and_ask_for_equal_sizes():
  rates = [{'optim.lr': 0.1 * i} for i in (1, 2, 3, 4, 5)]
  assert _groups(*rates, sizes=[8, 9, 8, 9, 8]) == [[0, 2, 4], [1, 3]]
  assert _groups({'ema': 0.5}, {}, {'ema': 0.6}) == [[0, 2], [1]]


def test_what_cannot_be_joined_is_alone_and_says_why():
  for fields, why in (
    ({'method.name': 'apd'}, 'segmentation'),
    ({'teacher.run': 'runs/x'}, 'teacher'),
    ({'wandb.project': 'x'}, 'W&B'),
  ):
    assert why in alone(_config(**fields))
    assert _groups(fields, fields) == [[0], [1]]


def test_only_numbers_that_differ_are_arguments_and_come_back():
  configs = [
    _config(**{'method.csdnet.hidden': (0.1, 0.4), 'optim.lr': 0.1}),
    _config(**{'method.csdnet.hidden': (0.2, 0.4), 'optim.lr': 0.3}),
  ]
  numbers = differing(configs)
  assert numbers.keys() == {'method.csdnet.hidden/0', 'optim.lr/0'}
  for i, config in enumerate(configs):
    # Of whichever run the rest is taken.
    own = {key: float(x[i]) for key, x in numbers.items()}
    values = with_numbers(configs[1 - i], own)
    assert values.method.csdnet.hidden == pytest.approx(
      config.method.csdnet.hidden
    )
    assert values.optim.lr == pytest.approx(config.optim.lr)
    assert values.optim.groups == config.optim.groups

  def total(own):
    low, high = with_numbers(configs[0], own).method.csdnet.hidden
    return low + high

  found = jax.vmap(total)(numbers)
  assert found.tolist() == pytest.approx([0.5, 0.6])
