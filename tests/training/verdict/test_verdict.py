"""From a folder to a verdict: drawn leaves, a tiny network, few steps."""

import html
import json
import shutil

import numpy as np
import pytest

from csdnet_jax import load_run
from csdnet_jax.evaluation import comparison, held_out, probes
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training.together import train as together
from csdnet_jax.training.verdict import candidates, plan as planning
from csdnet_jax.training.verdict.verdict import verdict

import command
import images
import runs


def _config(cache, root, **fields):
  plain = {'data.source': 'folder', 'data.root': str(root), 'data.canvas': 0,
           'data.test_resize': 0, 'data.aspect': 'square', 'name': 'leaves',
           'method.csdnet.mode': 'none', 'epochs': 30.0}  # fmt: skip
  return runs.config(cache, **(plain | fields))


@pytest.fixture(scope='module')
def leaves(tmp_path_factory):
  """Four classes of noise of their own shades; `d` has a single image."""
  root = tmp_path_factory.mktemp('leaves')
  for c, (name, n) in enumerate({'a': 15, 'b': 14, 'c': 15, 'd': 1}.items()):
    for i in range(n):
      pixels = images.pixels(100 * c + i, 40, 48) // 3 + 50 * c
      images.write(root / name / f'{i}.png', images.encode(pixels))
  return root


@pytest.fixture
def short(monkeypatch):
  """Trainings of four steps, whatever the minutes."""
  monkeypatch.setattr(planning, 'LEVELS', (planning.Level(32, 1, 4),))
  monkeypatch.setattr(candidates, 'rate_of', lambda forward, size: 1e12)


def _verdict(leaves, workdir, cache, minutes=20.0, **fields):
  return verdict(_config(cache, leaves, **fields), workdir, minutes=minutes)


# ------------------------------------------------------------- frozen features


@pytest.fixture(scope='module')
def frozen(leaves, tmp_path_factory):
  """A workdir for which the minutes allow frozen features alone."""
  workdir = tmp_path_factory.mktemp('runs') / 'leaves'
  cache = tmp_path_factory.mktemp('cache')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(planning, 'LEVELS', (planning.Level(32, 1, 4),))
    with command.terminal.console.capture() as captured:
      told = _verdict(leaves, workdir, cache, minutes=0.01)
  return workdir, told, captured.get(), cache


def test_the_verdict_compares_what_fits_and_says_what_does_not(frozen):
  workdir, told, text, _ = frozen
  assert told == json.loads((workdir / 'verdict.json').read_text())
  names = [row['name'] for row in told['candidates']]
  assert names == ['knn', 'prototypes', 'probe']
  assert [row['candidate'] for row in told['candidates']] == [False, True, True]
  (chosen,) = (row for row in told['candidates'] if row['chosen'])
  assert chosen['name'] == told['chosen']
  assert 0 <= chosen['low'] <= chosen['top1'] <= chosen['high'] <= 100
  assert told['images'] == 45 and told['tested'] == 44 and told['folds'] == 5
  assert told['untested'] == ['d'] and len(told['left_out']) == 2
  flat = ' '.join(text.split())
  for sentence in (told['sentence'], told['advice'], *told['left_out']):
    assert sentence in flat
  assert 'belong together: d.' in flat


def test_its_model_is_a_run_on_all_images(frozen, leaves):
  workdir, told, _, _ = frozen
  run = load_run(workdir)
  assert len(run.part('train').names) == 45 and not run.has_part('test')
  assert run.config.method.name == 'frozen'
  assert run.config.method.frozen.head == told['chosen']
  found = run.predict(leaves / 'a')
  assert found.probabilities.shape == (15, 4)
  assert not found.none_of_these.any()  # It has learnt from them.
  assert run.unknown.n == 44 and run.unknown.auroc is not None
  kept = held_out.read(workdir / 'held_out.npz')
  assert run.calibration.n == len(kept.names) == 44
  assert '44 held-out images' in run.calibration.how
  rows = (workdir / 'predictions_folds.csv').read_text().splitlines()
  assert len(rows) == 45
  refused = [row.split(',')[2] for row in rows[1:]]
  assert refused.count('yes') == 1  # ceil(0.95 * 45) = 43 of 44 are not.


