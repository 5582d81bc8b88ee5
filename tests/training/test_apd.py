"""Runs of segmentation: what they write, resume, keep out and refuse."""

import argparse
import json
import os
import shutil
import signal

import chex
import jax
import numpy as np
import pytest

from csdnet_jax.inference import (
  command,
  export,
  trained,
)
from csdnet_jax.models import registry
from csdnet_jax.runtime import terminal
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training import train
from csdnet_jax.training.build import build
from csdnet_jax.training.dry_run import dry_run
from csdnet_jax.training.evaluate import evaluate_run

import images
import runs
import streetruns
import streets

DEVICE = jax.devices()[:1]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return streetruns.data(tmp_path_factory.mktemp('streets'))


@pytest.fixture(scope='module')
def teacher(root, tmp_path_factory):
  """The workdir of a finished teacher, wider than its student."""
  workdir = tmp_path_factory.mktemp('teacher')
  train.train(streetruns.config(root, 'teacher'), workdir, devices=DEVICE)
  return workdir


def config(root, teacher, arm='apd', **fields):
  return streetruns.config(root, arm, **{'teacher.run': str(teacher)} | fields)


@pytest.fixture(scope='module')
def finished(root, teacher, tmp_path_factory):
  """The workdir of a student that has learnt by APD."""
  workdir = tmp_path_factory.mktemp('apd')
  train.train(config(root, teacher), workdir, devices=DEVICE)
  return workdir


def _json(path):
  return json.loads(path.read_text())


def test_the_workdir_holds_figures_tables_and_pictures(finished):
  names = {path.name for path in finished.iterdir()}
  assert names >= {
    'checkpoints', 'class_names.json', 'classes.csv', 'classes_val.csv',
    'config.json', 'counts.npz', 'counts_val.npz', 'data_report.json',
    'environment.json', 'metrics.jsonl', 'split.json', 'start.json',
    'summary.json', 'teacher.json', 'weights.json',
  }  # fmt: skip
  pictures = {path.name for path in (finished / 'pictures').iterdir()}
  assert pictures >= {'crops.png', 'curves.png', 'overlay_test_0.png'}
  summary = _json(finished / 'summary.json')
  assert set(summary) == {
    'miou', 'miou_present', 'macc', 'pixel_accuracy', 'val', 'start',
    'n_test', 'steps',
  }  # fmt: skip
  assert (summary['n_test'], summary['steps']) == (3, 4)
  lines = (finished / 'classes.csv').read_text().splitlines()
  assert [line.split(',')[0] for line in lines[1:]] == list(streets.NAMES)


def test_the_counts_of_the_images_make_the_figure(finished):
  with np.load(finished / 'counts.npz') as file:
    names, counts = file['names'].tolist(), file['counts']
  assert names == list(_json(finished / 'split.json')['test'])
  right, labelled, predicted = counts.sum(0)
  union = labelled + predicted - right
  miou = 100 * np.mean(right / np.maximum(union, 1))
  assert miou == pytest.approx(_json(finished / 'summary.json')['miou'])


def test_every_term_of_apd_is_logged(finished):
  lines = (finished / 'metrics.jsonl').read_text().splitlines()
  record = next(r for r in map(json.loads, lines) if r['kind'] == 'train')
  terms = {
    'ce', 'ce_aux', 'kd', 'observation', 'alignment', 'ce_teacher_projector'
  }  # fmt: skip
  assert terms < set(record)
  total = record['ce'] + 0.4 * record['ce_aux']
  total += 10 * (record['kd'] + record['observation'] + record['alignment'])
  total += record['ce_teacher_projector']
  assert record['loss'] == pytest.approx(total, rel=1e-5)


