"""Intervals over seeds and images: a paired bootstrap (Efron, 1979).

An arm is measured by whether each test image is right under each seed. Both are
samples: another seed would train another network, other images would be as good
a test. So both are drawn with replacement, the same draw for the two arms that
are compared, which cancels how hard the drawn images are.

With few seeds such an interval is too narrow: n seeds, drawn with replacement,
vary by a share (n - 1) / n of their variance.
"""

from collections.abc import Sequence

import numpy as np


def interval(
  parts: Sequence[np.ndarray],
  *,
  resamples: int = 2000,
  level: float = 0.95,
  seed: int = 0,
) -> tuple[float, float]:
  """Returns the percentile interval of the mean over parts of their means.

  Args:
    parts: [seeds, images] floating, one for each test set (a stage of
      SoyAgeing), of equally many seeds; the difference of two arms for a
      paired interval. Seeds are drawn together for all parts.
    resamples: how many means are drawn.
    level: of the interval, in (0, 1).
    seed: of the draws.

  Returns:
    The lower and the upper end, in the unit of the parts.
  """
  rng = np.random.default_rng(seed)
  parts = [np.asarray(part, np.float64) for part in parts]
  n = parts[0].shape[0]
  rows = rng.integers(0, n, (resamples, n))
  means = np.zeros(resamples)
  for part in parts:
    for i, drawn in enumerate(rows):
      columns = rng.integers(0, part.shape[1], part.shape[1])
      means[i] += part[drawn].mean(0)[columns].mean()
  tail = 50 * (1 - level)
  low, high = np.percentile(means / len(parts), (tail, 100 - tail))
  return float(low), float(high)
