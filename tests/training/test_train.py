"""A run from config to workdir: what it writes, resumes, refuses and keeps."""

import contextlib
import csv
import errno
import json
import os
import re
import shlex
import shutil
import signal
import sys
import threading
import types

import chex
import jax
import numpy as np
import pytest

from csdnet_jax import sharding
from csdnet_jax.checkpoint import Checkpoints
from csdnet_jax.config import default
from csdnet_jax.runtime import terminal
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.state import TrainState
from csdnet_jax.tasks.base import Experiment, Program
from csdnet_jax.training import (
  train,
  workdir as workdir_lib,
)
from csdnet_jax.training.build import build
from csdnet_jax.training.dry_run import dry_run
from csdnet_jax.training.evaluate import evaluate_run
from csdnet_jax.training.fit import fit
from csdnet_jax.training.restore import read_run, restore_run

import images
import runs

DEVICE = jax.devices()[:1]


@pytest.fixture(scope='session')
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp('cache')


@pytest.fixture(scope='session')
def finished(cache, tmp_path_factory):
  """A workdir of a finished run; tests copy it before they change it."""
  workdir = tmp_path_factory.mktemp('finished')
  train.train(runs.config(cache), workdir, devices=DEVICE)
  return workdir


@pytest.fixture
def stop_at(monkeypatch):
  """Sends this process a signal in the middle of the given step."""

  def arm(step, number=signal.SIGTERM):
    real = train.sharding.shard_batch
    seen = []

    def shard_batch(batch, mesh):
      if 'extent' in batch and 'mask' not in batch:
        seen.append(1)
        if len(seen) == step:
          os.kill(os.getpid(), number)
      return real(batch, mesh)

    monkeypatch.setattr(train.sharding, 'shard_batch', shard_batch)

  yield arm
  monkeypatch.undo()


def _summary(workdir):
  return json.loads((workdir / 'summary.json').read_text())