def test_the_teacher_is_told_but_not_saved(finished, teacher):
  origin = _json(finished / 'teacher.json')
  assert origin['path'] == str(teacher) and len(origin['sha256']) == 64
  state = runs.saved_state(finished)
  assert set(state.params) == {
    'backbone', 'context', 'head', 'aux', 'aux_head', 'projector',
    'teacher_projector',
  }  # fmt: skip
  theirs = runs.saved_state(teacher).params['head']['kernel'].shape
  shapes = [x.shape for x in jax.tree.leaves(state)]
  assert theirs not in shapes and theirs == (24, 5)
  # The workdir of the teacher says what its network is.
  known = _json(finished / 'config.json')['teacher']
  assert (known['model'], known['width']) == ('psp_tiny', 24)


@pytest.mark.slow
@pytest.mark.parametrize('step', [1, 3])
def test_a_stopped_run_continues_bit_for_bit(
  step, root, teacher, finished, tmp_path, monkeypatch
):
  real, seen = train.sharding.shard_batch, []

  def shard_batch(batch, mesh):
    seen.append(1)
    if len(seen) == step:
      os.kill(os.getpid(), signal.SIGTERM)
    return real(batch, mesh)

  monkeypatch.setattr(train.sharding, 'shard_batch', shard_batch)
  assert train.train(config(root, teacher), tmp_path, devices=DEVICE) is None
  monkeypatch.undo()
  assert train.train(config(root, teacher), tmp_path, devices=DEVICE)
  chex.assert_trees_all_equal(
    runs.saved_state(tmp_path), runs.saved_state(finished)
  )
  for name in ('summary.json', 'classes.csv'):
    assert (tmp_path / name).read_text() == (finished / name).read_text()


def test_evaluation_of_a_workdir_repeats_its_figure(root, teacher, finished):
  figures = evaluate_run(config(root, teacher), finished, devices=DEVICE)
  assert figures['miou'] == _json(finished / 'summary.json')['miou']


def test_a_run_is_evaluated_on_a_folder_without_what_it_learnt_from(
  root, teacher, finished, tmp_path
):
  known = evaluate_run(config(root, teacher), finished, devices=DEVICE)
  folder = shutil.copytree(root, tmp_path / 'copy')
  with terminal.console.capture() as captured:
    figures = evaluate_run(
      config(root, teacher), finished, folder=str(folder), devices=DEVICE
    )
  n = streetruns.PARTS
  said = ' '.join(captured.get().split())
  assert f'{n["train"]} images of {sum(n.values())} were trained on' in said
  assert figures['n'] == n['val'] + n['test'] and 'mIoU, percent' in said
  # The same, where it is.
  moved = evaluate_run(
    config(root, teacher), finished, data_root=str(folder), devices=DEVICE
  )
  assert moved == known
  images.write(
    folder / 'classes.txt', '\n'.join(reversed(streets.NAMES)).encode()
  )
  with pytest.raises(UserError, match='in the same order'):
    evaluate_run(
      config(root, teacher), finished, folder=str(folder), devices=DEVICE
    )
  with pytest.raises(UserError, match='--out=x.csv gets a class'):
    evaluate_run(config(root, teacher), finished, out='x.csv', devices=DEVICE)


def test_a_replaced_mask_stops_a_run(root, teacher, finished, tmp_path):
  folder = shutil.copytree(root, tmp_path / 'copy')
  name = next(iter(_json(finished / 'split.json')['train'].values()))
  images.write(folder / name, streets.png(streets.street(77)[1]))
  workdir = shutil.copytree(finished, tmp_path / 'run')
  (workdir / 'summary.json').unlink()
  c = config(root, teacher, **{'data.root': str(folder)})
  with pytest.raises(UserError, match='1 are other pairs now'):
    train.train(c, workdir, devices=DEVICE)


@pytest.mark.slow
def test_a_run_is_evaluated_at_other_scales(root, teacher, finished):
  c = config(root, teacher, **{'evaluation.scales': (0.75, 1.0)})
  figures = evaluate_run(c, finished, devices=DEVICE)
  single = _json(finished / 'summary.json')
  assert figures['miou'] != single['miou']
  c.optim.lr = 0.5
  with pytest.raises(UserError, match='only config.data and config.eval.*lr'):
    evaluate_run(c, finished, devices=DEVICE)


