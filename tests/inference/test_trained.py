"""A finished run from Python: what it returns is what training measured."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from csdnet_jax import load_run
from csdnet_jax.data import decode
from csdnet_jax.data.images import inputs, splits
from csdnet_jax.evaluation import calibration, unknown
from csdnet_jax.inference import calibrated, trained as run_lib
from csdnet_jax.runtime import terminal, writers
from csdnet_jax.runtime.errors import UserError

import images

CLASSES = 4


@pytest.fixture(scope='module')
def run(trained, tmp_path_factory):
  copy = tmp_path_factory.mktemp('run') / 'run'
  return load_run(shutil.copytree(trained, copy))


KEPT = ('calibration.json', 'embeddings.npz', 'unknown.json')


def _pictures(n):
  return [images.pixels(i, 40 + i, 60 - i) for i in range(n)]


def _p(run, images):
  return run.predict(images).probabilities


def test_the_package_itself_is_light():
  code = (
    'import sys, csdnet_jax; assert csdnet_jax.__version__; '
    "assert not {'jax', 'numpy'} & set(sys.modules)"
  )
  root = pathlib.Path(__file__).parents[2]
  subprocess.run([sys.executable, '-c', code], cwd=root, check=True)


def test_an_absent_name_of_the_package_is_an_attribute_error():
  import csdnet_jax

  with pytest.raises(AttributeError, match='load_runs'):
    csdnet_jax.load_runs  # noqa: B018


def test_it_predicts_what_training_measured(run, trained):
  test, problems = run.part('test'), []
  found = np.concatenate(
    [x['logits'].argmax(1) for _, x in run.outputs(test, problems)]
  )
  summary = json.loads((trained / 'summary.json').read_text())
  assert 100 * np.mean(found == test.labels) == summary['top1']
  assert (run.step, problems) == (summary['steps'], [])


def test_progress_counts_every_picture_read_or_not(run):
  train = run.part('train')
  paths = [*train.names, 'gone.png']
  part = inputs.of_paths(paths)._replace(
    read=lambda i: train.read(i) if i < len(train.names) else b''
  )
  calls, problems = [], []
  list(run.outputs(part, problems, lambda *call: calls.append(call)))
  assert calls == [(4, 9), (8, 9), (9, 9)]
  assert problems == ['gone.png: the file is empty']


def test_probabilities_and_embeddings(run):
  given = _pictures(3)
  (p, none), x = run.predict(given), run.embed(given)
  assert none is None and '4 held-out leaves' in run.unknown.how
  assert p.shape == (3, CLASSES) and p.dtype == np.float32
  np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
  assert x.shape[0] == 3 and x.dtype == np.float32 and np.isfinite(x).all()
  logits = run.forward(np.stack([run.view(i) for i in given]))['logits']
  np.testing.assert_array_equal(logits.argmax(1), p.argmax(1))


def test_paths_and_arrays_agree(run, tmp_path):
  given = _pictures(2)
  paths = [
    images.write(tmp_path / f'{i}.png', images.encode(x))
    for i, x in enumerate(given)
  ]
  np.testing.assert_array_equal(_p(run, paths), _p(run, given))
  np.testing.assert_array_equal(run.embed(map(str, paths)), run.embed(given))


def test_a_folder_a_glob_and_a_path_agree_with_the_list(run, tmp_path):
  paths = [
    images.write(tmp_path / 'leaves' / f'{i}.png', images.encode(x))
    for i, x in enumerate(_pictures(5))
  ]
  expected = _p(run, paths)
  for given in (tmp_path / 'leaves', str(tmp_path / 'leaves' / '*.png')):
    np.testing.assert_allclose(_p(run, given), expected, atol=1e-6)
  np.testing.assert_allclose(
    run.embed(tmp_path / 'leaves'), run.embed(paths), rtol=1e-5
  )
  np.testing.assert_array_equal(_p(run, paths[0]), _p(run, paths[:1]))
  images.write(tmp_path / 'leaves' / '7.CR2', b'')
  with terminal.console.capture() as captured:
    np.testing.assert_allclose(
      _p(run, tmp_path / 'leaves'), expected, atol=1e-6
    )
  assert 'not used: 1 .CR2' in ' '.join(captured.get().split())
  images.write(tmp_path / 'leaves' / '7.jpg', b'')
  with pytest.raises(UserError, match=r'1 image cannot .*7\.jpg'):
    run.predict(tmp_path / 'leaves')


def test_one_image_and_many_are_two_programs(run):
  traces = []

  def predict(*args):
    traces.append(1)
    return run.method.predict(*args)

  copy = run_lib.TrainedRun(
    run.workdir, run.config, {'class_names': run.class_names}, run.step,
    run.params, run.model_state, run.method._replace(predict=predict),
  )  # fmt: skip
  given = _pictures(9)
  whole = copy.embed(given)
  for n in (0, 1, 4, 5):
    np.testing.assert_allclose(copy.embed(given[:n]), whole[:n], atol=1e-6)
  assert len(traces) == 2


@pytest.mark.parametrize(
  ('given', 'words'),
  [
    ('no/such', "'no/such' is no file and holds no pictures"),
    (pathlib.Path('leaf.png'), 'is no file'),
    ([np.zeros((4, 4), np.uint8)], r'uint8, not \(4, 4\)'),
    ([np.zeros((0, 5, 3), np.uint8)], 'An image of 0 x 5 pixels'),
    (np.zeros((2, 5, 0, 3), np.uint8), 'An image of 5 x 0 pixels'),
    ([np.zeros((4, 4, 4), np.uint8)], r'not \(4, 4, 4\)'),
    ([np.zeros((4, 4, 3))], 'of float64'),
    (['no/such.png'], r'no/such\.png: cannot be read'),
  ],
)
def test_a_mistake_is_said(given, words, run):
  with pytest.raises(UserError, match=words):
    run.predict(given)


def test_what_is_no_run_is_said(tmp_path):
  (tmp_path / 'file').write_text('')
  for path in (tmp_path / 'absent', tmp_path / 'file', tmp_path):
    with pytest.raises(UserError, match='is not the workdir of a run'):
      load_run(path)


def test_a_run_without_a_checkpoint_is_said(trained, tmp_path):
  for name in ('config.json', 'split.json'):
    shutil.copy(trained / name, tmp_path)
  with pytest.raises(UserError, match='no checkpoint'):
    load_run(tmp_path)


def test_the_best_checkpoint_is_the_one_that_was_selected(trained, tmp_path):
  workdir = shutil.copytree(trained, tmp_path / 'run')
  summary = json.loads((workdir / 'summary.json').read_text())
  steps = [
    r['step']
    for r in writers.read_records(workdir / 'metrics.jsonl')
    if r['kind'] == 'val' and r['epoch'] == summary['best']['epoch']
  ]
  with terminal.console.capture() as captured:
    assert [load_run(workdir, 'best').step] == steps
  assert captured.get() == ''
  split = json.loads((workdir / 'split.json').read_text())
  del split['val']
  (workdir / 'split.json').write_text(json.dumps(split))
  with terminal.console.capture() as captured:
    load_run(workdir, 'best')
  assert 'is the best on the test part' in captured.get()
  with pytest.raises(UserError, match="must be 'last' or 'best'"):
    load_run(workdir, 'bset')


def test_its_parts_are_those_of_the_split(run, trained):
  split = json.loads((trained / 'split.json').read_text())
  for name in ('train', 'val', 'test'):
    part = run.part(name)
    labels = dict(zip(part.names, part.labels.tolist(), strict=True))
    assert labels == split[name]


# ---------------------------------------------------------------- calibration


@pytest.fixture
def fresh(run, tmp_path):
  """Loads a copy of the run's files anew, as another process would."""
  workdir = shutil.copytree(run.workdir, tmp_path / 'run')
  (workdir / 'calibration.json').unlink(missing_ok=True)

  def load(without=(), step=run.step):
    split = json.loads((workdir / 'split.json').read_text())
    split = {name: x for name, x in split.items() if name not in without}
    return run_lib.TrainedRun(
      workdir, run.config, split, step, run.params, run.model_state, run.method
    )

  return load