def _records(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  for record in records:
    record.pop('images_per_s', None)
  return records


def test_the_predictions_make_the_figures(finished):
  with open(finished / 'predictions.csv') as file:
    rows = list(csv.DictReader(file))
  split = json.loads((finished / 'split.json').read_text())['test']
  names = json.loads((finished / 'class_names.json').read_text())
  labels = [(r['path'], names.index(r['label'])) for r in rows]
  assert labels == list(split.items())
  summary = _summary(finished)
  right = np.mean([r['label'] == r['class_1'] for r in rows])
  assert 100 * right == pytest.approx(summary['top1'])


def test_the_workdir_holds_everything(finished):
  names = {path.name for path in finished.iterdir()}
  assert names >= {
    'checkpoints', 'class_names.json', 'config.json', 'confusion.csv',
    'data_report.json', 'embeddings.npz', 'environment.json',
    'metrics.jsonl', 'pictures', 'predictions.csv', 'split.json', 'start.json',
    'summary.json', 'weights.json',
  }  # fmt: skip
  summary = _summary(finished)
  assert set(summary) == {
    'top1', 'top5', 'mean_per_class', 'best', 'start', 'n_test', 'steps'
  }  # fmt: skip
  assert set(summary['best']) == {'epoch', 'top1', 'selected_on'}
  assert set(summary['start']) == {'knn', 'prototypes', 'linear_probe'}
  assert (summary['n_test'], summary['steps']) == (8, 15)
  assert summary['best']['selected_on'] == 'test'
  (start,) = json.loads((finished / 'environment.json').read_text())['starts']
  assert start['packages']['jax'] == jax.__version__
  assert start['weights']['source'] == 'random'
  assert start['seconds'] > 0 and start['command'] == shlex.join(sys.orig_argv)


def test_best_and_last_come_from_the_records(finished):
  summary, records = _summary(finished), _records(finished)
  tests = [r for r in records if r['kind'] == 'test']
  assert [r['epoch'] for r in tests] == [2.0, 4.0, 5.0]
  assert summary['top1'] == tests[-1]['top1']
  assert summary['best']['top1'] == max(r['top1'] for r in tests)
  steps = [r['step'] for r in records if r['kind'] == 'train']
  assert steps == [2, 4, 6, 8, 10, 12, 14, 15]


def test_the_confusion_matrix_counts_every_test_image(finished):
  with open(finished / 'confusion.csv') as file:
    rows = list(csv.reader(file))
  counts = np.array([[int(x) for x in row[1:]] for row in rows[1:]])
  assert counts.sum() == 8
  assert counts.sum(1).tolist() == [2] * 4
  right = 100 * np.trace(counts) / 8
  assert right == pytest.approx(_summary(finished)['top1'])
  names = json.loads((finished / 'class_names.json').read_text())
  assert rows[0][1:] == names == [row[0] for row in rows[1:]]


def test_the_latest_and_the_best_checkpoints_are_kept(finished):
  steps = {int(p.name) for p in (finished / 'checkpoints').iterdir()}
  records = [r for r in _records(finished) if r['kind'] == 'test']
  best = max(records, key=lambda r: (r['top1'], r['step']))['step']
  assert steps == {12, 15, best}


def test_a_finished_run_prints_its_table_and_trains_no_more(finished, cache):

  def times():
    files = [p for p in finished.rglob('*') if p.name != '.lock']
    return {p: p.stat().st_mtime_ns for p in files}

  before = times()
  with terminal.console.capture() as captured:
    summary = train.train(runs.config(cache), finished, devices=DEVICE)
  assert summary == _summary(finished)
  assert 'is finished' in captured.get()
  assert f'{summary["top1"]:.2f}' in captured.get()
  assert before == times()


@pytest.mark.slow
@pytest.mark.parametrize('step', [1, 7])
def test_a_stopped_run_continues_bit_for_bit(
  step, finished, cache, tmp_path, stop_at
):
  config = runs.config(cache)
  stop_at(step, signal.SIGTERM if step == 1 else signal.SIGINT)
  assert train.train(config, tmp_path, devices=DEVICE) is None
  assert not (tmp_path / 'summary.json').exists()
  assert train.train(runs.config(cache), tmp_path, devices=DEVICE)
  chex.assert_trees_all_equal(
    runs.saved_state(tmp_path), runs.saved_state(finished)
  )
  assert _summary(tmp_path) == _summary(finished)


@pytest.mark.slow
def test_records_after_the_restored_step_are_cut(finished, cache, tmp_path):
  """As if killed after step 14, the last checkpoint being that of step 12."""
  workdir = shutil.copytree(finished, tmp_path / 'run')
  (workdir / 'summary.json').unlink()
  shutil.rmtree(workdir / 'checkpoints' / '15')
  with open(workdir / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 15, "kind": "tr')  # A line cut by the kill.
  train.train(runs.config(cache), workdir, devices=DEVICE)
  assert [r['step'] for r in _records(workdir)] == [
    r['step'] for r in _records(finished)
  ]
  chex.assert_trees_all_equal(
    runs.saved_state(workdir), runs.saved_state(finished)
  )
  assert _summary(workdir) == _summary(finished)


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_falls_back(finished, cache, tmp_path):
  workdir = shutil.copytree(finished, tmp_path / 'run')
  (workdir / 'summary.json').unlink()
  newest = workdir / 'checkpoints' / '15'
  files = [p for p in newest.rglob('*') if p.is_file()]
  largest = max(files, key=lambda p: p.stat().st_size)
  largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
  (workdir / 'damaged' / '15' / 'of_before').mkdir(parents=True)
  with terminal.console.capture() as captured:
    train.train(runs.config(cache), workdir, devices=DEVICE)
  assert 'step 15 is damaged' in captured.get()
  assert {p.name for p in (workdir / 'damaged').iterdir()} == {'15', '15_'}
  assert 'Continuing from step 12' in captured.get()
  assert _summary(workdir) == _summary(finished)


def test_when_no_checkpoint_can_be_read_it_says_so(finished, cache, tmp_path):
  workdir = shutil.copytree(finished, tmp_path / 'run')
  (workdir / 'summary.json').unlink()
  for manifest in (workdir / 'checkpoints').rglob('manifest.ocdbt'):
    manifest.write_bytes(b'')
  with pytest.raises(UserError, match='cannot be read'):
    train.train(runs.config(cache), workdir, devices=DEVICE)


def test_another_config_is_refused_and_its_keys_named(finished, cache):
  before = (finished / 'config.json').read_text()
  config = runs.config(cache, **{'optim.lr': 0.5})
  with pytest.raises(UserError, match=r'optim\.lr: 0\.001 -> 0\.5'):
    train.train(config, finished, devices=DEVICE)
  assert (finished / 'config.json').read_text() == before
  summary = train.train(
    runs.config(cache, log_every=3), finished, devices=DEVICE
  )
  assert summary == _summary(finished)


@pytest.mark.slow
def test_not_a_number_stops_and_keeps_the_last_good_checkpoint(
  cache, tmp_path, monkeypatch
):
  config = runs.config(cache, save_every=1)
  real = train.check_finite

  def check(pending):
    if pending[-1][0] == 6:
      pending[-1][1]['ddl'] = np.float32(np.nan)
    return real(pending)

  monkeypatch.setattr(train, 'check_finite', check)
  with pytest.raises(UserError, match='At step 6 these are not finite: ddl'):
    train.train(config, tmp_path, devices=DEVICE)
  monkeypatch.undo()
  assert int(runs.saved_state(tmp_path).step) == 5


class _Late:
  """A figure that is there once a later step has begun."""

  def __init__(self, value, later):
    self._value, self._later = value, later

  def __array__(self, dtype=None, copy=None):
    assert self._later.wait(10), 'waited for the step that was just begun'
    return np.float32(self._value)


def test_the_loop_waits_for_no_step_that_it_has_just_begun(monkeypatch):
  config = runs.config(
    '', epochs=8 / 3, eval_every=8 / 3, log_every=2, save_every=5
  )
  begun = [threading.Event() for _ in range(10)]
  for step in (5, 8):  # What is saved is waited for.
    begun[step + 1].set()
  told = []

  def train_step(state, batch, frozen):
    step = state.step + 1
    begun[step].set()
    assert batch['id'].tolist() == [step]
    return state.replace(step=step), {'loss': _Late(step, begun[step + 1])}

  task = types.SimpleNamespace(
    train_batches=lambda *_: ({'id': np.array([i])} for i in range(1, 9)),
    write_start=lambda *_: None, write_end=lambda *_: None,
  )  # fmt: skip
  monkeypatch.setattr(train.tasks, 'of', lambda _: task)
  dataset = types.SimpleNamespace(train=types.SimpleNamespace(names=[''] * 12))
  experiment = Experiment(
    config,
    Program(sharding.make_mesh(DEVICE), None, None, 8, None, train_step, None),
    types.SimpleNamespace(dataset=dataset, parts={}),
  )
  outputs = train.Outputs(
    None,
    types.SimpleNamespace(save=lambda _, step, __: told.append(step)),
    types.SimpleNamespace(update=lambda: None),
    types.SimpleNamespace(
      write=lambda _, step, figures: told.append((step, figures['loss'])),
      flush=lambda: None,
    ),
    None,
  )
  state = TrainState(0, (), (), (), (), ())
  state, ended = train.loop(experiment, state, (), outputs)
  assert (state.step, ended) == (8, True)
  assert told == [(2, 1.5), (4, 3.5), (5, 5), 5, (6, 6), (8, 7.5), 8]


@pytest.mark.slow
def test_a_diverging_run_stops(cache, tmp_path):
  config = runs.config(
    cache, **{'optim.lr': 1e38, 'optim.clip': 0.0, 'log_every': 1}
  )
  with pytest.raises(UserError, match='not finite'):
    train.train(config, tmp_path, devices=DEVICE)
  assert not (tmp_path / 'summary.json').exists()


@pytest.mark.slow
def test_a_validation_part_selects_the_best_epoch(cache, tmp_path):
  config = runs.config(cache, **{'data.val_fraction': 0.34, 'epochs': 4.0})
  summary = train.train(config, tmp_path, devices=DEVICE)
  assert summary['best']['selected_on'] == 'val'
  records = _records(tmp_path)
  vals = {r['step']: r['top1'] for r in records if r['kind'] == 'val'}
  tests = {r['step']: r['top1'] for r in records if r['kind'] == 'test'}
  best = max(vals, key=lambda step: (vals[step], step))
  assert summary['best']['top1'] == tests[best]
  split = json.loads((tmp_path / 'split.json').read_text())
  assert not set(split['val']) & (set(split['train']) | set(split['test']))


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    ({'batch_size': 13}, 'batch_size is 13, more than the 12 training'),
    ({'method.csdnet.queue': 7}, 'queue is 7, less than the 8 keys'),
    ({'method.name': 'csdnett'}, "method.name is 'csdnett'"),
    ({'model.name': 'efficientnet_lite9'}, 'efficientnet_lite'),
    ({'init_from': 'no/such/run'}, 'no/such/run'),
    ({'model.width': 2}, 'width is 2, but only segmentation networks'),
    ({'epochs': -1.0}, 'epochs'),
  ],
)
def test_a_mistake_ends_in_a_sentence_before_anything_is_trained(
  fields, words, cache, tmp_path
):
  with pytest.raises(UserError, match=words):
    train.train(runs.config(cache, **fields), tmp_path, devices=DEVICE)
  # Corrected, the same workdir is used.
  with workdir_lib.lock(runs.config(cache), tmp_path):
    pass


