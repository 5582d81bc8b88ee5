"""The split is drawn once, stratified, and kept."""

import numpy as np
import pytest

from csdnet_jax.data.images import splits
from csdnet_jax.runtime.errors import UserError

import images
from images import load

TRAIN = {'a/1.png': 1, 'a/2.png': 1, 'b/1.png': 2, 'b/2.png': 2}
TEST = {'a/3.png': 1, 'b/3.png': 2}


def per_class(split):
  return np.bincount(split.labels).tolist()


def names_of(dataset):
  return {p: s.names for p, s in splits.parts_of(dataset).items()}


def refused(root, match, **fields):
  with pytest.raises(UserError, match=match) as e:
    load(root, **fields)
  assert '\n' not in str(e.value)


@pytest.mark.parametrize('fraction', [0.01, 0.3, 0.5, 0.99])
def test_split_is_stratified_and_keeps_every_class(tmp_path, fraction):
  counts = {'a': 2, 'b': 3, 'c': 10}
  dataset = load(images.class_folders(tmp_path, counts), test_fraction=fraction)
  both = np.add(per_class(dataset.train), per_class(dataset.test))
  assert both.tolist() == [2, 3, 10]
  assert min(per_class(dataset.train)) >= 1 <= min(per_class(dataset.test))
  assert not set(dataset.train.names) & set(dataset.test.names)
  assert per_class(dataset.test)[2] == min(max(round(10 * fraction), 1), 9)


def test_split_depends_on_its_seed_alone(tmp_path):
  root = images.class_folders(tmp_path, {'a': 8, 'b': 8})
  first = names_of(load(root))
  assert names_of(load(root)) == first
  assert names_of(load(root, split_seed=1)) != first


def test_more_of_one_class_leaves_the_others_where_they_are(tmp_path):
  root = images.class_folders(tmp_path, {'a': 8, 'b': 8})
  before = {n for n in load(root).test.names if n.startswith('b/')}
  images.class_folders(root, {'a': 12, 'aa': 4})
  after = {n for n in load(root).test.names if n.startswith('b/')}
  assert before == after


def test_read_follows_the_split(tmp_path):
  root = images.class_folders(tmp_path, {'a': 5, 'b': 5})
  dataset = load(root, val_fraction=0.4, shots=1)
  for split in splits.parts_of(dataset).values():
    for i, name in enumerate(split.names):
      assert split.read(i) == (root / name).read_bytes()


def test_validation_is_carved_from_train(tmp_path):
  root = images.ufg_layout(tmp_path, TRAIN, TEST)
  dataset = load(root, val_fraction=0.1)
  assert per_class(dataset.val) == per_class(dataset.train) == [1, 1]
  assert set(dataset.val.names) | set(dataset.train.names) == set(TRAIN)
  assert dataset.test.names == tuple(TEST)


def test_shots_keep_that_many_of_each_class(tmp_path):
  root = images.class_folders(tmp_path, {'a': 8, 'b': 6})
  dataset, full = load(root, shots=2), load(root)
  assert per_class(dataset.train) == [2, 2]
  assert set(dataset.train.names) < set(full.train.names)
  assert dataset.test.names == full.test.names


def test_fractions_and_shots_that_cannot_be(tmp_path):
  root = images.class_folders(tmp_path, {'a': 4, 'b': 2})
  refused(root, 'test_fraction', test_fraction=1.0)
  refused(root, 'val_fraction', val_fraction=-0.1)
  refused(root, 'shots', shots=-1)
  refused(root, r'shots=2 \(b: 1\)', shots=2)


def test_validation_folder_and_fraction_together(tmp_path):
  for part in ('train', 'val', 'test'):
    images.class_folders(tmp_path / part, {'a': 2, 'b': 2})
  refused(tmp_path, 'val/ folder', val_fraction=0.5)
