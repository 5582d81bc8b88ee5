"""Figures to files: JSON Lines, TensorBoard where it is there, W&B on wish."""

import csv
import errno
import io
import json
import os

import pytest

from csdnet_jax.config import default
from csdnet_jax.runtime import commands, writers
from csdnet_jax.runtime.errors import UserError

# Stand-ins that write down how they are called.
TENSORBOARD = """
class SummaryWriter:
  def __init__(self, folder, purge_step):
    self.calls = [(folder, purge_step)]
    made.append(self.calls)
  def add_scalar(self, *args):
    self.calls.append(args)
  def close(self):
    self.calls.append('closed')
made = []
"""
WANDB = """
calls = []
class Run:
  def log(self, figures, step):
    calls.append((figures, step))
  def finish(self):
    calls.append('finished')
def init(**kwargs):
  calls.append(kwargs['project'])
  return Run()
"""


def test_records_are_cut_back_to_the_restored_step(tmp_path):
  config = default()
  writer = writers.Writer(tmp_path, config, step=0)
  for step in (1, 2, 3):
    writer.write('train', step, {'loss': 0.5})
  writer.close()
  with open(tmp_path / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 4, "ki')
  writer = writers.Writer(tmp_path, config, step=2)
  writer.write('test', 3, {'top1': 50.0})
  writer.close()
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  assert [(r['step'], r['kind']) for r in records] == [
    (1, 'train'),
    (2, 'train'),
    (3, 'test'),
  ]


def test_tensorboard_is_written_where_it_is_installed(tmp_path, monkeypatch):
  (tmp_path / 'tensorboardX.py').write_text(TENSORBOARD)
  monkeypatch.syspath_prepend(tmp_path)
  writer = writers.Writer(tmp_path, default(), step=7)
  writer.write('test', 8, {'top1': 50.0})
  writer.close()
  import tensorboardX

  assert tensorboardX.made[-1] == [
    (str(tmp_path / 'tensorboard'), 8),
    ('test/top1', 50.0, 8),
    'closed',
  ]


def test_wandb_is_used_where_a_project_is_named(tmp_path, monkeypatch):
  config = default()
  config.wandb.project = 'leaves'
  with pytest.raises(UserError, match='pip install wandb'):
    writers.Writer(tmp_path, config, step=0)
  (tmp_path / 'wandb.py').write_text(WANDB)
  monkeypatch.syspath_prepend(tmp_path)
  writer = writers.Writer(tmp_path, config, step=0)
  writer.write('test', 8, {'top1': 50.0})
  writer.close()
  import wandb

  assert wandb.calls == ['leaves', ({'test/top1': 50.0}, 8), 'finished']


def test_a_table_is_read_again_whatever_is_in_it():
  rows = [['a,b', 'c"d'], ['e\rf', 'g\nh'], ['i\r\n', '']]
  text = writers.csv_text(rows)
  assert list(csv.reader(io.StringIO(text, newline=''))) == rows
  assert writers.csv_text([['a', 1]]) == 'a,1\n'


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path, monkeypatch):
  path = tmp_path / 'p.csv'
  path.write_text('old')

  def full(number):
    raise OSError(errno.ENOSPC, 'No space left on device')

  with monkeypatch.context() as m:
    m.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='p.csv') as caught:
      writers.write_text(path, 'new')
  assert [p.name for p in tmp_path.iterdir()] == ['p.csv']
  assert path.read_text() == 'old'
  sentence = commands.explain(caught.value)
  assert f'while writing to {path};' in sentence