def _labelled(monkeypatch, run, right):
  """Makes the validation labels right, or all of them wrong but one."""
  val, problems = run.part('val'), []
  logits = np.concatenate([x['logits'] for _, x in run.outputs(val, problems)])
  best = logits.argmax(1)
  labels = best if right else (best + (np.arange(len(best)) > 0)) % CLASSES
  part = val._replace(labels=labels.astype(np.int32))
  monkeypatch.setattr(run_lib.TrainedRun, 'part', lambda self, name: part)


def test_it_is_fitted_on_the_validation_part_and_kept(fresh, monkeypatch):
  run = fresh()
  _labelled(monkeypatch, run, right=False)
  made = run.calibration
  path = run.workdir / 'calibration.json'
  assert json.loads(path.read_text()) == made._asdict()
  assert made.n == CLASSES and made.nll <= made.nll_before
  assert made.temperature != 1 and f'{made.temperature:.3f}' in made.how
  given = _pictures(2)
  logits = run.forward(np.stack([run.view(x) for x in given]))['logits']
  scaled = np.exp(logits / made.temperature)
  np.testing.assert_allclose(
    _p(run, given), scaled / scaled.sum(1, keepdims=True), rtol=1e-5
  )
  path.write_text(json.dumps(made._replace(temperature=7.0)._asdict()))
  assert fresh().calibration.temperature == 7.0
  assert fresh(step=99).calibration.temperature == made.temperature