def test_a_workdir_in_use_is_refused(cache, tmp_path):
  config = runs.config(cache)
  with (
    workdir_lib.lock(config, tmp_path),
    pytest.raises(UserError, match='Another process'),
    workdir_lib.lock(config, tmp_path),
  ):
    pass


def test_a_disk_without_locks_is_said_and_used(cache, tmp_path, monkeypatch):
  def flock(file, how):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(workdir_lib.fcntl, 'flock', flock)
  with (
    terminal.console.capture() as captured,
    workdir_lib.lock(runs.config(cache), tmp_path),
  ):
    pass
  assert 'Nothing locks' in captured.get()


def test_a_system_without_locks_is_said_and_used(cache, tmp_path, monkeypatch):
  monkeypatch.setattr(workdir_lib, 'fcntl', None)
  with (
    terminal.console.capture() as captured,
    workdir_lib.lock(runs.config(cache), tmp_path),
  ):
    pass
  assert f'Nothing locks {tmp_path}' in captured.get()


def test_another_error_of_the_lock_keeps_its_words(
  cache, tmp_path, monkeypatch
):
  def flock(file, how):
    raise OSError(errno.EIO, 'Input/output error')

  monkeypatch.setattr(workdir_lib.fcntl, 'flock', flock)
  with (
    pytest.raises(OSError, match='Input/output error'),
    workdir_lib.lock(runs.config(cache), tmp_path),
  ):
    pass