def test_held_out_predictions_are_of_heads_that_have_not_seen_them(frozen):
  workdir, told, _, _ = frozen
  kept, run = held_out.read(workdir / 'held_out.npz'), load_run(workdir)
  folds = json.loads((workdir / 'plan.json').read_text())['folds']
  part = run.part('train')
  x = run.embed(run.config.data.root)  # The network is as it came.
  order = np.argsort(part.names)
  names, y = np.array(part.names)[order], part.labels[order]
  fold_of = np.array([folds[name] for name in names])
  fit = {'prototypes': probes.fit_prototypes, 'probe': probes.fit_probe}
  for k in range(5):
    seen, own = fold_of != k, kept.folds == k
    head = fit[told['chosen']](x[seen], y[seen])
    for name, logits in zip(
      np.array(kept.names)[own], kept.logits[own], strict=True
    ):
      expected = probes.logits(head, x[names == name])[0]
      np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)


def test_its_report_says_all_of_this_and_no_folder(frozen, leaves):
  workdir, told, _, cache = frozen
  page = (workdir / 'report.html').read_text()
  words = ' '.join(html.unescape(page).split())
  (chosen,) = (row for row in told['candidates'] if row['chosen'])
  assert f'by the chosen model, {chosen["title"]};' in words
  assert f'{chosen["top1"]:.1f} %</b> of new pictures' in words
  assert words.index('of new pictures') < words.index(told['sentence'])
  tried = words.index('What was tried')
  for sentence in (*told['left_out'], 'what the 5 folds measured'):
    assert words.index(sentence) > tried
  counts = np.bincount(held_out.read(workdir / 'held_out.npz').labels)
  assert told['chance'] == 100 * counts.max() / counts.sum()
  assert f'class names {told["chance"]:.1f} % right' in words
  assert "Names are those of the folds' models" in words
  assert 'which flatters the calibrated curve a little' in words
  assert 'never tested' in words and '0 of 0' not in words
  for row in (
    'folds<td>5',
    'final training<td>',
    '0.01 minutes',
    'method<td>f',
  ):
    assert row in words, row
  for folder in (workdir, leaves, cache, workdir.parent):
    assert str(folder) not in page


def test_a_finished_verdict_is_shown_again(frozen, leaves):
  workdir, told, _, cache = frozen
  with command.terminal.console.capture() as captured:
    again = _verdict(leaves, workdir, cache, minutes=0.01)
  assert again == told
  assert 'is finished; nothing to do.' in captured.get()
  assert told['sentence'] in ' '.join(captured.get().split())


def test_another_config_or_a_single_training_is_refused(
  frozen, leaves, tmp_path
):
  workdir, _, _, cache = frozen
  with pytest.raises(UserError, match='holds the verdict of another config'):
    _verdict(leaves, workdir, cache, **{'optim.lr': 0.5})
  (tmp_path / 'summary.json').write_text('{}')
  with pytest.raises(UserError, match='holds a single training; choose'):
    _verdict(leaves, tmp_path, cache)
  (tmp_path / 'left' / 'folds' / 'csdnet').mkdir(parents=True)
  with pytest.raises(UserError, match='left of a verdict whose plan.json is'):
    _verdict(leaves, tmp_path / 'left', cache)


def test_nothing_can_be_held_out_from_a_run_that_has_learnt_it(frozen, leaves):
  workdir, _, _, cache = frozen
  with pytest.raises(UserError, match='has learnt from 45 images of '):
    _verdict(leaves, workdir.parent / 'other', cache, init_from=str(workdir))


def test_images_that_came_since_are_told(frozen, leaves, tmp_path):
  workdir, _, _, cache = frozen
  root = shutil.copytree(leaves, tmp_path / 'leaves')
  shutil.copy(root / 'a' / '0.png', root / 'a' / 'again.png')
  with command.terminal.console.capture() as captured:
    _verdict(root, workdir, cache, minutes=0.01)
  assert '1 image was added to' in ' '.join(captured.get().split())


def test_what_a_verdict_decides_cannot_be_set(leaves, tmp_path):
  config = _config(tmp_path, leaves)
  for key in ('method.name', 'epochs', 'data.test_fraction', 'data.shots'):
    with pytest.raises(UserError, match=f'itself decides config.{key}; for'):
      verdict(config, tmp_path / 'w', given=['seed', key])
  with pytest.raises(UserError, match='--minutes=0 must be more than 0'):
    verdict(config, tmp_path / 'w', minutes=0)
  assert not (tmp_path / 'w').exists()


def test_a_dry_run_says_the_plan_and_writes_nothing(leaves, tmp_path, short):
  config = _config(tmp_path / 'cache', leaves)
  with command.terminal.console.capture() as captured:
    assert verdict(config, tmp_path / 'w', dry_run=True) is None
  assert 'Plan: 5 folds x (frozen features' in captured.get()
  assert not (tmp_path / 'w').exists()


