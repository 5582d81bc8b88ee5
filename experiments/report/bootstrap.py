"""Intervals over seeds and images: a paired bootstrap (Efron, 1979).

An arm is measured by what it makes of each test image under each seed. Both are
samples: another seed would train another network, other images would be as good
a test. So both are drawn with replacement, the same draw for the two arms that
are compared, which cancels how hard the drawn images are.

The mean of n seeds that are drawn with replacement varies by only (n - 1) / n
of the variance that the mean of n seeds has. So what the drawn seeds deviate
from all of them is taken times sqrt(n / (n - 1)). One seed says nothing of
others: it has no interval.
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
      of equally many seeds, two or more.
    others: of another arm under the same seeds on the same images: the interval
      is that of `parts` minus `others`.
    figure: `(sums over n images [..., seeds, ...], n) -> [..., seeds]`; the
      mean.
    resamples: how many are drawn.
    level: of the interval, in (0, 1).
    seed: of the draws.

  Returns:
    The lower and the upper end, in the unit of the figure.

  Raises:
    ValueError: for one seed.
  """
  rng = np.random.default_rng(seed)
  n = len(parts[0])
  if n < 2:
    raise ValueError('one seed has no interval over seeds')
  drawn = _times(rng, resamples, n) / n
  # Of all seeds' mean, and what the drawn ones deviate from it.
  weights = 1 / n + np.sqrt(n / (n - 1)) * (drawn - 1 / n)
  found = np.zeros(resamples)
  for i, part in enumerate(parts):
    images = part.shape[1]
    times = _times(rng, resamples, images)
    for sign, arm in ((1, part), (-1, others[i] if others else None)):
      if arm is not None:
        sums = np.tensordot(times, np.asarray(arm, np.float64), axes=(1, 1))
        found += sign * np.sum(weights * figure(sums, images), axis=1)
  tail = 50 * (1 - level)
  low, high = np.percentile(found / len(parts), (tail, 100 - tail))
  return float(low), float(high)


def _times(rng, resamples: int, n: int) -> np.ndarray:
  """How often each of n is drawn in n draws, float64 [resamples, n]."""
  drawn = rng.integers(0, n, (resamples, n)) + n * np.arange(resamples)[:, None]
  return (
    np.bincount(drawn.ravel(), minlength=resamples * n)
    .reshape(resamples, n)
    .astype(np.float64)
  )
