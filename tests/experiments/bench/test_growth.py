"""Folders of frozen features: what is drawn, and what a verdict makes of it."""

import numpy as np
import pytest

from csdnet_jax.evaluation import probes
from experiments.bench import growth


def blobs(classes=8, each=40, spread=2.5):
  rng = np.random.default_rng(0)
  centres = rng.normal(size=(classes, 40))
  labels = np.repeat(np.arange(classes), each)
  noise = spread * rng.normal(size=(len(labels), 40))
  return (centres[labels] + noise).astype(np.float32), labels


def test_what_is_given_is_never_held_out():
  _, labels = blobs(each=5)
  for seed in range(10):
    given, held_out = growth.draw(labels, np.random.default_rng(seed))
    both = np.concatenate([given, held_out])
    assert len(np.unique(both)) == len(both)
    assert set(labels[given]) == set(labels[held_out])
    assert np.bincount(labels[both]).max() == 5
    assert np.bincount(labels[given])[labels[given]].min() >= 2


def test_folds_part_each_class_evenly():
  labels = np.repeat(np.arange(7), (2, 3, 4, 5, 6, 7, 8))
  folds = growth.deal(labels, np.random.default_rng(0))
  assert set(folds) == set(range(5))
  for label in range(7):
    counts = np.bincount(folds[labels == label], minlength=5)
    assert np.ptp(counts) <= 1


@pytest.mark.parametrize('fit', growth._FITS.values())
def test_a_smaller_basis_changes_no_name(fit):
  x, labels = blobs(each=3)
  test, _ = blobs(each=9, spread=3.0)
  named = growth._named(fit, x, labels, test)
  whole = probes.logits(fit(x, labels), test).argmax(-1)
  assert np.mean(named == whole) > 0.97  # But for rounding.
  # Classes that were not seen are never named.
  seen = labels % 2 == 1
  assert set(growth._named(fit, x[seen], labels[seen], test)) <= {1, 3, 5, 7}


def test_folders_are_judged_and_said():
  x, labels = blobs()
  rng = np.random.default_rng(0)
  judged = [growth.judge(x, labels, rng) for _ in range(3)]
  for one in judged:
    assert one.growth > 1
    assert one.grown[:2] == one.plain[:2]
    assert one.grown.high > one.plain.high
    assert one.n > 100
  said = growth.describe('blobs', judged)
  assert said.startswith('blobs: 3 folders')
  assert 'of 3 with 100 held-out pictures or more' in said
