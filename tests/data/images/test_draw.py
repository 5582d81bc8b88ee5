"""The parts are drawn class by class, and whole groups at a time."""

import collections

import numpy as np
import pytest

from csdnet_jax.data.images import draw, splits
from csdnet_jax.runtime.errors import UserError

import images
from images import load


def dataset_of(counts, groups=(), test=()):
  """`counts`: {class: n}, of images 'class/i'; or {class: [names]}."""
  names, labels = [], []
  for label, (c, n) in enumerate(counts.items()):
    of_class = [f'{c}/{i}' for i in range(n)] if isinstance(n, int) else n
    names += of_class
    labels += [label] * len(of_class)
  made = splits.Split(tuple(names), np.array(labels, np.int32), lambda i: b'')
  held = splits.Split(tuple(test), np.zeros(len(test), np.int32), lambda i: b'')
  return splits.Dataset(
    'set', tuple(counts), made, test=held, groups=dict(groups)
  )


def drawn(dataset, seed=0, **kw):
  fields = {'test_fraction': 0.5, 'val_fraction': 0.0, 'shots': 0}
  return draw.draw_split(dataset, **{**fields, **kw}, seed=seed)


def side_of(dataset):
  return {
    name: part
    for part, split in splits.parts_of(dataset).items()
    for name in split.names
  }


def names_of(dataset):
  return {p: s.names for p, s in splits.parts_of(dataset).items()}


def plants(classes, each):
  """Plants of `each` pictures: {class: names}, {name: plant}."""
  groups = {
    f'{c}/p{p}_{i}': f'{c}{p}'
    for c, n in classes.items()
    for p in range(n)
    for i in range(each)
  }
  names = collections.defaultdict(list)
  for name in groups:
    names[name[0]].append(name)
  return names, groups


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('val', [0.0, 0.4])
def test_a_group_is_on_one_side(seed, val):
  names, groups = plants({'a': 4, 'b': 6, 'c': 3}, 3)
  sides = side_of(drawn(dataset_of(names, groups), seed, val_fraction=val))
  assert sides.keys() == groups.keys()
  of_group = collections.defaultdict(set)
  for name, group in groups.items():
    of_group[group].add(sides[name])
  assert all(len(found) == 1 for found in of_group.values())
  counts = collections.Counter((n[0], side) for n, side in sides.items())
  # Half of four, of six; of three groups one or two.
  assert counts['a', 'test'] == 6 and counts['b', 'test'] == 9
  assert counts['c', 'test'] in (3, 6)
  for c in 'abc':
    assert counts[c, 'train'] >= 3
    assert bool(counts[c, 'val']) == (
      val > 0 and counts[c, 'val'] + counts[c, 'train'] > 3
    )


@pytest.mark.parametrize('fraction', [0.01, 0.5, 0.99])
def test_a_class_of_one_group_is_not_cut(fraction):
  names, groups = plants({'a': 1, 'b': 2}, 4)
  sides = side_of(drawn(dataset_of(names, groups), test_fraction=fraction))
  assert {sides[n] for n in names['a']} == {'train'}
  counts = collections.Counter(sides[n] for n in names['b'])
  assert counts == {'train': 4, 'test': 4}


def test_the_share_is_as_near_as_whole_groups_allow():
  # Groups of 5, 3, 1 and 1: half of ten can be met.
  sizes = {'p': 5, 'q': 3, 'r': 1, 's': 1}
  groups = {f'a/{g}{i}': g for g, n in sizes.items() for i in range(n)}
  for seed in range(10):
    found = drawn(dataset_of({'a': list(groups), 'b': 2}, groups), seed)
    n = sum(name[0] == 'a' for name in found.test.names)
    assert 4 <= n <= 6


def test_a_group_over_classes_is_whole_and_none_is_left_untrained():
  # Each photograph shows a leaf of either class.
  names = {c: [f'{c}/{i}' for i in range(6)] for c in 'ab'}
  groups = {name: name[2] for found in names.values() for name in found}
  for seed in range(10):
    sides = side_of(drawn(dataset_of(names, groups), seed))
    assert all(sides[f'a/{i}'] == sides[f'b/{i}'] for i in range(6))
    for c in 'ab':
      of_class = [sides[name] for name in names[c]]
      assert of_class.count('test') == of_class.count('train') == 3


def test_one_group_that_all_classes_share_stays_in_train():
  names = {'a': ['a/x', 'a/0'], 'b': ['b/x', 'b/0'], 'c': ['c/x']}
  groups = {'a/x': 'x', 'b/x': 'x', 'c/x': 'x'}
  for seed in range(10):
    sides = side_of(drawn(dataset_of(names, groups), seed))
    # The only image of c is of it.
    assert {sides[name] for name in groups} == {'train'}
    assert sides['a/0'] == sides['b/0'] == 'test'


