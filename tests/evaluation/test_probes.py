"""Promises of kNN, prototypes and the linear probe on frozen embeddings."""

import collections
import math

import numpy as np
import pytest
from absl import logging

from csdnet_jax.evaluation import neighbours, probes

ALL = (probes.knn, probes.prototypes, probes.linear_probe)
BY_COSINE = (probes.knn, probes.prototypes)


def blobs(seed, classes=5, each=6, channels=8, spread=0.5):
  rng = np.random.default_rng(seed)
  centres = np.random.default_rng(99).normal(size=(classes, channels))
  labels = np.repeat(np.arange(classes), each)
  noise = spread * rng.normal(size=(classes * each, channels))
  return (centres[labels] + noise).astype(np.float32), labels


def slow_knn(train_x, train_y, test_x, test_y, k):
  right = 0
  for x, y in zip(test_x.astype(float), test_y, strict=True):
    scored = []
    for row, label in zip(train_x.astype(float), train_y, strict=True):
      norms = math.sqrt(sum(row**2)) * math.sqrt(sum(x**2))
      scored.append((sum(row * x) / norms, label))
    votes = collections.Counter()
    for cosine, label in sorted(scored, key=lambda s: -s[0])[:k]:
      votes[label] += math.exp(cosine / 0.07)
    right += max(sorted(votes), key=lambda c: votes[c]) == y
  return 100 * right / len(test_y)


@pytest.mark.parametrize('k', [1, 3, 6])
def test_knn_equals_a_plain_loop(k):
  train, test = blobs(0, spread=1.5), blobs(1, spread=1.5)
  expected = slow_knn(*train, *test, k)
  assert 30 < expected < 100
  assert probes.knn(*train, *test, k=k) == pytest.approx(expected)


def test_knn_takes_any_number_of_rows(monkeypatch):
  train, test = blobs(0, spread=1.5), blobs(1, spread=1.5)
  whole = probes.knn(*train, *test)
  monkeypatch.setattr(neighbours, '_ROWS', 7)
  assert probes.knn(*train, *test) == whole


def test_knn_asks_no_more_rows_than_a_class_has():
  # Four rows of two classes: the cap is two, and the third would outvote.
  angles = np.array([0.1, 0.3, -0.3, 0.31])
  train_x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
  train_y = np.array([0, 1, 1, 1])
  test = np.array([[1.0, 0.0]]), np.array([0])
  assert slow_knn(train_x, train_y, *test, k=4) == 0
  assert probes.knn(train_x, train_y, *test, k=4) == 100


def test_knn_weighs_a_close_row_above_two_far_ones():
  train_x = np.array([[1, 0], [0.2, 1], [0.2, -1], [-1, 0.3], [-1, 0], [-1, 1]])
  train_y = np.array([0, 1, 1, 1, 0, 0])
  assert probes.knn(train_x, train_y, train_x[:1], train_y[:1], k=3) == 100


@pytest.mark.parametrize('probe', BY_COSINE)
def test_cosines_look_at_directions_only(probe):
  (train_x, train_y), (x, y) = blobs(0, spread=1.5), blobs(1, spread=1.5)
  scale = np.random.default_rng(0).uniform(0.1, 9, (len(x), 1))
  assert probe(train_x * scale, train_y, x * scale, y) == probe(
    train_x, train_y, x, y
  )


@pytest.mark.parametrize('probe', BY_COSINE)
def test_a_zero_embedding_is_no_error(probe):
  train_x, train_y = blobs(0)
  test_x, test_y = blobs(1)
  train_x[0], test_x[0] = 0, 0
  assert probe(train_x, train_y, test_x, test_y) > 80


def slow_prototypes(train_x, train_y, test_x, test_y):
  def unit(x):
    return x / math.sqrt(sum(x**2))

  means = {
    c: unit(
      sum(unit(x) for x, y in zip(train_x, train_y, strict=True) if y == c)
    )
    for c in sorted(set(train_y.tolist()))
  }
  right = 0
  for x, y in zip(test_x, test_y, strict=True):
    right += max(means, key=lambda c: unit(x) @ means[c]) == y
  return 100 * right / len(test_y)


def test_prototypes_equal_a_plain_loop():
  train, test = blobs(0, spread=1.5), blobs(1, spread=1.5)
  expected = slow_prototypes(*train, *test)
  assert 30 < expected < 100
  assert probes.prototypes(*train, *test) == pytest.approx(expected)


