"""What a single training says of itself, from plain data."""

import json
import pathlib

import numpy as np
import pytest

from csdnet_jax.config import default
from csdnet_jax.data.images import draw, pipeline, splits
from csdnet_jax.evaluation import comparison
from csdnet_jax.pictures import report
from csdnet_jax.pictures.report import leaves, origin, single

NAMES = ('ash', 'oak', 'yew')


def predictions():
  """Six leaves, four of them right; row 5 is the surest mistake."""
  p = np.array([
    [0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.1, 0.9, 0.0], [0.6, 0.4, 0.0],
    [0.1, 0.2, 0.7], [0.95, 0.0, 0.05],
  ])  # fmt: skip
  labels = np.array([0, 0, 1, 1, 2, 2])
  names = [f'{NAMES[y]}/{i}.png' for i, y in enumerate(labels)]
  return report.Predictions(names, labels, np.log(p + 1e-6), p)


def test_candidates_are_the_run_and_the_features_that_it_began_with():
  start = {'knn': 50.0, 'prototypes': 200 / 3, 'linear_probe': 50.0}
  rows = single.candidates(default(), predictions(), start, np.arange(6))
  assert [row['name'] for row in rows] == [
    'csdnet', 'knn', 'prototypes', 'linear_probe'
  ]  # fmt: skip
  assert [row['chosen'] for row in rows] == [True, False, False, False]
  assert rows[0]['title'] == 'CSDNet'
  for row in rows:
    right = np.arange(6) < round(row['top1'] * 6 / 100)
    found = comparison.accuracy(right, np.arange(6))
    assert (row['top1'], row['low'], row['high']) == pytest.approx(found)


def test_pictures_of_one_plant_count_less():
  found, start = predictions(), {}
  (alone,) = single.candidates(default(), found, start, np.arange(6))
  (together,) = single.candidates(default(), found, start, np.zeros(6, int))
  assert alone['top1'] == together['top1'] and together['low'] <= alone['low']


def test_the_verdict_is_in_numbers_of_leaves():
  rows = single.candidates(
    default(), predictions(), {'prototypes': 50.0}, np.arange(6)
  )
  first, second, third = single.verdict(predictions(), rows, NAMES)
  assert first.startswith('Not by this model: the model names 4 of 6 leaves')
  assert 'the most frequent of 3 classes would name 33.3 %' in first
  assert '16.7 points more' in second and 'may be chance' in second
  assert third == 'Most often confused: oak and ash.'


def test_what_is_itself_without_training_is_not_compared_with_that():
  config = default()
  config.method.name = 'frozen'
  rows = single.candidates(
    config, predictions(), {'prototypes': 50.0}, np.arange(6)
  )
  said = ' '.join(single.verdict(predictions(), rows, NAMES))
  assert 'ithout training' not in said and 'Most often confused' in said


def test_a_leaf_that_is_right_and_the_surest_mistakes_are_looked_at():
  assert leaves.choose(predictions()) == [(2, 1, 0), (5, 0, 2), (3, 0, 1)]


def test_origin_tells_no_folder(tmp_path):
  config, path = default(), str(tmp_path / 'secret' / 'net.pth')
  (tmp_path / 'weights.json').write_text(
    json.dumps({'origin': {'source': path, 'path': path, 'sha256': 'ab' * 32}})
  )
  start = {
    'command': f'python {path}', 'started': '2020-01-01', 'python': '3',
    'platform': 'Linux', 'packages': {'jax': '1'}, 'devices': '1 x cpu',
    'seconds': 90.0, 'code': {'data': 'abc'},
  }  # fmt: skip
  text = json.dumps({'starts': [start, start]})
  (tmp_path / 'environment.json').write_text(text)
  figures = {
    'name': 'leaves', 'classes': 3, 'parts': {'train': {'images': 1}}
  }  # fmt: skip
  made = origin.made(config, tmp_path, 5)
  card = origin.card(config, tmp_path, figures, refuses=False)
  said = ' '.join([*made.values(), *card.values()])
  assert 'net.pth' in said and 'secret' not in said
  assert '2020-01-01, 3 min in 2 starts' in said
  assert '1 picture of 3 classes' in said and 'not known' in said
  config.method.name = 'frozen'
  made = origin.made(config, tmp_path, 0, {'folds': '5'})
  assert 'a linear probe' in made['method'] and made['folds'] == '5'
  assert made['final training'].startswith('2020-01-01')


def test_folders_that_a_page_must_not_tell(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path / 'jane'))
  config = default()
  config.data.root = '~/my leaves'
  found = origin.folders(config, pathlib.Path('runs/a'))
  for known in ('jane', 'jane/my leaves', 'runs/a'):
    assert str(tmp_path / known) in found
  assert '/' not in found


def test_what_was_squeezed_is_shown_as_wide_as_it_was():
  part = pipeline.Prepared(
    np.zeros((1, 32, 32, 3), np.uint8), None, None, np.array([[300, 100]])
  )
  assert single._proportioned(part, 0, True).shape == (32, 11, 3)
  assert single._proportioned(part, 0, False).shape == (32, 32, 3)


def test_leaves_of_a_group_are_one_unit():
  dataset = splits.Dataset(
    'x', NAMES, None, groups={'a': 'plant 1', 'c': 'plant 1'}
  )
  units = draw.units_of(['a', 'b', 'c'], dataset.groups, {})
  assert units.tolist() == [0, 1, 0]


def test_a_network_that_would_take_minutes_a_leaf_draws_none():
  assert leaves.too_many([]) == ''
  assert leaves.too_many([{'kind': 'train', 'images_per_s': 5.0}]) == ''
  said = leaves.too_many([{'kind': 'train', 'images_per_s': 0.1}])
  assert 'a leaf would take about 217 seconds' in said
