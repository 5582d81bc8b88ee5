"""Folds: groups whole, classes even, and something of each to learn from."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from csdnet_jax.data.images import folds, splits
from csdnet_jax.runtime.errors import UserError


def _dataset(labels, **fields):
  names = tuple(f'{label}/{i}.png' for i, label in enumerate(labels))
  train = splits.Split(names, np.array(labels, np.int32), lambda i: b'')
  classes = tuple(map(str, range(max(labels) + 1)))
  return splits.Dataset('leaves', classes, train, **fields)


def _deal(labels, units=None, seed=0):
  units = np.arange(len(labels)) if units is None else np.array(units)
  return folds.deal(_dataset(labels), units, seed)


def test_each_class_is_dealt_evenly_over_five_folds():
  dealt = _deal([0] * 10 + [1] * 7)
  assert np.bincount(dealt[:10]).tolist() == [2] * 5
  assert sorted(np.bincount(dealt[10:], minlength=5)) == [1, 1, 1, 2, 2]
  # And so are all images together.
  assert sorted(np.bincount(dealt)) == [3, 3, 3, 4, 4]


def test_there_are_as_many_folds_as_the_largest_class_has_groups():
  assert _deal([0, 0, 0, 1, 1]).max() == 2
  assert _deal([0, 0, 0, 1, 1], units=[0, 0, 1, 2, 3]).max() == 1


def test_a_class_of_one_group_is_always_trained_on():
  dealt = _deal([0, 0, 1, 1, 2], units=[0, 1, 2, 2, 3])
  assert sorted(dealt[:2]) == [0, 1]
  assert dealt[2:].tolist() == [-1, -1, -1]


def test_what_cannot_be_tested_is_refused():
  with pytest.raises(UserError, match='No class of leaves has two images,'):
    _deal([0, 1, 2])
  dataset = _dataset([0, 0, 1], groups={'0/0.png': 'a', '0/1.png': 'a'})
  with pytest.raises(UserError, match='two images of different groups,'):
    folds.deal(dataset, np.array([0, 0, 1]), 0)


def test_an_image_more_in_one_class_moves_none_of_the_others_in_its_class():
  few, more = _deal([0] * 6 + [1] * 6), _deal([0] * 6 + [1] * 6 + [2] * 4)
  # The order of a class is the hash of its names; where it starts may move.
  for rows in (slice(0, 6), slice(6, 12)):
    together = few[rows, None] == few[None, rows]
    np.testing.assert_array_equal(
      together, more[rows, None] == more[None, rows]
    )


def test_the_seed_decides_the_draw():
  labels = [0] * 20
  assert (_deal(labels) == _deal(labels)).all()
  assert (_deal(labels) != _deal(labels, seed=1)).any()


@settings(deadline=None, max_examples=200)
@given(
  st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 11)), min_size=2, max_size=40
  )
)
def test_whatever_spans_what_groups_stay_whole_and_classes_are_learnt(images):
  _, labels = np.unique([c for c, _ in images], return_inverse=True)
  units = np.array([unit for _, unit in images])
  groups = {c: set(units[labels == c]) for c in set(labels.tolist())}
  try:
    dealt = folds.deal(_dataset(labels.tolist()), units, 0)
  except UserError:
    # Each class is a group, or hangs on groups of others.
    assert min(map(len, groups.values())) < 2
    return
  for unit in set(units.tolist()):
    assert len(set(dealt[units == unit].tolist())) == 1
  for k in range(dealt.max() + 1):
    assert set(labels[dealt != k].tolist()) == set(labels.tolist())
    assert (dealt == k).any()
  for c, of in groups.items():
    assert len(of) > 1 or (dealt[labels == c] == -1).all()


def test_a_fold_is_a_data_set_of_its_own():
  dataset, dealt = _dataset([0, 0, 1, 1, 2]), np.array([0, 1, 1, 0, -1])
  found = folds.parts(dataset, dealt, 1)
  assert found.test.names == ('0/1.png', '1/2.png')
  assert found.train.names == ('0/0.png', '1/3.png', '2/4.png')
  assert found.test.labels.tolist() == [0, 1] and found.val is None
