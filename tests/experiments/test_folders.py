"""Whether verdicts hold: what is drawn, and what lines say together."""

import json
import math
import pathlib

import numpy as np
import pytest
from PIL import Image

from csdnet_jax.runtime import terminal
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training import command_line
from csdnet_jax.training.verdict.verdict import verdict
from csdnet_jax.training.workdir import lock_file
from experiments import folders, results


def pictures(classes=30, each=10):
  return {
    f'c{i:02}': [pathlib.Path(f'c{i:02}/{j}.png') for j in range(each)]
    for i in range(classes)
  }


def test_a_folder_and_what_is_held_out_are_all_pictures_of_its_classes():
  everything, sizes = pictures(), set()
  for seed in range(20):
    given, held_out = folders.draw(everything, seed)
    assert given.keys() == held_out.keys()
    assert 8 <= len(given) <= 25
    for name in given:
      assert sorted(given[name] + held_out[name]) == sorted(everything[name])
      sizes.add(len(given[name]))
  assert sizes == {3, 4, 5}


def test_a_draw_is_of_its_seed_alone():
  backwards = {
    name: paths[::-1] for name, paths in reversed(pictures().items())
  }
  assert folders.draw(backwards, 3) == folders.draw(pictures(), 3)
  assert folders.draw(pictures(), 4) != folders.draw(pictures(), 3)


def test_half_of_a_small_class_is_held_out():
  given, held_out = folders.draw(pictures(classes=5, each=4), 0)
  assert len(given) == 5
  assert {len(x) for x in [*given.values(), *held_out.values()]} == {2}


def test_a_folder_without_classes_is_refused(tmp_path):
  with pytest.raises(UserError, match='check --data_root'):
    folders.pictures_of(tmp_path)


def test_a_verdict_goes_on_with_the_plan_that_is_written(tmp_path):
  rng = np.random.default_rng(0)
  for kind in 'abc':
    for i in range(3):
      path = tmp_path / 'given' / kind / f'{i}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
      Image.fromarray(pixels).save(path)
  run = tmp_path / 'run'
  folders.write_plan(tmp_path / 'given', run, ['cross_entropy'], 32)
  before = (run / 'plan.json').read_bytes()
  flags = command_line.of_folder(str(tmp_path / 'given'))
  with terminal.console.capture() as captured:
    verdict(command_line.resolve(flags), run, dry_run=True)
  said = captured.get()
  assert '3 folds' in said and 'at 32 px' in said
  assert 'cross-entropy' in said and 'CSDNet' not in said
  assert (run / 'plan.json').read_bytes() == before


def line(folder, chosen, interval, **right):
  """A line of 120 held-out pictures, of which the first so many are right."""
  n = 120
  low, high = interval
  return {
    'folder': folder,
    'chosen': 'knn',  # By another rule.
    'candidates': [
      {
        'name': name, 'low': low, 'high': high, 'candidate': name != 'knn',
        'top1': 50.0 + (name == 'probe') + 2 * (name == chosen),
      }
      for name in ('knn', *right)
    ],
    'test': {
      name: {
        'n': n,
        'correct': np.packbits(np.arange(n) < hits).tobytes().hex(),
      }
      for name, hits in right.items()
    },
  }  # fmt: skip


LINES = [
  # As good as the best within an error, 10 points above the frozen ones.
  line(0, 'cross_entropy', (40, 70), prototypes=50, probe=60,
       cross_entropy=72, csdnet=73),
  # Outside its interval, and the frozen features were better.
  line(1, 'cross_entropy', (10, 40), prototypes=60, probe=84,
       cross_entropy=60),
]  # fmt: skip


def test_lines_say_together_what_each_says():
  found = folders.summarise(LINES)
  assert found == pytest.approx((2, 50, 2, 50, 30, 50, (10 - 20) / 2, -20))
  assert found.worst == pytest.approx(-20)
  said = folders.describe(found)
  assert '2 folders' in said
  assert '-20.0 where it does worst' in said


def test_few_held_out_pictures_are_not_counted_as_many():
  few = line(0, 'probe', (0, 100), prototypes=5, probe=5)
  few['test'] = {
    name: {'n': 8, 'correct': '0f'} for name in ('prototypes', 'probe')
  }
  found = folders.summarise([few])
  assert found.many == 0
  assert math.isnan(found.covered_many)
  assert 'or more' not in folders.describe(found)


def test_damaged_lines_are_named(tmp_path):
  path = tmp_path / 'folders.jsonl'
  assert folders.read(path) == []
  for row in LINES:
    results.append(path, row)
  assert [row['folder'] for row in folders.read(path)] == [0, 1]
  with open(path, 'a', encoding='utf-8') as file:
    file.write('{"folder": 3}\n')
  with pytest.raises(UserError, match='Line 3 of .* is no result'):
    folders.read(path)


def test_the_committed_lines_are_of_one_code_that_a_commit_holds():
  rows = folders.read(folders.PATH)
  (code,) = {json.dumps(row['code'], sort_keys=True) for row in rows}
  assert results.made_by(json.loads(code)) == ''
  assert len({row['folder'] for row in rows}) == len(rows)


def test_no_lines_are_said(tmp_path):
  with pytest.raises(UserError, match='No folder'):
    folders.main([f'--results={tmp_path / "none.jsonl"}'])


def test_only_folders_that_nothing_has_done_or_does_are_judged(
  tmp_path, monkeypatch
):
  for name in ('leaf99', 'grape58'):
    for kind in ('a', 'b'):
      for i in range(4):
        path = tmp_path / 'data' / name / 'images' / kind / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
  asked = []

  def judge(folder, workdir, tuned, size):
    asked.append((workdir.name, len(tuned), size, sorted(folder.given)))
    made = line(0, 'probe', (0, 100), prototypes=5, probe=5)
    return made | {'sentence': 'So it is.'}, made['test']

  monkeypatch.setattr(folders, 'judge', judge)
  path = tmp_path / 'folders.jsonl'
  results.append(path, LINES[1])
  command = [
    f'--data_root={tmp_path / "data"}', f'--results={path}', '--folders=3',
    '--csdnet=1', '--size=96',
    f'--workdir={tmp_path / "work"}',
  ]  # fmt: skip
  with lock_file(tmp_path / 'work' / '0'), lock_file(tmp_path / 'work' / '2'):
    assert folders.main(command) == 0
    assert not asked  # Another process works on them.
  assert folders.main(command) == 0
  assert asked == [('0', 2, 96, ['a', 'b']), ('2', 1, 96, ['a', 'b'])]
  assert folders.main(command) == 0
  assert len(asked) == 2
