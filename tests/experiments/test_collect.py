"""The report: what is averaged, what is refused, and the intervals."""

import csv
import json

import numpy as np
import pytest
import scipy.stats

from csdnet_jax import config as config_lib
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training import digests
from experiments import bootstrap, grid as grid_lib, results
from experiments.report import collect, page, text

IMAGES = 40


def _part(right):
  packed = np.packbits(np.asarray(right, bool)).tobytes().hex()
  return {'n': len(right), 'images': 'abc', 'correct': packed}


def _row(arm, seed, right, *, code='1', set_='grape58', **fields):
  config = config_lib.default()
  config.update_from_flattened_dict(fields)
  known = grid_lib.identity(config)
  known.pop('seed')
  return {
    'grid': 'made up', 'arm': arm, 'baseline': 'base', 'part': 'test',
    'set': set_, 'seed': seed,
    'overrides': ['method.csdnet.beta', 'seed', 'data.name'],
    'hash': '', 'config': known, 'code': {'step': code}, 'test': _part(right),
    'summary': {'top1': 100 * np.mean(right), 'n_test': len(right)},
    'seconds': 1.0, 'command': 'x', 'devices': 'cpu', 'packages': {},
  }  # fmt: skip


def _first(n):
  return np.arange(IMAGES) < n


def test_means_and_paired_differences():
  rows = [_row('base', s, _first(20 + s)) for s in range(3)]
  rows += [_row('<b>$x', s, _first(24 + s)) for s in range(3)]
  (table,) = collect.tables(rows)
  base, other = table.arms
  assert (base.mean, base.sd) == (pytest.approx(52.5), pytest.approx(2.5))
  assert base.diff is None and other.diff == pytest.approx(10.0)
  # Seeds differ in one image each; the arms always in four of the forty.
  assert 0 < other.low < 10 < other.high < 25
  assert base.spread[0] < 52.5 < base.spread[1]


def test_one_seed_is_the_binomial_interval():
  right = np.arange(200) < 140
  low, high = bootstrap.interval([right[None]], resamples=20000)
  expected = scipy.stats.binom.ppf([0.025, 0.975], 200, 0.7) / 200
  np.testing.assert_allclose((low, high), expected, atol=0.006)


def test_seeds_are_drawn_as_well():
  # Every image is right under one seed and wrong under the other.
  values = np.stack([np.zeros(30), np.ones(30)])
  assert bootstrap.interval([values]) == (0.0, 1.0)


def test_equal_arms_differ_by_nothing():
  assert bootstrap.interval([np.zeros((3, 30))]) == (0.0, 0.0)


def test_stages_are_averaged_and_an_unfinished_arm_is_left_out():
  rows = [
    _row(arm, 0, _first(n), set_=f'soy/{stage}', **{'data.name': stage})
    for arm, stage, n in [
      ('base', 'R1', 10), ('base', 'R3', 30), ('a', 'R1', 20), ('a', 'R3', 40),
      ('late', 'R1', 1),
    ]
  ]  # fmt: skip
  (table,) = collect.tables(rows)
  assert table.stages == 2 and table.images == 2 * IMAGES
  assert [(a.name, a.mean) for a in table.arms] == [('base', 50), ('a', 75)]
  assert 'Not finished: late.' in text.describe(table)


@pytest.mark.parametrize(
  ('second', 'words'),
  [
    ({'optim.lr': 0.5}, r'config.optim.lr 0.001 but .* has 0.5'),
    ({'code': '2'}, r'different code \(step.py has changed\)'),
    ({'method.csdnet.beta': 0.5}, 'method.csdnet.beta'),
  ],
)
def test_what_differs_is_named_and_refused(second, words):
  rows = [_row('base', 0, _first(3)), _row('base', 1, _first(3), **second)]
  with pytest.raises(UserError, match=words):
    collect.tables(rows)


def test_arms_of_different_train_images_are_refused():
  rows = [_row('base', 0, _first(3)), _row('a', 0, _first(3))]
  rows[1]['split'] = 'other'
  with pytest.raises(UserError, match='a .seed 0. were trained on different'):
    collect.tables(rows)
  for row in rows:
    row['overrides'].append('data.shots')
  assert len(collect.tables(rows)[0].arms) == 2


