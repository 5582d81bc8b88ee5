"""Intervals hold what they claim as often as they say."""

import numpy as np
import pytest

from experiments.bench import coverage
from experiments.bench.coverage import GRAPE58


@pytest.mark.parametrize('seeds', coverage.SEEDS)
def test_the_interval_over_re_splits_covers(seeds):
  held, _ = coverage.of_resplits(seeds, pools=2000)
  assert 0.93 < held < 0.97


def test_the_interval_of_one_split_covers_that_split():
  on, over, _ = coverage.of_one_split(5, pools=100)
  assert on > 0.93 and over <= on


def test_true_differences_are_the_means_of_many_seeds():
  """Of 3000 seeds the mean deviates 0.08 points."""
  runs = coverage.draw(3, 3000, resplit=True, sizes=GRAPE58, seed=0)
  found = runs.differences.mean(1)
  np.testing.assert_allclose(found, runs.over_splits, atol=0.003)
  runs = coverage.draw(3, 3000, resplit=False, sizes=GRAPE58, seed=0)
  found = runs.differences.mean(1)
  np.testing.assert_allclose(found, runs.on_split, atol=0.003)


def test_the_pools_look_like_the_lines_they_are_taken_from():
  runs = coverage.draw(200, 4, resplit=False, sizes=GRAPE58, seed=0)
  assert runs.right.shape == (200, 4, 2, 129)
  deviation = np.sqrt(runs.differences.var(1, ddof=1).mean())
  assert deviation == pytest.approx(0.044, abs=0.003)
  pairs = zip(runs.right[:, 0, 0], runs.right[:, 1, 0], strict=True)
  alike = np.mean([np.corrcoef(*pair)[0, 1] for pair in pairs])
  assert alike == pytest.approx(0.56, abs=0.02)