def test_validation_images_that_are_all_right_fit_nothing(fresh, monkeypatch):
  run = fresh()
  _labelled(monkeypatch, run, right=True)
  assert run.calibration.temperature == 1.0
  assert 'all 4 validation images are right' in run.calibration.how


def test_without_a_validation_part_it_is_one_and_says_so(fresh):
  run = fresh(without=['val'])
  assert run.calibration.temperature == 1.0
  assert 'without a validation part' in run.calibration.how
  assert '--config.data.val_fraction=0.2' in run.calibration.how
  assert not (run.workdir / 'calibration.json').exists()
  with pytest.raises(UserError, match=r'has no val part.*val_fraction='):
    run.part('val')


def test_what_would_have_made_a_part_is_named(fresh):
  run = fresh(without=['test'])
  with pytest.raises(UserError, match=r'no test part.*\.test_fraction=0\.5\.'):
    run.part('test')


def test_validation_images_that_are_gone_are_said(fresh, monkeypatch, caplog):
  run = fresh()
  gone = inputs.of_paths(['gone.png'])
  monkeypatch.setattr(run_lib.TrainedRun, 'part', lambda self, name: gone)
  assert run.calibration.temperature == 1.0
  assert 'gone.png: cannot be read' in run.calibration.how
  # Once, by the command that asks.
  assert not caplog.records
  assert not (run.workdir / 'calibration.json').exists()


def test_a_damaged_file_is_said(fresh):
  run = fresh()
  for text in ('{', '{"tempreature": 1}', '[]'):
    (run.workdir / 'calibration.json').write_text(text)
    with pytest.raises(UserError, match='remove it'):
      run.predict(_pictures(1))


def test_a_workdir_that_cannot_be_written_is_used(fresh, monkeypatch):
  run = fresh()

  def write(workdir, made):
    raise PermissionError(13, 'Permission denied', str(workdir))

  monkeypatch.setattr(calibration, 'write', write)
  assert run.calibration.n == CLASSES


# -------------------------------------------------------------- none of these


def _refusing(run, limit, **fields):
  made = unknown.Unknown('nearest', limit, 'By 99 leaves.', run.step, 99)
  unknown.write(run.workdir, made._replace(**fields))


def test_images_beyond_the_threshold_are_none_of_these(fresh, tmp_path):
  given = _pictures(5)
  run = fresh()
  outputs = run.forward(np.stack([run.view(x) for x in given]))
  leaves = calibrated.training_embeddings(run)
  x, y = (a / np.linalg.norm(a, axis=1, keepdims=True)
          for a in (outputs['embedding'], leaves.vectors))  # fmt: skip
  scores = 1 - (x @ y.T).max(1)
  limit = float(np.sort(scores)[2:4].mean())
  _refusing(run, limit)
  # Alone and together, and from what was forwarded.
  found = fresh().predict(given).none_of_these
  assert found.dtype == bool
  assert found.tolist() == (scores > limit).tolist()
  run = fresh()
  assert run.none_of_these(outputs).tolist() == found.tolist()
  assert [run.predict([x]).none_of_these[0] for x in given] == found.tolist()
  # No number is no class.
  for name in ('logits', 'embedding'):
    bad = {k: v.copy() for k, v in outputs.items()}
    bad[name][0, 0] = np.nan
    assert run.none_of_these(bad)[0]
    assert run.none_of_these(bad)[1:].tolist() == found[1:].tolist()