def test_frozen_features_are_said_where_all_arms_start_from_them():
  rows = [_row('base', 0, _first(3)), _row('a', 0, _first(3))]
  for row in rows:
    row['summary']['start'] = {'knn': 40.0, 'linear_probe': 50.0}
    row['val'] = _part(_first(9))
  words = 'The features before training: linear probe 50.0, kNN 40.0.'
  assert words in text.describe(collect.tables(rows)[0])
  # They are those of the test part, and of one network.
  assert 'before' not in text.describe(collect.tables(rows, part='val')[0])
  rows[1]['summary']['start'] = {'knn': 41.0, 'linear_probe': 50.0}
  assert 'before' not in text.describe(collect.tables(rows)[0])


def test_a_later_line_replaces_the_one_of_other_code():
  rows = [_row('base', s, _first(3)) for s in (0, 1)]
  rows += [_row('base', s, _first(9), code='2') for s in (0, 1)]
  (table,) = collect.tables(rows)
  assert table.arms[0].mean == 22.5 and len(table.arms[0].seeds) == 2


def test_what_only_some_methods_read_need_not_agree():
  one = _row('base', 0, _first(3), **{'method.name': 'supervised'})
  other = _row('a', 0, _first(3))
  other['overrides'].append('method.name')
  one['overrides'].append('method.name')
  assert len(collect.tables([one, other])[0].arms) == 2


def test_arms_of_one_run_are_said():
  rows = [_row('base', 0, _first(3)), _row('a', 0, _first(3))]
  rows[1]['same_as'] = 'base'
  assert 'a: the runs of base.' in text.describe(collect.tables(rows)[0])


def test_what_the_grid_sets_may_differ_between_arms():
  rows = [_row('base', 0, _first(3))]
  rows += [_row('a', 0, _first(3), **{'method.csdnet.beta': 0.5})]
  assert len(collect.tables(rows)[0].arms) == 2


def test_an_absent_baseline_and_an_absent_part_are_refused():
  rows = [_row('base', 0, _first(3))]
  with pytest.raises(UserError, match='no arm x on grape58.*base'):
    collect.tables(rows, baseline='x')
  with pytest.raises(UserError, match='no validation part'):
    collect.tables(rows, part='val')


def test_what_chooses_is_judged_on_the_validation_part():
  rows = [
    _row('base', seed, _first(3)) | {'part': 'val', 'val': _part(_first(12))}
    for seed in range(2)
  ]
  for asked, part, mean in ('', 'val', 30.0), ('test', 'test', 7.5):
    (table,) = collect.tables(rows, part=asked)
    assert (table.part, table.arms[0].mean) == (part, mean)


def test_bits_survive(tmp_path):
  path = tmp_path / 'predictions.csv'
  path.write_text('image,label,prediction,top5\nb,1,1,1\na,0,1,1\nc,2,2,1\n')
  kept = results.correctness(path)
  assert results.bits(kept).tolist() == [False, True, True]


def test_the_digest_is_of_what_the_code_does():
  one = digests.of_source('def f(x):\n  """A."""\n  return x  # One.\n')
  assert one == digests.of_source('def f(x):\n  """B."""\n  return (x)\n')
  assert one != digests.of_source('def f(x):\n  """A."""\n  return -x\n')


def test_the_report_is_one_page_that_loads_nothing(tmp_path, capsys):
  rows = [_row(a, s, _first(9)) for a in ('base', '<b>$x') for s in (0, 1)]
  for row in rows:
    results.append(tmp_path / 'r.jsonl', row)
  collect.main([str(tmp_path / 'r.jsonl'), f'--out={tmp_path / "out"}'])
  html = (tmp_path / 'out' / 'report.html').read_text()
  assert '<b>$x' not in html and '&lt;b&gt;$x' in html
  assert 'http' not in html.replace('data:image', '') and '<script' not in html
  with open(tmp_path / 'out' / 'made_up_grape58.csv') as file:
    header, base, _ = csv.reader(file)
  assert header == ['arm', 'n', 'mean', 'sd', 'diff', 'low', 'high']
  assert base == ['base', '2', '22.5000', '0.0000', '', '', '']
  assert '| base (baseline) | 2 | 22.5 ± 0.0 |' in capsys.readouterr().out


