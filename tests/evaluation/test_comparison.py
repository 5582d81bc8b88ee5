"""Promises of the verdict: intervals, differences, the choice, the words."""

import math

import numpy as np
import pytest
from scipy import stats

from csdnet_jax.evaluation import comparison


def answers(seed, n=60, groups=20, p=0.7):
  rng = np.random.default_rng(seed)
  return rng.random(n) < p, rng.integers(0, groups, n)


@pytest.mark.parametrize('hits, n', [(0, 7), (3, 7), (7, 7), (41, 60), (1, 1)])
def test_of_pictures_of_their_own_it_is_wilsons_interval(hits, n):
  found = comparison.accuracy(np.arange(n) < hits, np.arange(n))
  expected = stats.binomtest(hits, n).proportion_ci(method='wilson')
  np.testing.assert_allclose(
    found, (100 * hits / n, 100 * expected.low, 100 * expected.high), atol=1e-9
  )


def test_copies_of_pictures_within_units_are_worth_nothing():
  right, _ = answers(0)
  once = comparison.accuracy(right, np.arange(60))
  copied = comparison.accuracy(np.repeat(right, 5), np.repeat(np.arange(60), 5))
  np.testing.assert_allclose(copied, once)
  apart = comparison.accuracy(np.repeat(right, 5), np.arange(300))
  assert apart.high - apart.low < 0.6 * (once.high - once.low)


def test_one_unit_is_one_picture():
  many = comparison.accuracy([True, False] * 50, np.zeros(100))
  assert many.low < 10
  assert many.high > 90


@pytest.mark.parametrize('p', [0, 0.5, 1])
def test_neither_order_nor_names_of_units_matter(p):
  right, units = answers(1, p=p)
  other, _ = answers(2)
  order = np.random.default_rng(3).permutation(60)
  names = np.random.default_rng(4).permutation(1000)
  moved = right[order], names[units[order]]
  np.testing.assert_allclose(
    comparison.accuracy(*moved, 1.3), comparison.accuracy(right, units, 1.3)
  )
  np.testing.assert_allclose(
    comparison.difference(moved[0], other[order], moved[1]),
    comparison.difference(right, other, units),
  )


def test_only_the_upper_end_allows_for_more_pictures():
  right, units = answers(1)
  plain = comparison.accuracy(right, units)
  grown = comparison.accuracy(right, units, 1.25)
  assert grown[:2] == plain[:2]
  odds = [x / (100 - x) for x in (plain.high, grown.high)]
  assert odds[1] / odds[0] == pytest.approx(1.25**2)
  for growth in (4.0, math.inf):
    assert 0 <= comparison.accuracy([False], [0], growth).high <= 100
    assert comparison.accuracy([True], [0], growth).high == 100


def test_growth_is_that_of_a_loop():
  rng = np.random.default_rng(0)
  labels, folds = rng.integers(0, 4, 50), rng.integers(-1, 3, 50)
  shares = [
    np.mean(folds[labels == c] != f)
    for c, f in zip(labels, folds, strict=True)
    if f >= 0
  ]
  expected = 1 / np.mean(shares)
  assert comparison.growth_of(labels, folds) == pytest.approx(expected)
  assert comparison.growth_of([0, 0, 1], [0, 0, 1]) == math.inf
  even = np.tile(np.arange(5), 6), np.repeat(np.arange(3), 10)
  assert comparison.growth_of(*even) == pytest.approx(1.5)


def test_the_error_is_that_of_clusters():
  (right, units), (other, _) = answers(1), answers(2)
  gains = right.astype(float) - other
  mean, groups = gains.mean(), np.unique(units)
  spread = sum((gains[units == g] - mean).sum() ** 2 for g in groups)
  expected = np.sqrt(len(groups) / (len(groups) - 1) * spread) / 60
  found = comparison.difference(right, other, units)
  assert found.error == pytest.approx(100 * expected)
  assert found.points == pytest.approx(100 * mean)


def test_of_pictures_of_their_own_it_is_bonett_and_prices_interval():
  # 12 pictures for the one, 5 for the other, 40 in all.
  right = np.arange(40) < 12
  other = (np.arange(40) >= 12) & (np.arange(40) < 17)
  p, q = 13 / 42, 6 / 42
  # With the factor G / (G - 1) of clusters, which their formula has not.
  half = 1.959964 * np.sqrt((p + q - (p - q) ** 2) / 41)
  found = comparison.difference(right, other, np.arange(40))
  assert found.low == pytest.approx(100 * (p - q - half), abs=1e-4)
  assert found.high == pytest.approx(100 * (p - q + half), abs=1e-4)