@pytest.mark.parametrize('grouped', [False, True])
def test_equal_images_are_on_one_side_and_join_groups(grouped):
  names, groups = plants({'a': 6}, 2)
  names['b'] = ['b/0', 'b/1', 'b/2', 'b/3']
  equal = {name: i for i, name in enumerate([*groups, *names['b']])}
  equal['a/p1_0'] = equal['a/p0_1']  # Of two plants.
  equal['b/3'] = equal['b/1']
  for seed in range(10):
    dataset = dataset_of(names, groups if grouped else {})
    sides = side_of(drawn(dataset, seed, equal=equal))
    assert sides['a/p1_0'] == sides['a/p0_1']
    assert sides['b/3'] == sides['b/1']
    if grouped:
      assert len({sides[f'a/p{p}_{i}'] for p in (0, 1) for i in (0, 1)}) == 1


def test_ungrouped_images_are_drawn_one_by_one():
  """As ever: by the hash of the seed and the name, half rounded up."""
  import hashlib

  dataset = dataset_of({'a': 5, 'b': 4})
  found = drawn(dataset, seed=3)
  for c, n in (('a', 3), ('b', 2)):
    names = [name for name in dataset.train.names if name[0] == c]
    names.sort(key=lambda n: hashlib.sha256(f'test/3/{n}'.encode()).hexdigest())
    assert {n for n in found.test.names if n[0] == c} == set(names[:n])


def test_shots_take_one_image_of_each_group_first():
  names, groups = plants({'a': 4, 'b': 5}, 3)
  dataset = dataset_of(names, groups, test=['t'])
  for seed in range(5):
    kept = drawn(dataset, seed, shots=4).train.names
    assert sorted(n[0] for n in kept) == ['a'] * 4 + ['b'] * 4
    assert len({groups[n] for n in kept}) == 8


def test_a_split_that_came_with_the_data_stays():
  names, groups = plants({'a': 2, 'b': 2}, 2)
  dataset = dataset_of(names, groups, test=['a/t'])
  found = drawn(dataset, test_fraction=0.9)
  assert found.test.names == ('a/t',)
  assert found.train.names == dataset.train.names


def test_nothing_to_draw_from():
  names, groups = plants({'a': 1, 'b': 1}, 4)
  with pytest.raises(UserError, match='of different groups, of which one'):
    drawn(dataset_of(names, groups))
  with pytest.raises(UserError, match='config.data.val_fraction=0'):
    drawn(dataset_of({'a': 2, 'b': 2}), val_fraction=0.5)


def test_no_test_part_where_none_is_wanted():
  dataset = dataset_of({'a': 3, 'b': 1})
  found = drawn(dataset, test_fraction=0)
  assert found.train.names == dataset.train.names
  assert list(splits.parts_of(found)) == ['train']
  found = drawn(dataset, test_fraction=0, val_fraction=0.34)
  assert {p: len(s.names) for p, s in splits.parts_of(found).items()} == {
    'train': 3, 'val': 1
  }  # fmt: skip


def _two_sides(train, test):
  """A data set of classes with so many images a class on each side."""

  def side(name, counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    names = tuple(f'{name}/{i}' for i in range(len(labels)))
    return splits.Split(names, labels, lambda i: names[i].encode())

  classes = tuple(f'class {i}' for i in range(len(train)))
  return splits.Dataset(
    'x', classes, side('a', train), test=side('b', test)
  )  # fmt: skip


def _came_over(before, after):
  """The classes that train has from the other side: all of it, or nothing."""
  home = set(before.train.names)
  stayed = {
    (label, name in home)
    for label, name in zip(after.train.labels, after.train.names, strict=True)
  }
  assert len(stayed) == len(before.class_names)
  return [label for label, at_home in sorted(stayed) if not at_home]


def test_sides_change_places_class_by_class_where_equally_many_are_on_both():
  counts = [2] * 20
  dataset = _two_sides([*counts, 3], [*counts, 2])
  drawn = [draw.swap_sides(dataset, seed) for seed in range(4)]
  moved = [_came_over(dataset, other) for other in drawn]
  assert all(3 <= len(m) <= 17 for m in moved)
  assert len(set(map(tuple, moved))) == 4
  # The last class has not equally many on both sides.
  assert not any(20 in m for m in moved)
  for other in drawn:
    assert np.bincount(other.train.labels).tolist() == [*counts, 3]
    assert np.bincount(other.test.labels).tolist() == [*counts, 2]
    both = {*other.train.names, *other.test.names}
    assert both == {*dataset.train.names, *dataset.test.names}
    assert other.test.read(0).decode() == other.test.names[0]
  again = draw.swap_sides(dataset, 2)
  assert names_of(again) == names_of(drawn[2])


def test_a_data_set_with_sides_of_its_own_is_split_anew_by_the_seed(tmp_path):
  for part in ('train', 'test'):
    images.class_folders(tmp_path / part, {f'{i}': 2 for i in range(8)})
  root = tmp_path
  own = names_of(load(root))
  assert names_of(load(root, split_seed=3)) == own
  first, second = (
    names_of(load(root, resplit=True, split_seed=seed)) for seed in (0, 1)
  )
  assert first != second
  assert {*first['train'], *first['test']} == {*own['train'], *own['test']}
