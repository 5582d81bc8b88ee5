"""Classes of which a split cuts no group."""

import json

import numpy as np
import pytest

from csdnet_jax.config import default
from csdnet_jax.data.images import saved
from csdnet_jax.runtime.errors import UserError
from experiments import results, uncut
from experiments.report import collect, text

import images
from lines import IMAGES, first, line


def test_a_class_is_cut_where_train_and_test_share_a_group(tmp_path):
  root = images.ufg_layout(
    tmp_path / 'vines',
    {'a/P1_0.png': 1, 'a/P1_1.png': 1, 'b/P2_0.png': 2, 'b/P2_1.png': 2},
    {'a/P1_2.png': 1, 'a/P3_0.png': 1, 'b/P4_0.png': 2},
    {1: 'a', 2: 'b'},
  )
  config = default()
  config.data.update(root=str(root), cache=str(tmp_path / 'cache'))
  assert not uncut.groups_of(config)
  config.data.group = r'/(P\d+)'
  split = saved.split_to_json(images.load(root))
  a, b = split['class_names']
  path = tmp_path / 'predictions.csv'
  rows = ('b/P4_0.png', b), ('a/P3_0.png', a), ('a/P1_2.png', a)
  lines = ''.join(f'{name},{label},{b}\n' for name, label in rows)
  path.write_text('path,label,class_1\n' + lines)
  known = uncut.known(path, split, uncut.groups_of(config), 'test')
  assert known['uncut_classes'] == 1
  kept = results.correctness(path, split['class_names']) | known
  # In the order of their names: of `a`, P1 is in train as well.
  assert results.bits(kept, 'uncut').tolist() == [False, False, True]
  assert results.of_images({'test': kept}, 'test').tolist() == [0, 0, 100]
  assert results.of_images({'test': kept}, 'test', whole=False) == [100]


def _grouped(arm, seed, right, uncut_):
  row = line(arm, seed, right)
  packed = np.packbits(uncut_).tobytes().hex()
  row['test'] |= {'uncut': packed, 'uncut_classes': 7}
  row['summary']['start'] = {'knn': 40.0}
  return row


def test_a_second_table_is_of_the_uncut_classes():
  half = ~first(20)
  rows = [_grouped('base', s, first(24), half) for s in (0, 1)]
  rows += [_grouped('a', s, first(22), half) for s in (0, 1)]
  whole, rest = collect.tables(rows)
  assert (whole.set, rest.set) == ('grape58', 'grape58, no group cut')
  assert [arm.mean for arm in whole.arms] == [60, 55]
  assert [arm.mean for arm in rest.arms] == [20, 10]
  assert rest.arms[1].diff == -10 and rest.images == (20, 20)
  assert 'on 20 test images, last epoch, of the 7 classes without a group' in (
    text.describe(rest)
  )
  # What features are worth before training is known of all classes together.
  assert 'before' in text.describe(whole)
  assert 'before' not in text.describe(rest)


def test_there_is_none_where_nothing_is_cut_or_a_line_does_not_know():
  all_ = first(IMAGES)
  rows = [_grouped('base', s, first(24), all_) for s in (0, 1)]
  assert len(collect.tables(rows)) == 1
  rows = [_grouped('base', s, first(24), first(9)) for s in (0, 1)]
  assert len(collect.tables(rows)) == 2
  assert len(collect.tables([*rows, line('a', 0, first(24))])) == 1


def test_damaged_bits_are_named(tmp_path):
  row = _grouped('base', 0, first(24), first(9))
  row['test']['uncut'] = 'ff'
  (tmp_path / 'r.jsonl').write_text(json.dumps(row))
  with pytest.raises(UserError, match='is no result .there are not 40 bits'):
    results.read(tmp_path / 'r.jsonl')