def test_a_prototype_is_no_vote_of_rows():
  """The nearest row is of class 0, the nearest mean that of class 1."""
  angles = np.array([0.1, 2.5, 0.3, -0.2])
  train_x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
  train_y = np.array([0, 0, 1, 1])
  test = np.array([[1.0, 0.08]]), np.array([1])
  assert probes.knn(train_x, train_y, *test, k=1) == 0
  assert probes.prototypes(train_x, train_y, *test) == 100


@pytest.mark.parametrize('probe', ALL)
def test_figures_are_percent_and_repeatable(probe):
  train, test = blobs(0, spread=1.5), blobs(1, spread=1.5)
  first = probe(*train, *test)
  assert isinstance(first, float)
  assert 30 < first < 100
  assert probe(*train, *test) == first


@pytest.mark.parametrize('probe', ALL)
def test_well_separated_classes_are_all_right(probe):
  assert probe(*blobs(0, spread=0.05), *blobs(1, spread=0.05)) == 100


@pytest.mark.parametrize('probe', ALL)
def test_a_class_absent_from_train_counts_as_wrong(probe):
  train_x, train_y = blobs(0, spread=0.05)
  keep = train_y != 2
  test = blobs(1, spread=0.05)
  assert probe(train_x[keep], train_y[keep], *test) == pytest.approx(80)


@pytest.mark.parametrize('probe', ALL)
def test_a_single_class_in_train_is_no_error(probe):
  train_x, train_y = blobs(0, spread=0.05)
  test = blobs(1, spread=0.05)
  assert probe(train_x[:6], train_y[:6], *test) == pytest.approx(20)


def test_linear_probe_minimises_its_formula(monkeypatch):
  from sklearn import linear_model

  fitted = []

  class Spy(linear_model.LogisticRegression):
    def fit(self, x, y):
      fitted.append(self)
      return super().fit(x, y)

  monkeypatch.setattr(linear_model, 'LogisticRegression', Spy)
  x, y = blobs(0, spread=1.5)
  x = 3 * x + 1
  probes.linear_probe(x, y, x, y)
  weights, bias = fitted[0].coef_, fitted[0].intercept_
  scores = np.exp(x @ weights.T + bias)
  excess = scores / scores.sum(axis=1, keepdims=True) - np.eye(5)[y]
  # The gradient of ||W||^2 / 2 + 10 sum of cross entropies, in W and in b.
  assert np.abs(weights).max() > 0.5
  np.testing.assert_allclose(weights + 10 * excess.T @ x, 0, atol=0.05)
  np.testing.assert_allclose(10 * excess.sum(axis=0), 0, atol=0.05)


@pytest.mark.parametrize(
  'n, channels, classes, iterations',
  [
    (12763, 1280, 58, 5000),
    (5814, 768, 1938, 693),
    (10**5, 10**4, 10**4, 1),
  ],
)
def test_a_large_set_takes_fewer_iterations(
  monkeypatch, n, channels, classes, iterations
):
  from sklearn import linear_model

  asked = []

  class Idle(linear_model.LogisticRegression):
    def fit(self, x, y):
      asked.append(self.max_iter)
      self.n_iter_ = [0]
      self.coef_ = np.broadcast_to(np.float32(0), (classes, channels))
      self.intercept_ = np.zeros(classes)

  monkeypatch.setattr(linear_model, 'LogisticRegression', Idle)
  x = np.broadcast_to(np.float64(0), (n, channels))
  y = np.arange(n) % classes
  probes.fit_probe(x, y)
  assert asked == [iterations]


def test_an_unconverged_probe_is_announced_without_a_warning(monkeypatch):
  from sklearn import linear_model

  said = []
  monkeypatch.setattr(logging, 'warning', lambda *args: said.append(args))
  probes.linear_probe(*blobs(0), *blobs(1))
  assert not said

  class Hasty(linear_model.LogisticRegression):
    def __init__(self, **kwargs):
      super().__init__(**(kwargs | {'max_iter': 2}))

  monkeypatch.setattr(linear_model, 'LogisticRegression', Hasty)
  probes.linear_probe(*blobs(0), *blobs(1))
  assert len(said) == 1
  assert 'did not converge' in said[0][0]