def test_a_run_without_its_checkpoints_keeps_its_records(
  finished, cache, tmp_path
):
  workdir = shutil.copytree(finished, tmp_path / 'run')
  shutil.rmtree(workdir / 'checkpoints')
  train.train(runs.config(cache), workdir, devices=DEVICE)
  assert _records(workdir) == _records(finished)
  with pytest.raises(UserError, match='another config'):
    train.train(runs.config(cache, seed=9), workdir, devices=DEVICE)


def test_the_start_says_what_is_trained(cache, tmp_path, stop_at, monkeypatch):
  monkeypatch.setattr(terminal, '_verbose', True)
  stop_at(1)
  with terminal.console.capture() as captured:
    config = runs.config(cache, notice='Five stages [mean].')
    train.train(config, tmp_path, devices=DEVICE)
  text = captured.get()
  for words in (
    'Five stages [mean].', 'Global batch 4 images, 2 views each',
    '3.0 steps per epoch, 15 steps in 5 epochs', 'lr 0.005', 'lr 0.001',
    'random weights', '12 images of 4 classes',
  ):  # fmt: skip
    assert words in text


def test_a_workdir_that_is_a_file_is_refused(cache, tmp_path):
  (tmp_path / 'file').write_text('')
  for workdir in (tmp_path / 'file', tmp_path / 'file' / 'run'):
    with pytest.raises(UserError, match='cannot be written'):
      train.train(runs.config(cache), workdir, devices=DEVICE)


def test_the_queue_is_capped_at_both_views_of_the_train_set(cache):
  config = runs.config(cache, **{'method.csdnet.queue': 1024})
  fitted, (note,) = fit(config, 12)
  assert fitted.method.csdnet.queue == 24
  assert config.method.csdnet.queue == 1024  # A new config was made.
  assert '24 keys instead of 1024' in note
  assert fit(fitted, 12)[1] == []