def test_many_devices_evaluate_the_same(root, teacher, finished):
  figures = evaluate_run(
    config(root, teacher), finished, devices=jax.devices()[:2]
  )
  known = _json(finished / 'summary.json')['miou']
  assert figures['miou'] == pytest.approx(known, abs=0.05)


def test_exports_hold_no_projector(finished):
  run = trained.load_run(finished)
  names = export.tensors(run)
  assert not [name for name in names if 'projector' in name]
  assert 'params/head/kernel' in names
  assert 'pixel' in export.describe(run)['outputs']['logits']


def test_commands_that_name_a_class_for_an_image_refuse(finished):
  args = argparse.Namespace(run=str(finished), checkpoint='last', data_root='')
  with pytest.raises(UserError, match='is a run of segmentation'):
    command.open_run(args)
  command.open_run(args, segments=True)
  with pytest.raises(UserError, match='names no class of a whole image'):
    trained.load_run(finished).predict([np.zeros((9, 9, 3), np.uint8)])


@pytest.mark.slow
def test_averaged_weights_hold_no_projector(root, teacher, tmp_path):
  c = config(root, teacher, ema=0.9, epochs=0.5)
  train.train(c, tmp_path, devices=DEVICE)
  params, _ = runs.saved_state(tmp_path).ema
  assert set(params) == {'backbone', 'context', 'head', 'aux', 'aux_head'}


@pytest.mark.slow
def test_a_run_starts_from_a_student_without_its_projectors(
  root, finished, tmp_path
):
  c = streetruns.config(root, 'student', init_from=str(finished), epochs=0.5)
  train.train(c, tmp_path, devices=DEVICE)
  assert 'projector' not in runs.saved_state(tmp_path).params


@pytest.mark.slow
def test_monitoring_may_look_at_fewer_images(root, tmp_path):
  c = streetruns.config(root, 'student', **{'evaluation.images': 2})
  train.train(c, tmp_path, devices=DEVICE)
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  tests = [r for r in map(json.loads, lines) if r['kind'] == 'test']
  assert [r['n'] for r in tests] == [2, 3]


@pytest.mark.slow
def test_a_dry_run_of_a_student_beside_its_teacher(root, teacher):
  with terminal.console.capture() as captured:
    dry_run(config(root, teacher), devices=DEVICE, verbose=True)
  text = captured.get()
  assert f'Teacher: psp_tiny from {teacher}' in text
  assert 'teacher_projector/hidden/kernel' in text and 'GiB' in text
  with pytest.raises(UserError, match='The teacher no/such/run is absent'):
    dry_run(config(root, 'no/such/run'), devices=DEVICE)


def _no_head(source, target):
  """A file of a teacher's weights that lacks its head."""
  from safetensors.numpy import save_file

  params, state = source
  arrays = {
    '/'.join(k.key for k in path): np.asarray(x)
    for path, x in jax.tree.leaves_with_path(params)
    + jax.tree.leaves_with_path(state['batch_stats'])
  }
  arrays.pop('head/kernel')
  save_file(arrays, target)


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    ({'teacher.run': ''}, "'apd' needs a teacher, and neither"),
    ({'teacher.run': 'no/such/run'}, 'no/such/run is absent'),
    ({'teacher.weights': 'some.pth'}, 'either a run or a file'),
    ({'teacher.run': __file__}, 'test_apd.py is a file, not the workdir'),
    ({'teacher.run': '', 'teacher.model': 'vit_tiny'}, 'vit_tiny is no net'),
    ({'batch_size': 3}, r'batch_size is 3.*in groups of 2'),
    ({'teacher.run': '', 'teacher.model': ''}, "arm 'apd' needs a teacher"),
    ({'data.canvas': 40}, 'data.canvas'),
    ({'model.size': 32}, '8 k . 1'),
    ({'model.name': 'vit_tiny'}, 'vit_tiny is no network for .*segmentation'),
    ({'method.name': 'supervised'}, 'psp_tiny is no network for|data.source'),
    ({'evaluation.scales': ()}, 'scales is .., but must be one number'),
    ({'data.source': 'folder'}, "data.source is 'folder'"),
  ],
)
def test_a_mistake_ends_in_a_sentence(fields, words, root, teacher, tmp_path):
  with pytest.raises(UserError, match=words):
    train.train(config(root, teacher, **fields), tmp_path, devices=DEVICE)


