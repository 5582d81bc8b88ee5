"""A run whose head is fitted is a run like any other, without steps."""

import contextlib
import csv
import json
import shutil

import jax
import numpy as np
import pytest

from csdnet_jax import load_run
from csdnet_jax.data.images import inputs
from csdnet_jax.evaluation import neighbours, probes
from csdnet_jax.inference import export
from csdnet_jax.runtime import terminal
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training import train
from csdnet_jax.training.dry_run import dry_run
from csdnet_jax.training.evaluate import evaluate_run
from csdnet_jax.training.together import grouping

import images
import runs

DEVICE = jax.devices()[:1]
FITS = {'probe': probes.fit_probe, 'prototypes': probes.fit_prototypes}


def config(cache, head, **fields):
  return runs.config(
    cache, **{'method.name': 'frozen', 'method.frozen.head': head, **fields}
  )


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp('cache')


@pytest.fixture(
  scope='module',
  params=['prototypes', pytest.param('probe', marks=pytest.mark.slow)],
)
def fitted(request, cache, tmp_path_factory):
  """The head, and the workdir of a finished run; tests change a copy of it."""
  workdir = tmp_path_factory.mktemp(request.param)
  train.train(config(cache, request.param), workdir, devices=DEVICE)
  return request.param, workdir


def _predictions(workdir):
  with open(workdir / 'predictions.csv', newline='') as file:
    return list(csv.DictReader(file))


def _read(workdir, name):
  return json.loads((workdir / name).read_text())


def test_its_predictions_are_those_of_the_head_on_its_embeddings(fitted):
  name, workdir = fitted
  run = load_run(workdir)
  kept = neighbours.read(workdir)
  assert kept.step == run.step == 0
  head = FITS[name](kept.vectors, kept.labels)
  test = run.part('test')
  views = np.stack([run.view(inputs.decoded(test, i)) for i in range(8)])
  outputs = run.forward(views)
  expected = probes.logits(head, outputs['embedding'])
  np.testing.assert_allclose(outputs['logits'], expected, atol=1e-4)
  p = run.probabilities(expected)
  rows = _predictions(workdir)
  assert [row['path'] for row in rows] == list(test.names)
  for row, own in zip(rows, p, strict=True):
    assert row['class_1'] == run.class_names[own.argmax()]
    assert float(row['probability_1']) == pytest.approx(own.max(), abs=1e-4)
  right = 100 * np.mean(expected.argmax(axis=1) == test.labels)
  summary = _read(workdir, 'summary.json')
  assert (summary['steps'], summary['top1']) == (0, pytest.approx(right))
  of_start = {'probe': 'linear_probe'}.get(name, name)
  assert summary['start'][of_start] == pytest.approx(right)


def test_it_evaluates_again_and_is_finished(fitted, cache):
  name, workdir = fitted
  with terminal.console.capture() as captured:
    summary = train.train(config(cache, name), workdir, devices=DEVICE)
  assert 'is finished' in captured.get()
  assert 'last epoch' not in captured.get()
  for checkpoint in ('last', 'best'):
    again = evaluate_run(
      config(cache, name), workdir, devices=DEVICE, checkpoint=checkpoint
    )
    assert again['top1'] == summary['top1']
  made = {path.name for path in (workdir / 'pictures').iterdir()}
  assert made >= {'curves.png', 'confusion.png'}
  assert not made & {'early_late.png', 'queue.png', 'views.png'}


@contextlib.contextmanager
def _killed(monkeypatch, where, name):
  """Ends the run where it would call that function."""

  class Killed(BaseException):
    pass

  def kill(*args, **kwargs):
    raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(where, name, kill)
    with pytest.raises(Killed):
      yield


