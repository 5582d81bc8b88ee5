"""The temperature: found where it is known, absent where there is none."""

import numpy as np
import pytest

from csdnet_jax.evaluation import calibration


def _drawn(temperature, n=20_000, classes=5):
  """Logits, and labels drawn from softmax(logits / temperature)."""
  rng = np.random.default_rng(0)
  logits = 3.0 * rng.normal(size=(n, classes))
  p = calibration.softmax(logits, temperature)
  labels = (p.cumsum(1) < rng.random((n, 1)) * p.sum(1, keepdims=True)).sum(1)
  return logits, labels


@pytest.mark.parametrize('temperature', [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
  found = calibration.fit_temperature(*_drawn(temperature))
  assert found == pytest.approx(temperature, rel=0.05)


def test_no_other_temperature_is_likelier():
  logits, labels = _drawn(2.0, n=50)
  t = calibration.fit_temperature(logits, labels)
  least = calibration.nll(logits, labels, t)
  for other in np.geomspace(0.01, 100, 500):
    assert calibration.nll(logits, labels, other) >= least - 1e-9


def test_labels_that_are_all_right_have_no_temperature():
  logits = np.eye(3) * 4
  assert calibration.fit_temperature(logits, np.arange(3)) is None


def test_worse_than_chance_is_as_even_as_it_gets():
  logits = np.eye(3) * 4
  t = calibration.fit_temperature(logits, np.array([1, 2, 0]))
  assert t == pytest.approx(100, rel=1e-3)


def test_large_logits_do_not_overflow():
  p = calibration.softmax(np.array([[1e4, 0.0], [-1e4, -1e4]]), 0.01)
  assert p.dtype == np.float32
  np.testing.assert_allclose(p, [[1, 0], [0.5, 0.5]])
  logits = np.array([[1e4, 0.0]])
  assert calibration.nll(logits, np.array([1]), 1.0) == pytest.approx(1e4)


def test_a_bound_that_was_hit_is_said():
  # The more certain, the more wrong; and right but for one, by a hair.
  wrong = calibration.fit(5 * np.eye(3), np.array([1, 2, 0]), step=4)
  assert wrong.temperature == pytest.approx(100, rel=1e-2)
  assert 'It is at its bound, 100' in wrong.how and wrong.step == 4
  near = np.array([[1e-4, 0.0]] * 50 + [[1e-5, 0.0]])
  sure = calibration.fit(near, np.array([0] * 50 + [1]), step=4)
  assert sure.temperature == pytest.approx(0.01, rel=1e-2)
  assert 'It is at its bound, 0.01' in sure.how
  fitted = calibration.fit(*_drawn(2.0), step=4)
  assert 'bound' not in fitted.how and 'negative log-likelihood' in fitted.how


def test_it_is_kept_and_read_again(tmp_path):
  assert calibration.read(tmp_path) is None
  made = calibration.fit(*_drawn(2.0), step=4)
  calibration.write(tmp_path, made)
  assert calibration.read(tmp_path) == made


def test_reliability_is_that_of_a_loop_over_bins():
  logits, labels = _drawn(2.0, n=500)
  p = calibration.softmax(logits, 1.0)
  found = calibration.reliability(p, labels)
  error = 0.0
  for i in range(10):
    rows = [
      j for j in range(500) if i / 10 < p[j].max() <= (i + 1) / 10
    ]  # fmt: skip
    assert found.counts[i] == len(rows)
    if not rows:
      assert np.isnan(found.right[i])
      continue
    right = np.mean([p[j].argmax() == labels[j] for j in rows])
    sure = np.mean([p[j].max() for j in rows])
    assert found.right[i] == pytest.approx(right)
    assert found.confidence[i] == pytest.approx(sure, rel=1e-6)
    error += len(rows) / 500 * abs(right - sure)
  assert found.error == pytest.approx(error, rel=1e-6)
  scaled = calibration.reliability(calibration.softmax(logits, 2.0), labels)
  assert scaled.error < found.error


def test_reliability_of_certain_undecided_and_no_images():
  p = np.array([[1.0, 0.0], [np.nan, 0.0]], np.float32)
  found = calibration.reliability(p, np.array([0, 0]))
  assert found.counts.tolist() == [0] * 9 + [1] and found.error == 0
  assert np.isnan(calibration.reliability(p[:0], np.zeros(0, int)).error)