def test_a_dry_run_refuses_what_a_run_does(root, teacher):
  for fields, words in (
    ({'teacher.run': __file__}, 'test_apd.py is a file'),
    ({'teacher.weights': 'some.pth'}, 'either a run or a file'),
  ):
    with pytest.raises(UserError, match=words):
      dry_run(config(root, teacher, **fields), devices=DEVICE)


def test_a_start_that_saved_nothing_binds_to_no_teacher(
  root, teacher, tmp_path
):
  (tmp_path / 'teacher.json').write_text('{"sha256": "other", "path": "x"}')
  c = config(root, teacher, init_from='no/such.pth')
  with pytest.raises(UserError, match='no/such.pth'):
    train.train(c, tmp_path, devices=DEVICE)


def test_a_teacher_of_other_classes_is_refused(root, teacher, tmp_path):
  other = shutil.copytree(teacher, tmp_path / 'teacher')
  split = _json(other / 'split.json')
  split['class_names'][1] = 'tower'
  (other / 'split.json').write_text(json.dumps(split))
  with pytest.raises(UserError, match="same.*order .'tower', not 'house'"):
    train.train(config(root, other), tmp_path / 'run', devices=DEVICE)


def test_a_teacher_of_another_stride_is_refused(root, tmp_path, monkeypatch):
  spec = registry.KNOWN['psp_tiny']
  build = spec.sizes['backbone']
  other = spec.sizes | {
    'backbone': lambda **more: build(**more | {'output_stride': 32})
  }
  coarse = spec._replace(sizes=other)
  monkeypatch.setitem(registry.KNOWN, 'psp_coarse', coarse)
  c = streetruns.config(root, **{'teacher.model': 'psp_coarse'})
  with pytest.raises(UserError, match='maps at stride .* at stride 8'):
    train.train(c, tmp_path, devices=DEVICE)


def test_weights_that_do_not_all_load_are_listed(root, teacher, tmp_path):
  state = runs.saved_state(teacher)
  file = tmp_path / 'teacher.safetensors'
  _no_head((state.params, state.model_state), file)
  c = streetruns.config(root, **{'teacher.weights': str(file)})
  with pytest.raises(UserError, match=r'1 arrays are missing .head/kernel'):
    train.train(c, tmp_path / 'run', devices=DEVICE)


def test_another_teacher_than_at_the_start_is_refused(
  root, teacher, finished, tmp_path
):
  workdir = shutil.copytree(finished, tmp_path / 'run')
  (workdir / 'summary.json').unlink()
  origin = _json(workdir / 'teacher.json')
  (workdir / 'teacher.json').write_text(
    json.dumps(origin | {'sha256': '0' * 64})
  )
  with pytest.raises(UserError, match='is not the one that'):
    train.train(config(root, teacher), workdir, devices=DEVICE)


@pytest.mark.slow
def test_the_start_says_what_is_trained(root, teacher, tmp_path, monkeypatch):
  monkeypatch.setattr(terminal, '_verbose', True)
  with terminal.console.capture() as captured:
    train.train(config(root, teacher, epochs=0.5), tmp_path, devices=DEVICE)
  text = captured.get()
  run = build(config(root, teacher), classes=5, n_train=8, devices=DEVICE)
  shapes = jax.eval_shape(run.init).params
  own = {k: v for k, v in shapes.items() if 'projector' not in k}
  count = sum(x.size for x in jax.tree.leaves(own))
  assert f'{count:,} parameters, on 1 x' in text
  assert 'teacher_projector, an optimiser of its own: 272 parameters' in text
  assert f'Teacher: psp_tiny from {teacher}.' in text