def test_the_canvas_and_the_test_image_follow_the_size_unless_they_are_set():
  config = default()
  config.model.size = 224
  fitted, _ = fit(config, 2000)
  assert (fitted.data.canvas, fitted.data.test_resize) == (269, 258)
  config.data.update(canvas=300, test_resize=224)
  fitted, _ = fit(config, 2000)
  assert (fitted.data.canvas, fitted.data.test_resize) == (300, 224)


@pytest.mark.slow
def test_it_starts_from_a_run(finished, cache, tmp_path):
  config = runs.config(cache, init_from=str(finished), epochs=0.3)
  train.train(config, tmp_path, devices=DEVICE)
  theirs = runs.saved_state(finished).params
  ours = runs.saved_state(tmp_path).params  # One warm-up step later.
  distance = jax.tree.map(lambda a, b: np.abs(a - b).max(), theirs, ours)
  assert max(jax.tree.leaves(distance)) < 0.01


def test_it_refuses_to_start_from_a_run_of_another_model(
  finished, cache, tmp_path
):
  config = runs.config(
    cache, **{'init_from': str(finished), 'model.name': 'vit_tiny'}
  )
  with pytest.raises(UserError, match='efficientnet_tiny'):
    train.train(config, tmp_path, devices=DEVICE)


def test_evaluation_of_a_workdir_repeats_its_figures(finished, cache):
  figures = evaluate_run(runs.config(cache), finished, devices=DEVICE)
  assert figures['top1'] == _summary(finished)['top1']
  with pytest.raises(UserError, match='is not the workdir of a run'):
    evaluate_run(runs.config(cache), cache, devices=DEVICE)
  words = r'only config\.data and config\.evaluation may differ: optim'
  with pytest.raises(UserError, match=words):
    config = runs.config(cache, **{'optim.lr': 0.5})
    evaluate_run(config, finished, devices=DEVICE)
  with pytest.raises(UserError, match='Classes of leaves are none of the run'):
    config = runs.config(cache, **{'data.leaves.cultivars': 5})
    evaluate_run(config, finished, devices=DEVICE)


def test_a_dry_run_says_what_would_be_done_in_a_screen(cache):
  with terminal.console.capture() as captured:
    dry_run(runs.config(cache), devices=DEVICE)
  text = captured.get()
  for words in (
    '12 images of 4 classes', 'efficientnet_tiny', '15 steps in 5 epochs',
    'Memory queue', 'GiB', 'One step takes about',
  ):  # fmt: skip
    assert words in text
  assert len(text.splitlines()) <= 24
  with terminal.console.capture() as captured:
    dry_run(runs.config(cache), devices=DEVICE, verbose=True)
  text = captured.get()
  assert '"batch_size": 4' in text and 'head/kernel' in text


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    ({'init_from': 'no/such/file.npz'}, 'no/such/file.npz cannot be read'),
    ({'data.canvas': 30}, 'data.canvas is 30'),
    ({'batch_size': 13}, 'batch_size is 13'),
  ],
)
def test_a_dry_run_makes_the_checks_of_the_run(cache, fields, words):
  with pytest.raises(UserError, match=words):
    dry_run(runs.config(cache, **fields), devices=DEVICE)


def test_a_dry_run_of_a_finished_run_says_so(finished, cache):
  with terminal.console.capture() as captured:
    dry_run(runs.config(cache), finished, devices=DEVICE)
  text = captured.get()
  assert 'is finished; nothing to do' in text and 'Compiling' not in text


