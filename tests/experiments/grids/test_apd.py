"""APD's grids expand, can be trained, and are collected by their mIoU."""

import jax
import numpy as np
import pytest

from csdnet_jax.configs import common
from csdnet_jax.evaluation import metrics
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.fields import flat
from csdnet_jax.training.build import build
from experiments import grid, pixels, results, run as run_lib
from experiments.grids import apd
from experiments.report import collect, text

import streetruns

DEVICE = jax.devices()[:1]


def _expand(name, *arguments, n=1):
  return grid.expand(name, apd.GRIDS[name], arguments, seeds_of_each=n)


@pytest.mark.parametrize('name', apd.GRIDS)
def test_points_differ_and_start_from_the_baseline(name):
  points = _expand(name, n=2)
  assert len({p.name for p in points}) == len({p.hash for p in points})
  assert len({p.name for p in points}) == len(points)
  assert points[0].arm == points[0].baseline


def test_components_are_the_student_and_every_sum_of_terms():
  points = _expand('components')
  configs = [grid.resolve(p.arguments).method.apd for p in points]
  on = {
    (c.kd > 0, c.observation > 0, c.alignment > 0)
    for c in configs
    if c.arm == 'apd'
  }
  assert len(on) == 7 and len(configs) == 8
  assert [c.arm for c in configs].count('student') == 1
  assert points[1].arm == 'APD'
  assert points[-1].arm == 'APD, without KD, without observations'


@pytest.mark.slow
@pytest.mark.parametrize('name', apd.GRIDS)
def test_each_point_makes_its_train_state(name):
  for point in _expand(name):
    config = grid.resolve(point.arguments)
    run = build(config, classes=11, n_train=367, devices=DEVICE)
    state = jax.eval_shape(run.init)
    assert state.params['head']['kernel'].shape == (128, 11)
    assert run.steps == 3000


def test_the_teacher_s_folder_is_part_of_the_hash_and_its_path_is_not():
  def point(path):
    return _expand('scope', f'--config.teacher.run={path}')[0].hash

  assert point('/a/one') == point('/b/one') != point('/a/two')


def _counts(seed, right):
  """Made-up pixels of 30 images of 4 classes."""
  rng = np.random.default_rng(seed)
  labelled = np.random.default_rng(0).integers(50, 100, (30, 4))
  hit = rng.binomial(labelled, right)
  return np.stack([hit, labelled, hit + labelled - hit], axis=1)


def _part(counts, tmp_path):
  path = tmp_path / 'counts.npz'
  names = [f'test/{i}.png' for i in range(len(counts))]
  order = np.random.default_rng(3).permutation(len(counts))
  np.savez(path, names=[names[i] for i in order], counts=counts[order])
  return pixels.pack(path)


def _row(arm, seed, counts, tmp_path, teacher='one'):
  config = common.segmentation(arm.lower())
  known = grid.identity(config)
  known.pop('seed')
  miou = metrics.segmentation_figures(counts.sum(0))['miou']
  return {
    'grid': 'distillers', 'arm': arm, 'baseline': 'student', 'set': 'camvid',
    'overrides': ['method.apd.arm', 'seed'], 'seed': seed, 'hash': '',
    'config': known, 'code': {'csdnet_jax/*.py': '1'},
    'test': _part(counts, tmp_path),
    'summary': {'miou': miou, 'n_test': 30}, 'seconds': 1.0, 'command': 'x',
    'devices': 'cpu', 'packages': {}, 'part': 'test',
  } | ({} if arm == 'student' else {'teacher': teacher})  # fmt: skip


def test_a_report_of_miou_pairs_images_and_names_its_figure(tmp_path):
  rows = [
    _row(arm, s, _counts(10 * s + i, right), tmp_path)
    for s in range(3)
    for i, (arm, right) in enumerate((('student', 0.7), ('APD', 0.75)))
  ]
  (table,) = collect.tables(rows)
  base, other = table.arms
  for arm in table.arms:
    expected = [
      row['summary']['miou'] for row in rows if row['arm'] == arm.name
    ]
    assert list(arm.seeds.values()) == pytest.approx(expected)
  assert other.diff == pytest.approx(other.mean - base.mean)
  assert 0 < other.low < other.diff < other.high
  markdown = text.markdown(table)
  assert '| arm | seeds | splits | mIoU | 95 % of it |' in markdown
  assert 'mIoU in percent on 30 test images' in markdown


def test_students_of_different_teachers_are_not_compared(tmp_path):
  rows = [
    _row(arm, 0, _counts(0, 0.7), tmp_path, teacher)
    for arm, teacher in (('student', ''), ('APD', 'one'), ('KD', 'two'))
  ]
  with pytest.raises(UserError, match='learnt from different teachers'):
    collect.tables(rows)


@pytest.mark.slow
def test_a_point_is_run_and_recorded(tmp_path, monkeypatch):
  """A student of the grid, as the command would, on drawn streets."""
  monkeypatch.setenv('JAX_NUM_CPU_DEVICES', '1')
  root = streetruns.data(tmp_path / 'streets')
  c = streetruns.config(root, 'student')
  given = {
    key: value
    for key, value in flat(c.to_dict()).items()
    if value != flat(common.segmentation('student').to_dict())[key]
  }
  flags = [f'--config.{key}={value}' for key, value in given.items()]
  points = _expand('distillers', *flags)[:1]
  became = run_lib.run(points, tmp_path / 'runs', tmp_path / 'r.jsonl')
  assert list(became.values()) == [run_lib.DONE]
  (row,) = results.read(tmp_path / 'r.jsonl')
  assert results.name_of_figure(row) == 'mIoU'
  assert str(tmp_path) not in row['command']
  counts = results.of_images(row, 'test')
  figures = metrics.segmentation_figures(counts.sum(0))
  assert figures['miou'] == pytest.approx(row['summary']['miou'])
