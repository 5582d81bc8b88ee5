"""The config: defaults, checks, JSON and what may differ on a restart."""

import pytest

from csdnet_jax import config as config_lib
from csdnet_jax.runtime.errors import UserError


def test_default_is_valid():
  config_lib.validate(config_lib.default())


def test_json_round_trip_keeps_tuples():
  config = config_lib.default()
  again = config_lib.from_json(config_lib.to_json(config))
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
    ('optim.groups', (('head(', 5.0, 1.0),), ['optim.groups', 'regex']),
    ('optim.groups', (('head', 5.0),), ['optim.groups', 'row']),
    ('seed', 2**40, ['seed']),
    ('model.size', 449, ['model.size is 449', 'an even size']),
    ('ema', 1.0, ['ema']),
  ],
)
def test_a_field_out_of_range_is_named(key, value, words):
  config = config_lib.default()
  config.update_from_flattened_dict({key: value})
  if key == 'model.size':
    config.method.csdnet.mode = 'views'
  with pytest.raises(UserError) as error:
    config_lib.validate(config)
  for word in words:
    assert word in str(error.value)


def test_a_run_older_than_a_field_has_its_default():
  config = config_lib.default()
  config.seed = 5
  del config.model.remat
  again = config_lib.from_json(config_lib.to_json(config))
  assert again.seed == 5 and again.model.remat is False
  config_lib.validate(again)


def test_a_list_is_no_other_config_than_its_tuple():
  old, new = config_lib.default(), config_lib.default()
  new.optim.groups = [list(row) for row in old.optim.groups]
  assert config_lib.differences(old, new) == []


def test_differences_name_keys_but_not_logging_ones():
  old, new = config_lib.default(), config_lib.default()
  new.log_every = 3
  new.wandb.project = 'leaves'
  new.name = 'other'
  assert not config_lib.differences(old, new)
  new.optim.lr = 0.5
  assert config_lib.differences(old, new) == ['optim.lr: 0.001 -> 0.5']


def test_differences_see_a_key_that_is_new():
  old = config_lib.default()
  del old.ema
  changed = config_lib.differences(old, config_lib.default())
  assert changed == ['ema: None -> 0.0']


def test_a_config_file_s_unknown_or_missing_fields_are_named():
  config = config_lib.default()
  config.epoch = 3
  with pytest.raises(UserError, match='no field \'epoch\'.*"epochs"'):
    config_lib.validate(config)
  config = config_lib.default()
  del config.optim.clip
  with pytest.raises(UserError, match=r'lacks the field .optim\.clip'):
    config_lib.validate(config)


def test_get_config_reads_a_workdir(tmp_path):
  config = config_lib.default()
  config.seed = 7
  (tmp_path / 'config.json').write_text(config_lib.to_json(config))
  assert config_lib.get_config(str(tmp_path)).seed == 7
  with pytest.raises(UserError, match='not the workdir of a run'):
    config_lib.get_config(str(tmp_path / 'absent'))
