"""Intervals of a figure over seeds, and of the difference of two arms.

Where each seed has a split of its own, what images and training sets do to a
figure is in the seeds' figures already, and, given the images that are split,
seeds are independent: how far their test images overlap is no matter. A t
interval over seeds then covers the mean over all re-splits of these images;
`experiments.bench.coverage` shows it.

Where all seeds share one split, their figures say nothing of other images. The
images of that split are drawn with replacement as well as the seeds (a paired
bootstrap; Efron, 1979), the same draw for the two arms that are compared, which
cancels how hard the drawn images are.

One seed says nothing of others: it has no interval.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats


def of_seeds(
  values: npt.ArrayLike, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
  """Returns Student's t interval of the mean over seeds.

  Args:
    values: [..., n] of n >= 2 seeds: figures, or differences of two arms under
      the same seeds.
    level: of the interval, in (0, 1).

  Returns:
    The lower and the upper ends [...], in the unit of the values.

  Raises:
    ValueError: for one seed.

  >>> low, high = of_seeds([1.0, 2.0, 3.0])
  >>> f'{low:.3f} {high:.3f}'
  '-0.484 4.484'
  """
  values = np.asarray(values, np.float64)
  n = values.shape[-1]
  _require_seeds(n)
  mean = values.mean(-1)
  error = values.std(-1, ddof=1) / np.sqrt(n)
  half = stats.t.ppf((1 + level) / 2, n - 1) * error
  return mean - half, mean + half


def of_seeds_and_images(
  parts: Sequence[np.ndarray],
  others: Sequence[np.ndarray] | None = None,
  *,
  figure: Callable[[np.ndarray, int], np.ndarray] = lambda sums, n: sums / n,
  resamples: int = 2000,
  level: float = 0.95,
  seed: int = 0,
) -> tuple[float, float]:
  """Returns a bootstrap's percentile interval, of seeds that share one split.

  The figure is that of each seed's images together, averaged over seeds and
  over parts. Seeds are drawn together for all parts.

  The mean of n seeds that are drawn with replacement varies by only (n - 1) / n
  of the variance that the mean of n seeds has. So what the drawn seeds deviate
  from all of them is taken times sqrt(n / (n - 1)).

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
  _require_seeds(n)
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


def _require_seeds(n: int) -> None:
  if n < 2:
    raise ValueError('one seed has no interval over seeds')


def _times(rng, resamples: int, n: int) -> np.ndarray:
  """How often each of n is drawn in n draws, float64 [resamples, n]."""
  drawn = rng.integers(0, n, (resamples, n)) + n * np.arange(resamples)[:, None]
  return (
    np.bincount(drawn.ravel(), minlength=resamples * n)
    .reshape(resamples, n)
    .astype(np.float64)
  )