@pytest.mark.slow
def test_a_dry_run_takes_the_split_that_the_run_began_with(cache, tmp_path):
  images.class_folders(tmp_path / 'set', {'ash': 6, 'oak': 6})
  config = runs.config(
    cache, **{'data.source': 'folder', 'data.root': str(tmp_path / 'set')}
  )
  workdir = tmp_path / 'run'
  train.train(config, workdir, devices=DEVICE)
  (workdir / 'summary.json').unlink()
  images.class_folders(tmp_path / 'set', {'ash': 10, 'oak': 10})
  with terminal.console.capture() as captured:
    dry_run(config, workdir, devices=DEVICE)
  said = captured.get()
  assert 'train      6 images' in said and 'random weights' not in said
  steps = str(max(int(p.name) for p in (workdir / 'checkpoints').iterdir()))
  assert f'Would continue from step {steps}.' in said
  assert 'All steps are taken' in said and 'Compiling' not in said
  # Stopped before its end.
  shutil.rmtree(workdir / 'checkpoints' / steps)
  with terminal.console.capture() as captured:
    dry_run(config, workdir, devices=DEVICE)
  said = captured.get()
  begun = int(re.search(r'Would continue from step (\d+)\.', said)[1])
  assert 0 < begun < int(steps)
  assert f' s, {int(steps) - begun} steps ' in said
  (tmp_path / 'set' / 'ash' / '0.png').unlink()
  with pytest.raises(UserError, match='this run any more: 1 are missing'):
    dry_run(config, workdir, devices=DEVICE)


@pytest.mark.slow
def test_a_dry_run_warns_of_the_workdir_of_another_config(
  finished, cache, capsys
):
  dry_run(runs.config(cache, seed=5), finished, devices=DEVICE)
  said = capsys.readouterr().out
  assert 'no training would begin' in said
  assert 'holds a run of another config (seed: 0 -> 5)' in said
  assert 'One step takes about' in said


def test_a_run_below_its_baselines_says_so():
  from csdnet_jax.tasks import classification

  start = {'knn': 30.0, 'linear_probe': 52.6}
  said = classification.remark({'top1': 36.8, 'start': start})
  assert 'below the 52.60 of the linear probe' in said
  assert '--config.epochs' in said
  said = classification.remark({'top1': 60.0, 'start': start})
  assert said == (
    'Training gained 7.40 points over the 52.60 of the linear probe on the '
    'features as they came.'
  )
  assert classification.remark({'n_test': 0, 'start': {}}) == ''


def test_a_missing_baseline_of_a_started_run_is_said(finished, cache, tmp_path):
  workdir = shutil.copytree(finished, tmp_path / 'run')
  (workdir / 'summary.json').unlink()
  (workdir / 'start.json').unlink()
  with pytest.raises(UserError, match=r'start\.json is missing'):
    train.train(runs.config(cache), workdir, devices=DEVICE)


def _whole(config):
  program = build(config, classes=4, n_train=12, devices=DEVICE)
  return sharding.abstract(jax.eval_shape(program.init), program.mesh)


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    ({'method.csdnet.queue': 16}, 'state of another model or method'),
    ({'model.name': 'vit_tiny'}, 'state of another model or method'),
    ({'optim.name': 'sgd'}, 'its weights can be used, but it cannot be contin'),
  ],
)
def test_checkpoints_of_another_layout_are_no_damaged_ones(
  finished, cache, fields, words
):
  before = sorted(p.name for p in (finished / 'checkpoints').iterdir())
  config = runs.config(cache, **fields)
  with (
    contextlib.closing(Checkpoints(finished / 'checkpoints')) as checkpoints,
    pytest.raises(UserError, match=words),
  ):
    checkpoints.restore(_whole(config))
  assert before == sorted(p.name for p in (finished / 'checkpoints').iterdir())


def test_a_run_of_another_optimiser_is_used_all_the_same(finished, cache):
  config, split = read_run(finished)
  config.optim.name = 'sgd'
  _, state = restore_run(finished, config, split, devices=DEVICE)
  assert (state.opt_state, state.memory) == ((), ())
  known = runs.saved_state(finished)
  chex.assert_trees_all_equal(jax.device_get(state.params), known.params)


def test_a_run_older_than_the_prototypes_still_prints(
  finished, cache, tmp_path
):
  workdir = shutil.copytree(finished, tmp_path / 'run')
  summary = _summary(workdir)
  del summary['start']['prototypes']
  (workdir / 'summary.json').write_text(json.dumps(summary))
  with terminal.console.capture() as captured:
    train.train(runs.config(cache), workdir, devices=DEVICE)
  assert 'linear probe, initial features' in captured.get()
  assert 'prototypes' not in captured.get()
