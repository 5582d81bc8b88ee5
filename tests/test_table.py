"""The table of results: seeds are averaged, other configs are not."""

import json

import pytest

from csdnet_jax import config as config_lib
from csdnet_jax.errors import UserError
from experiments import table


def _workdir(path, *, top1, **fields):
  config = config_lib.default()
  config.data.root = 'somewhere/grape58'
  config.update_from_flattened_dict(fields)
  path.mkdir()
  (path / 'config.json').write_text(config_lib.to_json(config))
  start = {'seconds': 90.0, 'command': 'python -m csdnet_jax.main --x'}
  start |= {'devices': '1 x cpu', 'packages': {'jax': '0.10.2'}}
  (path / 'environment.json').write_text(json.dumps({'starts': [start] * 2}))
  summary = {
    'top1': top1, 'mean_per_class': top1, 'start': {'knn': 1.0,
    'linear_probe': 2.0},
  }  # fmt: skip
  (path / 'summary.json').write_text(json.dumps(summary))
  return table.record(path)


def test_seeds_are_one_row_and_other_configs_another(tmp_path):
  records = [
    _workdir(tmp_path / 'a', top1=60.0, seed=0, name='x'),
    _workdir(tmp_path / 'b', top1=64.0, seed=1, log_every=3),
    _workdir(tmp_path / 'c', top1=50.0, seed=0, **{'optim.lr': 0.5}),
  ]
  rows = table.table(records).splitlines()[2:]
  assert len(rows) == 2
  (row,) = [r for r in rows if '62.0' in r]
  assert '| 2 | 62.0 ± 2.8 |' in row and '| 3 |' in row
  assert 'csdnet' in row and '| 30 | 60 |' in row


def test_a_run_that_is_not_finished_is_refused(tmp_path):
  with pytest.raises(UserError, match='no finished run'):
    table.record(tmp_path)