def test_the_report_shows_notes_and_the_pictures_of_a_run(tmp_path):
  results.append(tmp_path / 'r.jsonl', _row('base', 0, _first(9)))
  run, notes = tmp_path / 'run', tmp_path / 'notes.txt'
  notes.write_text('It is < 5.\n\nAnd so on.')
  (run / 'pictures').mkdir(parents=True)
  config = config_lib.default()
  config.data.root = '/home/me/oaks'
  (run / 'config.json').write_text(config_lib.to_json(config))
  (run / 'pictures' / 'curves.png').write_bytes(b'not looked into')
  out = f'--out={tmp_path}'
  args = [str(tmp_path / 'r.jsonl'), out, f'--notes={notes}']
  collect.main([*args, f'--pictures={run}'])
  html = (tmp_path / 'report.html').read_text()
  assert html.count('<p class="note">') == 2 and 'It is &lt; 5.' in html
  assert html.count('data:image/png') == 1 and 'terms of the loss' in html
  assert 'csdnet on oaks, seed 0, 30 epochs.' in html and '/home' not in html
  with pytest.raises(UserError, match='no pictures in it'):
    (run / 'pictures').rename(run / 'images')
    collect.main([*args, f'--pictures={run}'])
  with pytest.raises(UserError, match=r'no config\.json in it'):
    collect.main([*args, f'--pictures={tmp_path}'])
  with pytest.raises(UserError, match='cannot be read as UTF-8'):
    collect.main([args[0], out, f'--notes={run / "x"}'])
  with pytest.raises(UserError, match='add --out'):
    collect.main([args[0], f'--notes={notes}'])
  with pytest.raises(UserError, match='notes.txt/x cannot be made'):
    collect.main([args[0], f'--out={notes / "x"}'])
  assert (tmp_path / 'report.md').read_text().startswith('It is < 5.')


def test_grids_are_collected_apart():
  rows = [_row('base', 0, _first(n)) | {'grid': str(n)} for n in (3, 30)]
  assert [t.arms[0].mean for t in collect.tables(rows)] == [7.5, 75.0]


def test_a_line_that_is_no_result_is_named(tmp_path):
  path = tmp_path / 'r.jsonl'
  path.write_text('{"grid":')
  with pytest.raises(UserError, match='Line 1 of .*r.jsonl is no result'):
    results.read(path)
  path.write_text('{"arm": "a", "config": {}, "summary": {}}')
  with pytest.raises(UserError, match='it lacks baseline, code'):
    results.read(path)
  whole = _row('base', 0, _first(3))
  for damage in (
    {'code': 'x'}, {'code': {}}, {'overrides': None}, {'summary': {}},
    {'test': {'n': 40, 'correct': 'ff' * 5}}, {'seconds': None},
    {'test': whole['test'] | {'correct': 'zz'}},
    {'test': whole['test'] | {'correct': 'ff'}},
  ):  # fmt: skip
    row = whole | damage
    if 'summary' in damage:
      del row['test']
    path.write_text(json.dumps(row))
    with pytest.raises(UserError, match=r'Line 1 of .* is no result .*remove'):
      results.read(path)
  path.write_bytes(b'\xff')
  with pytest.raises(UserError, match='no file of results'):
    results.read(path)
  with pytest.raises(UserError, match='no file of results'):
    results.read(tmp_path)


def test_a_line_cut_by_a_kill_spoils_no_other(tmp_path):
  path = tmp_path / 'r.jsonl'
  path.write_text('{"grid":')
  results.append(path, _row('base', 0, _first(3)))
  with pytest.raises(UserError, match='Line 1 of .* is no result .*; remove'):
    results.read(path)
  path.write_text(path.read_text().partition('\n')[2])
  assert [row['arm'] for row in results.read(path)] == ['base']


def test_fields_newer_than_a_line_have_their_defaults(tmp_path):
  row = _row('base', 0, _first(3))
  complete = dict(row['config'])
  del row['config']['method.csdnet.redraw']
  row['config']['method.apd.pair'] = 10.0  # Nobody reads it here.
  results.append(tmp_path / 'r.jsonl', row)
  assert results.read(tmp_path / 'r.jsonl')[0]['config'] == complete


def test_a_page_keeps_its_tables():
  (table,) = collect.tables([_row('base', 0, _first(3))])
  assert page.page('a & b', [table]).count('a &amp; b') == 2