@pytest.mark.slow
@pytest.mark.parametrize(
  'where, call',
  [
    (train, 'fit_head'),
    (train, 'save'),  # Its figures are written.
    (train.tasks.classification, 'write_end'),
  ],
)
def test_a_killed_one_goes_on(
  fitted, cache, tmp_path, monkeypatch, where, call
):
  name, whole = fitted
  with _killed(monkeypatch, where, call):
    train.train(config(cache, name), tmp_path, devices=DEVICE)
  assert not (tmp_path / 'summary.json').exists()
  train.train(config(cache, name), tmp_path, devices=DEVICE)
  for file in ('summary.json', 'predictions.csv', 'confusion.csv'):
    assert (tmp_path / file).read_text() == (whole / file).read_text()
  assert len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == 1


def test_a_dry_run_says_that_no_steps_are_taken(cache):
  c = config(cache, 'prototypes', batch_size=16)  # More than there are.
  with terminal.console.capture() as captured:
    dry_run(c, devices=DEVICE)
  assert 'No steps are taken: the head (prototypes)' in captured.get()
  assert 'One step' not in captured.get()


@pytest.mark.slow
def test_a_batch_may_be_larger_than_the_set_and_nothing_held_out(tmp_path):
  root = images.class_folders(tmp_path / 'leaves', {'a': 3, 'b': 2, 'c': 1})
  c = config(
    tmp_path / 'cache', 'prototypes',
    **{
      'data.source': 'folder', 'data.root': str(root), 'batch_size': 16,
      'data.test_fraction': 0.0, 'ema': 0.9,
    },
  )  # fmt: skip
  workdir = tmp_path / 'run'
  summary = train.train(c, workdir, devices=DEVICE)
  assert summary == {'start': {}, 'n_test': 0, 'steps': 0}
  run = load_run(workdir)
  found = run.predict([images.pixels(0)])
  assert found.probabilities.shape == (1, 3) and found.none_of_these is None
  shutil.rmtree(workdir / 'checkpoints')
  (workdir / 'summary.json').unlink()
  assert train.train(c, workdir, devices=DEVICE) == summary


def test_it_shares_no_program(cache):
  assert 'no steps to share' in grouping.alone(config(cache, 'probe'))


def test_embeddings_that_are_no_numbers_are_said(cache, monkeypatch, tmp_path):
  found = {'embedding': np.array([[np.nan]]), 'label': np.array([0])}
  monkeypatch.setattr(
    train.tasks.classification, 'outputs', lambda *args: found
  )
  monkeypatch.setattr(train, 'start_figures', lambda *args: {})
  with pytest.raises(UserError, match='embeddings that are not finite'):
    train.train(config(cache, 'probe'), tmp_path, devices=DEVICE)


@pytest.mark.slow
def test_it_exports_and_says_how_its_logits_are_made(fitted):
  name, workdir = fitted
  run = load_run(workdir)
  views = np.stack([images.pixels(i, 32, 32) for i in range(3)])
  expected = run.forward(views)
  found = jax.jit(export.program(run))(views)
  np.testing.assert_allclose(found['logits'], expected['logits'], atol=1e-4)
  assert export.stablehlo(run)
  tensors = export.tensors(run)
  head = probes.Head(
    tensors['params/head/kernel'], tensors['params/head/bias'],
    normalised=name == 'prototypes',
  )  # fmt: skip
  np.testing.assert_allclose(
    probes.logits(head, expected['embedding']), expected['logits'], atol=1e-4
  )
  told = export.describe(run)['outputs']['logits']
  assert ('L2 norm' in told) == (name == 'prototypes')


@pytest.mark.slow
def test_class_means_are_no_head_to_start_from(fitted, cache, tmp_path):
  name, workdir = fitted
  c = runs.config(
    cache, **{
      'init_from': str(workdir), 'method.name': 'supervised', 'epochs': 1.0
    }
  )  # fmt: skip
  train.train(c, tmp_path, devices=DEVICE)
  known = _read(tmp_path, 'weights.json')
  assert bool(known.get('known')) == (name == 'probe')