def test_the_other_way_round_it_changes_its_sign():
  (right, units), (other, _) = answers(1), answers(2)
  one = comparison.difference(right, other, units)
  two = comparison.difference(other, right, units)
  np.testing.assert_allclose(
    (one.points, one.low, one.high), (-two.points, -two.high, -two.low)
  )


@pytest.mark.parametrize('n', [1, 3, 100])
@pytest.mark.parametrize('pair', [(1, 1), (0, 0), (1, 0)])
def test_equal_answers_are_no_certainty(n, pair):
  right, other = (np.full(n, bool(value)) for value in pair)
  found = comparison.difference(right, other, np.arange(n))
  assert -100 <= found.low <= found.points <= found.high <= 100
  assert found.low < found.high
  assert found.error == (math.inf if n == 1 else 0)


def test_the_best_is_chosen_and_of_equals_the_one_that_learns_more():
  figures = {'prototypes': 60.0, 'probe': 64.0, 'cross_entropy': 63.0}
  assert comparison.choose(figures) == 'probe'
  assert comparison.choose(figures | {'csdnet': 64.0}) == 'csdnet'
  assert comparison.choose({'prototypes': 0.0}) == 'prototypes'


def test_no_pictures_are_refused():
  with pytest.raises(ValueError, match='no pictures'):
    comparison.accuracy([], [])
  with pytest.raises(ValueError, match='no pictures'):
    comparison.difference([], [], [])


def nearest_mean(x, labels, x_test, y_test):
  means = np.stack([x[labels == c].mean(0) for c in range(labels.max() + 1)])
  return np.square(x_test[:, None] - means).sum(-1).argmin(1) == y_test


def test_the_interval_covers_new_pictures_of_a_model_with_more():
  """Classes of Gaussian pictures; the final model trains on all of them."""
  rng = np.random.default_rng(0)
  covered, plain = [], []
  for _ in range(80):
    classes, each = int(rng.integers(5, 20)), int(rng.integers(2, 7))
    centres = rng.normal(size=(classes, 16))
    labels = np.repeat(np.arange(classes), each)
    new = np.repeat(np.arange(classes), 1000 // classes)
    x, x_new = (
      centres[y] + 1.5 * rng.normal(size=(len(y), 16)) for y in (labels, new)
    )
    folds = np.arange(len(labels)) % min(5, each)
    top1 = 100 * nearest_mean(x, labels, x_new, new).mean()
    right = np.empty(len(labels), bool)
    for f in np.unique(folds):
      train, test = folds != f, folds == f
      right[test] = nearest_mean(x[train], labels[train], x[test], labels[test])
    growth = comparison.growth_of(labels, folds)
    units = np.arange(len(labels))
    for found, ends in (
      (covered, comparison.accuracy(right, units, growth)),
      (plain, comparison.accuracy(right, units)),
    ):
      found.append(ends.low <= top1 <= ends.high)
  assert 0.9 <= np.mean(covered) <= 1
  # What the growth is for.
  assert np.mean(plain) < 0.85


def rights(**shares):
  return {name: np.arange(200) < n for name, n in shares.items()}


def test_the_verdict_in_words():
  units = np.arange(200)

  def said(chance=5.0, **shares):
    found = rights(**shares)
    chosen = comparison.choose({name: x.mean() for name, x in found.items()})
    right = comparison.accuracy(found[chosen], units)
    return comparison.sentence(found, units, chosen, right, chance)

  tuned = said(prototypes=100, probe=110, cross_entropy=130)
  assert tuned.startswith('Fine-tuning by cross-entropy gains 10.0 points (')
  assert tuned.endswith(
    'over frozen features; fine-tuning by cross-entropy is chosen.'
  )
  ours = said(prototypes=100, probe=110, cross_entropy=130, csdnet=150)
  assert ours.startswith('CSDNet gains 20.0 points (')
  assert 'over frozen features and 10.0 (' in ours
  assert ours.endswith('over fine-tuning by cross-entropy; CSDNet is chosen.')
  assert said(prototypes=100, probe=110, cross_entropy=90) == (
    'Nothing beats the frozen features here: a linear probe on them is chosen.'
  )
  assert said(prototypes=100) == (
    'Only frozen features were tried: their class means are chosen.'
  )
  assert said(prototypes=10, csdnet=5).startswith(
    'It cannot be said yet whether these classes can be told apart: 5.0 % are '
    'named right ('
  )
  # Always naming the most frequent class is better.
  worse = said(chance=60.0, prototypes=100)
  assert worse == (
    'It cannot be said yet whether these classes can be told apart: 50.0 % are '
    'named right (43.1 to 56.9), and always naming the most frequent class '
    '60.0 %; class means of frozen features are kept.'
  )
