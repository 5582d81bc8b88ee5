"""The config: defaults, checks, JSON and what may differ on a restart."""

import pytest

from csdnet_jax.config import (
  default,
  differences,
  from_json,
  to_json,
  validate,
)
from csdnet_jax.runtime.errors import UserError


def test_default_is_valid():
  validate(default())


def test_json_round_trip_keeps_tuples():
  config = default()
  again = from_json(to_json(config))
  assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize(
  ('key', 'value', 'words'),
  [
    ('method.csdnet.mode', 'spotlite', ['spotlite', 'Did you mean', 'erase']),
    ('data.aspect', 'wide', ['data.aspect', 'keep', 'square']),
    ('model.dtype', 'bf16', ['model.dtype', 'float32', 'bfloat16']),
    ('batch_size', 0, ['batch_size', '1 or more']),
    ('method.csdnet.margin', 2.0, ['margin', '-1 to 1']),
    ('views.area', (0.9, 0.1), ['views.area', 'in order']),
    ('method.csdnet.hidden', (0.0, 2.0), ['hidden', 'between']),
    ('method.csdnet.kernel_size', 4, ['kernel_size', 'odd']),
    ('data.test_resize', 100, ['test_resize', 'model.size']),
    ('method.csdnet.temperature', 0.0, ['temperature']),
    ('optim.groups', (('head(', 5.0, True),), ['optim.groups', 'regex']),
    ('optim.groups', (('head', 5.0),), ['optim.groups', 'row']),
    ('seed', 2**40, ['seed']),
    ('model.size', 449, ['model.size is 449', 'an even size']),
    ('ema', 1.0, ['ema']),
  ],
)
def test_a_field_out_of_range_is_named(key, value, words):
  config = default()
  config.update_from_flattened_dict({key: value})
  if key == 'model.size':
    config.method.csdnet.mode = 'views'
  with pytest.raises(UserError) as error:
    validate(config)
  for word in words:
    assert word in str(error.value)


def test_averages_that_nothing_has_loaded_are_not_kept():
  config = default()
  config.model.freeze_bn, config.init_from = True, ''
  with pytest.raises(UserError, match='freeze_bn keeps the averages of loaded'):
    validate(config)


def test_a_run_older_than_a_field_has_its_default():
  config = default()
  config.seed = 5
  del config.model.remat
  again = from_json(to_json(config))
  assert again.seed == 5 and again.model.remat is False
  validate(again)


def test_a_list_is_no_other_config_than_its_tuple():
  old, new = default(), default()
  new.optim.groups = [list(row) for row in old.optim.groups]
  assert differences(old, new) == []


def test_differences_name_keys_but_not_logging_ones():
  old, new = default(), default()
  new.log_every = 3
  new.wandb.project = 'leaves'
  new.name = 'other'
  new.data.unreadable = 'skip'
  assert not differences(old, new)
  new.optim.lr = 0.5
  assert differences(old, new) == ['optim.lr: 0.001 -> 0.5']


def test_the_older_word_for_the_same_weights_is_no_difference():
  old, new = default(), default()
  old.init_from = 'imagenet'
  assert new.init_from == 'pretrained'
  assert not differences(old, new)
  old.model.name = new.model.name = 'vit_b16'
  assert differences(old, new) == ["init_from: 'imagenet' -> 'pretrained'"]


def test_differences_see_a_key_that_is_new():
  old = default()
  del old.ema
  changed = differences(old, default())
  assert changed == ['ema: None -> 0.0']


def test_a_config_file_s_unknown_or_missing_fields_are_named():
  config = default()
  config.epoch = 3
  with pytest.raises(UserError, match='no field \'epoch\'.*"epochs"'):
    validate(config)
  config = default()
  del config.optim.clip
  with pytest.raises(UserError, match=r'lacks the field .optim\.clip'):
    validate(config)
