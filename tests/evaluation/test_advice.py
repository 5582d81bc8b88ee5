"""Promises of the advice: an honest curve, and which classes want more."""

import numpy as np
import pytest

from csdnet_jax.evaluation import advice, probes


def blobs(seed, each, classes=6, spread=2.0):
  rng = np.random.default_rng(seed)
  centres = np.random.default_rng(9).normal(size=(classes, 8))
  labels = np.repeat(np.arange(classes), each)
  return centres[labels] + spread * rng.normal(size=(len(labels), 8)), labels


def test_the_curve_ends_at_the_cross_validation():
  x, labels = blobs(0, 6)
  folds = np.arange(36) % 3
  curve = advice.learning_curve(x, labels, folds)
  assert list(curve) == [1, 2, 3, 4]
  right = sum(
    probes.prototypes(
      x[folds != f], labels[folds != f], x[folds == f], labels[folds == f]
    )
    for f in range(3)
  )
  assert curve[4] == pytest.approx(right / 3)
  assert curve[1] < curve[4]
  assert advice.learning_curve(x, labels, folds) == curve


def test_what_is_never_tested_is_trained_on():
  x, labels = blobs(0, 6)
  folds = np.arange(36) % 3
  folds[:6] = -1
  tested = folds >= 0
  alone = advice.learning_curve(x[tested], labels[tested], folds[tested])
  curve = advice.learning_curve(x, labels, folds)
  assert list(curve) == list(alone) == [1, 2, 3, 4]
  # One more class to be mistaken for.
  assert curve[4] < alone[4]


def test_the_curve_ends_where_half_of_the_classes_have_no_more():
  x, labels = blobs(0, 16)
  # Of four classes 4 pictures, of two all 16.
  kept = (labels >= 4) | (np.arange(96) % 16 < 4)
  x, labels = x[kept], labels[kept]
  curve = advice.learning_curve(x[:22], labels[:22], np.arange(22) % 2)
  assert list(curve) == [1, 2]
  assert all(type(m) is int for m in curve)
  # Most of the tested pictures are of the two.
  curve = advice.learning_curve(x, labels, np.arange(48) % 4)
  assert list(curve) == [1, 2, 3, 4, 5, 10, 12]


def test_one_great_class_does_not_flatten_the_curve():
  few, labels = blobs(0, 6)
  more, _ = blobs(1, 30)
  x = np.concatenate([few, more[:12]])
  labels = np.concatenate([labels, np.zeros(12, int)])
  curve = advice.learning_curve(x, labels, np.arange(48) % 3)
  assert max(curve) == 4


def test_the_curve_of_many_pictures_has_few_points():
  x, labels = blobs(0, 60)
  curve = advice.learning_curve(x, labels, np.arange(360) % 4)
  assert list(curve) == [1, 2, 3, 4, 5, 10, 20, 40, 45]


def test_without_training_pictures_there_is_no_curve():
  x, labels = blobs(0, 2)
  assert advice.learning_curve(x, labels, np.zeros(12, int)) == {}


NAMES = ('Merlot', 'Syrah', 'Gamay', 'Cinsaut', 'Tannat', 'Viura')


def test_classes_of_few_pictures_want_more():
  labels = np.repeat(np.arange(6), (2, 2, 2, 6, 6, 7))
  right = np.ones(25, bool)
  right[[0, 2, 3, 5, 8]] = False
  said = advice.advice(right, labels, NAMES, {1: 60.0, 2: 75.0})
  assert said == (
    'More pictures of each of these 3 classes would help most (Syrah, Merlot, '
    'Gamay): classes with 2 pictures are named right in 33 %, those with 6 or '
    'more in 95 %.'
  )


def test_where_all_have_as_many_the_curve_decides():
  labels, right = np.repeat(np.arange(6), 4), np.arange(24) % 2 == 0
  args = right, labels, NAMES
  steep = advice.advice(*args, {1: 31.0, 2: 42.0, 3: 50.0})
  assert steep == (
    'More pictures of every class would help most: class means of frozen '
    'features name 31, 42, 50 % right with 1, 2, 3 training pictures a class.'
  )
  flat = advice.advice(*args, {1: 80.0, 2: 81.0, 4: 81.5})
  assert 'would help little' in flat
  # What one point and none say.
  assert '31 %' in advice.advice(*args, {1: 31.0})
  assert advice.advice(*args, {})
  assert advice.advice(labels >= 0, labels, NAMES, {1: 99.0}) == (
    'Every picture is named right; more would only narrow the interval.'
  )


def test_where_nothing_is_known_every_class_wants_more():
  labels = np.repeat(np.arange(6), (1, 1, 1, 1, 1, 2))
  for right in (labels >= 0, labels == 5):
    said = advice.advice(right, labels, NAMES, {1: 9.0}, undecided=True)
    assert said == 'More pictures of every class are needed to tell.'


def test_many_classes_of_few_pictures_are_not_all_named():
  labels = np.repeat(np.arange(6), (2, 2, 2, 2, 9, 9))
  said = advice.advice(labels > 3, labels, NAMES, {})
  assert '(Merlot, Syrah, Gamay, ...)' in said
