"""Intervals over seeds and images: a paired bootstrap (Efron, 1979).

An arm is measured by what it makes of each test image under each seed. Both are
samples: another seed would train another network, other images would be as good
a test. So both are drawn with replacement, the same draw for the two arms that
are compared, which cancels how hard the drawn images are.

With few seeds such an interval is too narrow: n seeds, drawn with replacement,
vary by a share (n - 1) / n of their variance.
"""

from collections.abc import Callable, Sequence

import numpy as np


def interval(
  parts: Sequence[np.ndarray],
  others: Sequence[np.ndarray] | None = None,
  *,
  figure: Callable[[np.ndarray, int], np.ndarray] = lambda sums, n: sums / n,
  resamples: int = 2000,
  level: float = 0.95,
  seed: int = 0,
) -> tuple[float, float]:
  """Returns the percentile interval of a figure, or of a difference of two.

  The figure is that of each seed's images together, averaged over seeds and
  over parts. Seeds are drawn together for all parts.

  Args:
    parts: [seeds, images, ...], one for each test set (a stage of SoyAgeing),
      of equally many seeds.
    others: of another arm under the same seeds on the same images: the interval
      is that of `parts` minus `others`.
    figure: `(sums over n images [seeds, ...], n) -> [seeds]`; the mean.
    resamples: how many are drawn.
    level: of the interval, in (0, 1).
    seed: of the draws.

  Returns:
    The lower and the upper end, in the unit of the figure.
  """
  rng = np.random.default_rng(seed)
  arms = [[np.asarray(x, np.float64) for x in parts]]
  if others is not None:
    arms.append([np.asarray(x, np.float64) for x in others])
  n = arms[0][0].shape[0]
  rows = rng.integers(0, n, (resamples, n))
  found = np.zeros(resamples)
  for same in zip(*arms, strict=True):
    images = same[0].shape[1]
    for i, drawn in enumerate(rows):
      times = np.bincount(rng.integers(0, images, images), minlength=images)
      # Each seed that was drawn, once.
      which, often = np.unique(drawn, return_counts=True)
      for sign, x in zip((1, -1), same, strict=False):
        sums = np.tensordot(x[which], times, axes=(1, 0))
        found[i] += sign * np.average(figure(sums, images), weights=often)
  tail = 50 * (1 - level)
  low, high = np.percentile(found / len(parts), (tail, 100 - tail))
  return float(low), float(high)