@pytest.mark.slow
def test_a_test_part_of_the_folder_stays_apart(leaves, tmp_path):
  root = tmp_path / 'leaves'
  for name in 'abc':
    for part, rows in (('train', range(5)), ('test', range(5, 8))):
      (root / part / name).mkdir(parents=True)
      for i in rows:
        shutil.copy(leaves / name / f'{i}.png', root / part / name)
  with command.terminal.console.capture() as captured:
    told = _verdict(root, tmp_path / 'w', tmp_path, minutes=0.01)
  assert told['images'] == told['tested'] == 15
  text = ' '.join(captured.get().split())
  assert "Of the 9 images of the folder's own test part" in text
  run = load_run(tmp_path / 'w')
  assert len(run.part('train').names) == 15
  assert len(run.part('test').names) == 9
  report = (tmp_path / 'w' / 'report.html').read_text()
  assert 'own test part' in report


# ---------------------------------------------------------------- fine-tuning


@pytest.mark.slow
def test_a_trained_winner_comes_to_its_model(
  leaves, tmp_path, short, monkeypatch
):
  monkeypatch.setattr(comparison, 'choose', lambda *_: 'csdnet')
  told = _verdict(leaves, tmp_path / 'w', tmp_path)
  assert [row['name'] for row in told['candidates']] == [
    'knn', 'prototypes', 'probe', 'cross_entropy', 'csdnet'
  ]  # fmt: skip
  run = load_run(tmp_path / 'w')
  assert run.config.method.name == 'csdnet'
  # 45 images in batches of 4, once.
  assert run.step == round(45 / 4)
  # One class was left out, of which images are unknown and others are not.
  assert told['unknown']['classes'] == 1
  assert told['unknown']['unknown'] in (14, 15)
  assert run.unknown.n == run.calibration.n == 44
  assert 'an estimate' in run.unknown.how
  report = (tmp_path / 'w' / 'report.html').read_text()
  assert 'CSDNet' in report and '11 steps' in report
  assert run.predict(leaves / 'b').probabilities.shape == (14, 4)


@pytest.mark.slow
def test_a_candidate_that_cannot_be_trained_is_left_out(
  leaves, tmp_path, short, monkeypatch
):
  def broken(runs, *args, **kwargs):
    return ['At step 1 these are not finite: loss.'] * len(runs)

  monkeypatch.setattr(together, 'train', broken)
  told = _verdict(leaves, tmp_path / 'w', tmp_path)
  assert [row['name'] for row in told['candidates']] == [
    'knn', 'prototypes', 'probe'
  ]  # fmt: skip
  assert told['left_out'] == [
    f'{title} is left out: At step 1 these are not finite: loss.'
    for title in ('Fine-tuning by cross-entropy', 'CSDNet')
  ]


@pytest.mark.slow
def test_a_verdict_that_was_killed_goes_on_to_the_same_end(leaves, tmp_path):
  args = [
    'train', leaves, '--config.model.name=efficientnet_tiny',
    '--config.model.size=32', '--config.init_from=',
    f'--config.data.cache={tmp_path}',
  ]  # fmt: skip
  whole = [*args, f'--workdir={tmp_path / "whole"}']
  again = [*args, f'--workdir={tmp_path / "killed"}']
  process = command.start(*whole, module='csdnet_jax')
  begun = tmp_path / 'whole' / planning.FILE
  command.kill_when(process, begun, '}', command.kill)
  process.communicate()
  # The kept plan is followed, so that one of few steps makes both short.
  plan = json.loads(begun.read_text())
  plan['level'] |= {'epochs': 1, 'least': 20}
  (tmp_path / 'killed').mkdir()
  for name in ('whole', 'killed'):
    (tmp_path / name / planning.FILE).write_text(json.dumps(plan))
  status, text = command.csdnet(*whole)
  assert status == 0, text
  process = command.start(*again, module='csdnet_jax')
  begun = tmp_path / 'killed' / 'folds' / 'csdnet' / 'fold_1' / 'metrics.jsonl'
  command.kill_when(process, begun, '', command.kill)
  process.communicate()
  assert not (tmp_path / 'killed' / 'verdict.json').exists()
  status, text = command.csdnet(*again)
  assert status == 0, text
  whole, killed = (
    json.loads((tmp_path / name / 'verdict.json').read_text())
    for name in ('whole', 'killed')
  )
  assert killed == whole
  names = [row['name'] for row in whole['candidates']]
  assert names == ['knn', 'prototypes', 'probe', 'cross_entropy', 'csdnet']
  status, text = command.csdnet(
    'predict', f'--run={tmp_path / "killed"}', f'--out={tmp_path / "p.csv"}',
    leaves,
  )  # fmt: skip
  assert status == 0, text
