"""A run need hold nothing out; what it then cannot tell, it says."""

import json

import jax
import pytest

from csdnet_jax.inference.trained import load_run
from csdnet_jax.training import train

import images
import runs


@pytest.fixture
def config(tmp_path):
  root = images.class_folders(tmp_path / 'leaves', {'a': 5, 'b': 5, 'c': 1})
  return runs.config(
    tmp_path / 'cache',
    **{
      'data.source': 'folder', 'data.root': str(root), 'epochs': 2.0,
      'data.test_fraction': 0.0,
    },
  )  # fmt: skip


def trained(config, workdir):
  return train.train(config, workdir, devices=jax.devices()[:1])


def test_everything_is_trained_on_and_nothing_tested(config, tmp_path, capsys):
  workdir = tmp_path / 'run'
  summary = trained(config, workdir)
  assert summary == {'start': {}, 'n_test': 0, 'steps': 6}
  said = capsys.readouterr().out
  assert 'Nothing is for test (config.data.test_fraction=0)' in said
  assert 'No images were held out' in said
  split = json.loads((workdir / 'split.json').read_text())
  assert len(split['train']) == 11 and 'test' not in split
  made = {path.name for path in (workdir / 'pictures').iterdir()}
  assert {'views.png', 'curves.png', 'queue.png'} <= made
  assert 'confusion.png' not in made
  # It is a run like any other.
  assert trained(config, workdir) == summary
  run = load_run(workdir)
  p, none = run.predict([images.pixels(0)])
  assert p.shape == (1, 3) and none is None


@pytest.mark.slow
def test_a_validation_part_judges_where_there_is_no_test(
  config, tmp_path, capsys
):
  config.data.val_fraction = 0.4
  workdir = tmp_path / 'run'
  summary = trained(config, workdir)
  assert (summary['n_test'], summary['n_val']) == (0, 4)
  assert summary['best']['selected_on'] == 'val'
  assert set(summary['start']) == {'knn', 'prototypes', 'linear_probe'}
  assert '4 validation images, percent' in capsys.readouterr().out
  made = {path.name for path in (workdir / 'pictures').iterdir()}
  assert 'confusion.png' in made