@pytest.mark.parametrize('classes', [2, 5])
def test_a_fitted_probe_gives_the_probabilities_of_scikit_learn(classes):
  from scipy.special import softmax
  from sklearn.linear_model import LogisticRegression

  (x, y), (other, _) = (blobs(i, classes=classes, spread=1.5) for i in (0, 1))
  head = probes.fit_probe(x, y)
  assert head.kernel.dtype == head.bias.dtype == np.float32
  assert head.kernel.shape == (x.shape[1], classes)
  found = probes.logits(head, other)
  assert found.dtype == np.float64
  reference = LogisticRegression(C=10, max_iter=5000).fit(x.astype(float), y)
  np.testing.assert_allclose(
    softmax(found, axis=1), reference.predict_proba(other), atol=1e-5
  )


def test_heads_of_a_single_class_are_no_error():
  x = blobs(0)[0]
  for fit in (probes.fit_probe, probes.fit_prototypes):
    head = fit(x, np.zeros(len(x), int))
    assert probes.logits(head, x).shape == (len(x), 1)
    assert np.isfinite(head.kernel).all()


def left_out_cosines(x, y):
  """[(cosines with each prototype, own label)]: each without the row."""

  def unit(v):
    return v / max(math.sqrt(v @ v), 1e-300)

  found = []
  for i, label in enumerate(y):
    cosines = []
    for c in range(max(y) + 1):
      rows = [j for j in range(len(y)) if y[j] == c and j != i]
      total = sum((unit(x[j]) for j in rows), np.zeros(x.shape[1]))
      cosines.append(unit(x[i]) @ unit(total))
    if sum(y == label) > 1:
      found.append((np.array(cosines), label))
  return found


def surprise(cosines, s):
  """The mean cross-entropy of cosines times s."""
  return np.mean([math.log(sum(np.exp(s * c))) - s * c[y] for c, y in cosines])


def test_fitted_prototypes_minimise_the_surprise_of_the_rows_left_out():
  x, y = blobs(0, spread=1.5)
  x, y = x[:-5], y[:-5]  # The last class has one row, which does not count.
  assert sum(y == 4) == 1
  head = probes.fit_prototypes(x, y)
  s = np.linalg.norm(head.kernel, axis=0)
  np.testing.assert_allclose(s, s[0], rtol=1e-5)
  grid = np.geomspace(1, 300, 1001)
  cosines = left_out_cosines(x.astype(float), y)
  best = grid[np.argmin([surprise(cosines, g) for g in grid])]
  assert 1.5 < best < 200
  assert s[0] == pytest.approx(best, rel=6e-3)
  assert not head.bias.any()
  assert head.normalised
  for c in range(5):
    rows = [row / np.linalg.norm(row) for row in x[y == c].astype(float)]
    mean = sum(rows) / np.linalg.norm(sum(rows))
    np.testing.assert_allclose(head.kernel[:, c] / s[c], mean, atol=1e-6)


@pytest.mark.parametrize(
  'x, y',
  [
    (blobs(0)[0][::6], np.arange(5)),  # Each alone in its class.
    (np.eye(4)[[0, 0, 1, 1]], np.array([0, 0, 1, 1])),  # Far apart.
    (np.eye(4)[[0, 1, 0, 1]], np.array([0, 0, 1, 1])),  # Nearest to others.
  ],
)
def test_a_scale_that_nothing_fits_is_that_of_knn(x, y):
  head = probes.fit_prototypes(x, y)
  np.testing.assert_allclose(
    np.linalg.norm(head.kernel, axis=0), 1 / 0.07, rtol=1e-6
  )


def test_prototypes_look_at_directions_and_not_at_the_order_of_rows():
  x, y = blobs(0, spread=1.5)
  rng = np.random.default_rng(0)
  order = rng.permutation(len(x))
  scaled = x[order] * rng.uniform(0.1, 9, (len(x), 1))
  one, other = (
    probes.fit_prototypes(x, y),
    probes.fit_prototypes(scaled, y[order]),
  )
  np.testing.assert_allclose(one.kernel, other.kernel, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
    probes.logits(one, 4 * x), probes.logits(one, x), rtol=1e-6, atol=1e-9
  )


def test_one_row_of_many_a_class_is_enough():
  """A warning would fail this."""
  x = np.eye(30, dtype=np.float32)
  head = probes.fit_probe(x, np.arange(30))
  assert probes.logits(head, x).argmax(-1).tolist() == list(range(30))