def test_a_threshold_of_other_weights_refuses_nothing(fresh, monkeypatch):
  run = fresh(without=['val'])
  (run.workdir / 'unknown.json').unlink()
  assert run.predict(_pictures(1)).none_of_these is None
  assert 'without a validation part' in run.unknown.how
  _refusing(run, 0.0, step=run.step + 1)
  assert fresh(without=['val']).predict(_pictures(1)).none_of_these is None
  _refusing(run, 0.0)
  (run.workdir / 'embeddings.npz').unlink()
  run, gone = fresh(), inputs.of_paths(['gone.png'])
  monkeypatch.setattr(run_lib.TrainedRun, 'part', lambda self, name: gone)
  assert run.predict(_pictures(1)).none_of_these is None
  assert 'for want of the training embeddings' in run.unknown.how
  (run.workdir / 'unknown.json').write_text('{"score": "other"')
  with pytest.raises(UserError, match=r'unknown\.json cannot .*remove it'):
    fresh().predict(_pictures(1))


def test_it_is_found_on_enough_validation_images_and_kept(fresh, monkeypatch):
  run = fresh()
  (run.workdir / 'unknown.json').unlink()
  assert run.unknown.threshold is None and run.unknown.n == CLASSES
  # As often as it takes.
  val = run.part('val')
  many = splits.gather([(val, i % CLASSES) for i in range(44)])
  part = run_lib.TrainedRun.part
  monkeypatch.setattr(
    run_lib.TrainedRun, 'part',
    lambda self, name: many if name == 'val' else part(self, name),
  )  # fmt: skip
  run = fresh()
  made = run.unknown
  assert made.n == 44 and '44 held-out leaves' in made.how
  assert unknown.read(run.workdir) == made
  (_, outputs), *_ = run.outputs(val, [])
  scores = unknown.score(outputs, run.leaves)
  assert made.threshold == pytest.approx(scores.max(), abs=1e-6)


def test_an_image_error_is_a_users_mistake():
  assert issubclass(decode.ImageError, UserError)


# ------------------------------------------------------------------ on its own


@pytest.fixture
def alone(folder_run, tmp_path):
  """A run that was moved, and whose pictures are gone."""
  workdir = shutil.copytree(folder_run[0], tmp_path / 'run')
  config = json.loads((workdir / 'config.json').read_text())
  config['data']['root'] = '/gone/pictures'
  (workdir / 'config.json').write_text(json.dumps(config))
  return workdir


def test_it_predicts_the_same_without_its_pictures(
  alone, folder_run, monkeypatch, tmp_path
):
  there = load_run(folder_run[0])
  given = _pictures(3)
  monkeypatch.chdir(tmp_path)
  with terminal.console.capture() as captured:
    run = load_run('run')
    np.testing.assert_array_equal(_p(run, given), _p(there, given))
    leaves = calibrated.training_embeddings(run)
  assert captured.get() == ''
  split = json.loads((alone / 'split.json').read_text())
  assert run.calibration.n == len(split['val'])
  assert leaves.names == tuple(split['train'])
  assert leaves.labels.tolist() == list(split['train'].values())
  part = there.part('train')
  vectors = [x['embedding'] for _, x in there.outputs(part, [])]
  np.testing.assert_allclose(leaves.vectors, np.concatenate(vectors), atol=1e-5)


def test_what_an_older_run_has_not_kept_is_made_or_missed(alone, folder_run):
  known = load_run(folder_run[0])
  for name in ('calibration.json', 'embeddings.npz'):
    (alone / name).unlink()
  run = load_run(alone)
  assert 'for want of validation images' in run.calibration.how
  with terminal.console.capture() as captured:
    assert calibrated.training_embeddings(run) is None
  assert 'no distances' in captured.get() and '--data_root' in captured.get()
  run = load_run(alone, data_root=folder_run[1])
  assert run.calibration.temperature == pytest.approx(
    known.calibration.temperature, rel=1e-3
  )
  with terminal.console.capture() as captured:
    made = calibrated.training_embeddings(run)
  assert 'made now' in captured.get()
  assert made.names == calibrated.training_embeddings(known).names
  # Kept from then on.
  assert calibrated.training_embeddings(load_run(alone)).names == made.names


def test_earlier_weights_leave_what_the_end_has_kept(alone, folder_run):
  run = load_run(alone, data_root=folder_run[1])
  earlier = run_lib.TrainedRun(
    alone, run.config, run._split, run.step - 1, run.params, run.model_state,
    run.method, str(folder_run[1]),
  )  # fmt: skip
  before = {n: (alone / n).read_bytes() for n in KEPT}
  assert earlier.calibration.step == run.step - 1
  assert calibrated.training_embeddings(earlier).step == run.step - 1
  assert before == {n: (alone / n).read_bytes() for n in KEPT}
