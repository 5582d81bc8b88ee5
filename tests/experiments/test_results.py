"""Lines of results: kept, read, and refused where they are damaged."""

import json

import pytest

from csdnet_jax.runtime.code import of_data
from csdnet_jax.runtime.errors import UserError
from experiments import results

from lines import first, line


def test_bits_survive(tmp_path):
  path = tmp_path / 'predictions.csv'
  path.write_text('path,label,class_1\nb,oak,oak\na,ash,oak\nc,yew,yew\n')
  kept = results.correctness(path, ['ash', 'oak', 'yew'])
  assert results.bits(kept).tolist() == [False, True, True]
  # The digest of lines that were made when the table held numbers.
  assert kept['images'] == of_data([['a', '0'], ['b', '1'], ['c', '2']])


def test_a_line_that_is_no_result_is_named(tmp_path):
  path = tmp_path / 'r.jsonl'
  path.write_text('{"grid":')
  with pytest.raises(UserError, match='Line 1 of .*r.jsonl is no result'):
    results.read(path)
  path.write_text('{"arm": "a", "config": {}, "summary": {}}')
  with pytest.raises(UserError, match='it lacks baseline, code'):
    results.read(path)
  whole = line('base', 0, first(3))
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
  results.append(path, line('base', 0, first(3)))
  with pytest.raises(UserError, match='Line 1 of .* is no result .*; remove'):
    results.read(path)
  path.write_text(path.read_text().partition('\n')[2])
  assert [row['arm'] for row in results.read(path)] == ['base']


def test_a_line_is_read_as_it_was_made(tmp_path):
  row = line('base', 0, first(3), code={'commit': '3fbbd39'})
  del row['config']['method.csdnet.redraw']
  row['config']['method.csdnet.gone'] = 10.0
  row = json.loads(json.dumps(row))
  results.append(tmp_path / 'r.jsonl', row)
  assert results.read(tmp_path / 'r.jsonl') == [row]
  assert results.made_by(row['code']) == 'commit 3fbbd39'


# Those of verdicts are read by `experiments.folders`.
_OF_GRIDS = [
  path
  for path in sorted(results.RESULTS.rglob('*.jsonl'))
  if path.parent.name != 'verdicts'
]


@pytest.mark.parametrize('path', _OF_GRIDS)
def test_the_committed_lines_of_a_file_are_of_one_code_that_a_commit_holds(
  path,
):
  rows = results.read(path)
  assert len({json.dumps(row['code'], sort_keys=True) for row in rows}) == 1
  assert results.made_by(rows[0]['code']) in ('', 'commit 3fbbd39')
