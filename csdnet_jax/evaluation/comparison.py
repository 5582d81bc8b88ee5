"""Which of several classifiers to take, and how well it will do.

All are judged on the same pictures, each picture by a model of a
cross-validation that has not seen it. Pictures of one unit (a plant, a
photograph) belong together: they are right or wrong together, and count for
less than as many pictures of their own.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from csdnet_jax.runtime.errors import capitalised

LEVEL = 0.95
# In order of simplicity; the first is a row to compare with, no candidate.
TITLES = {
  'knn': 'nearest neighbours of frozen features',
  'prototypes': 'class means of frozen features',
  'probe': 'a linear probe on frozen features',
  'cross_entropy': 'fine-tuning by cross-entropy',
  'csdnet': 'CSDNet',
}
FROZEN = ('prototypes', 'probe')

# The odds that a picture is named right grow as the pictures of its class to
# the power of 0.3 to 2, mostly about 1, in folders of real leaves under
# frozen features; the interval allows for this power.
_POWER = 2


class Accuracy(NamedTuple):
  """A share of pictures that are named right, in percent.

  Attributes:
    top1: as measured.
    low: the lower end of the interval.
    high: the upper end.
  """

  top1: float
  low: float
  high: float


class Difference(NamedTuple):
  """Of two shares of the same pictures, in points (percent of them).

  Attributes:
    points: the one minus the other.
    low: the lower end of the 95 % interval.
    high: the upper end.
    error: the standard error of `points`.
  """

  points: float
  low: float
  high: float
  error: float


def accuracy(right, units, growth: float = 1.0) -> Accuracy:
  """Returns the share that is right, and that to expect of the final model.

  The interval is of the share of new pictures of the same classes that the
  final model names right, which is trained on `growth` times as many pictures
  as those that were measured. Its lower end is that of Wilson's interval
  (1927) at 95 %, of as many independent pictures as have the variance that
  these have between units; at most the pictures, and the units where all are
  right or all are wrong. Its upper end is that of the same interval with its
  odds p / (1 - p) times `growth`^2: they grow about in proportion to the
  training pictures, and how much is not known of a folder. Our choice: of
  folders drawn from 99 species and 58 cultivars, with 2 to 8 pictures a class,
  Wilson's interval alone misses the held-out figure in 30 and 49 %, this one in
  12 and 5 % (experiments/bench/growth.py).

  Args:
    right: bool [n], n >= 1.
    units: integer [n]; pictures of one number belong together.
    growth: of `growth_of`; 1 where the model was measured that is used.

  Raises:
    ValueError: there are no pictures.

  >>> accuracy([True] * 8 + [False] * 2, range(10))
  Accuracy(top1=80.0, low=49.01..., high=94.33...)
  """
  from scipy import stats

  right, units = _checked(right, units)
  p, z = right.mean(), stats.norm.ppf((1 + LEVEL) / 2)
  n = _independent(right, units)
  middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
  half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
  # Rounding must not part an interval from its figure.
  low, high = max(min(middle - half, p), 0), min(max(middle + half, p), 1)
  high = high / (high + (1 - high) / growth**_POWER)
  return Accuracy(*(100 * float(x) for x in (p, low, high)))


def growth_of(labels, folds) -> float:
  """Returns how many more pictures the final model has than those of folds.

  The reciprocal of the mean over tested pictures of the share of their class's
  pictures that are not in their fold: 1.25 for five folds of equal classes.

  Args:
    labels: integer [n], of all pictures.
    folds: integer [n]; the pictures of fold f were judged by a model that was
      trained on all others; those of -1 were always trained on, never judged.

  Returns:
    1 or more; infinite where each class lies in one fold.

  >>> growth_of([0, 0, 1, 1], [0, 1, 0, 1])
  2.0
  """
  table = np.zeros((max(labels) + 1, max(folds) + 2))
  np.add.at(table, (np.asarray(labels), np.asarray(folds)), 1)
  # The last column is that of -1.
  tested = table[:, :-1]
  trained = table.sum(1, keepdims=True) - tested
  whole = np.maximum(table.sum(1, keepdims=True), 1)
  share = np.sum(tested * trained / whole) / tested.sum()
  return float(1 / share) if share else math.inf


def difference(right, other, units) -> Difference:
  """Returns how many more pictures the one names right than the other.

  The standard error is that of a mean of clusters, the units (Liang and Zeger,
  1986, with the factor G / (G - 1) of G units); infinite for one unit. The
  interval is that of Bonett and Price (2012) for paired shares, normal after
  two more units, one in favour of each, so that equal answers on few pictures
  do not pass for certainty.

  Args:
    right: bool [n], n >= 1, of the one.
    other: bool [n], of the other on the same pictures.
    units: integer [n]; pictures of one number belong together.

  Raises:
    ValueError: there are no pictures.
  """
  from scipy import stats

  right, units = _checked(right, units)
  gains = right - np.asarray(other, np.float64)
  sums, sizes = _by_unit(gains, units)
  size = sizes.mean()
  more = np.append(sums, (size, -size)), np.append(sizes, (size, size))
  points, error = gains.mean(), _error(sums, sizes)
  middle = more[0].sum() / more[1].sum()
  half = stats.norm.ppf((1 + LEVEL) / 2) * _error(*more)
  low, high = max(middle - half, -1), min(middle + half, 1)
  low, high = min(low, points), max(high, points)
  return Difference(*(100 * float(x) for x in (points, low, high, error)))


def choose(figures: Mapping[str, float]) -> str:
  """Returns the best; of equals the one that learns more.

  It gains more from the pictures that the final model has beside those of the
  folds. Our choice: the rule of one standard error, which takes the simplest of
  those near the best, is too careful with a few dozen pictures
  (docs/evidence.md).

  Args:
    figures: top-1 of each candidate, one or more, on the same pictures, in
      order of simplicity.

  >>> choose({'prototypes': 50.0, 'probe': 70.0, 'cross_entropy': 70.0})
  'cross_entropy'
  """
  return max(reversed(figures), key=figures.__getitem__)


def of_share(percent: float, n: int) -> Accuracy:
  """Returns `accuracy` where which of n pictures are right is not known.

  Each picture then stands for itself.

  Args:
    percent: of the pictures, that are right.
    n: pictures, 1 or more.

  >>> of_share(80.0, 10) == accuracy([True] * 8 + [False] * 2, range(10))
  True
  """
  each = np.arange(n)
  return accuracy(each < round(percent * n / 100), each)


def chance(labels) -> float:
  """Returns the percent that always naming the most frequent class gets right.

  >>> chance([0, 2, 2, 1])
  50.0

  Args:
    labels: integer [n], n >= 1.
  """
  return 100 * float(np.bincount(labels).max()) / len(labels)


def undecided(found: Accuracy, chance: float) -> bool:
  """Returns whether guessing, percent, may be as good as what was found.

  One that is worse than always naming the most frequent class may still tell
  the classes apart, so that nothing is known of it either.

  >>> undecided(Accuracy(50.0, 30.0, 70.0), 33.3)
  True
  """
  return found.low <= chance


def sentence(
  rights: Mapping[str, np.ndarray], units, chosen: str, found: Accuracy,
  chance: float,
) -> str:  # fmt: skip
  """Returns the verdict in words.

  Args:
    rights: bool [n] of each candidate, by its name of `TITLES`, on the same
      pictures.
    units: integer [n]; pictures of one number belong together.
    chosen: of `choose`.
    found: of the chosen one.
    chance: percent that always naming the most frequent class names right.
  """
  title = TITLES[chosen]
  if undecided(found, chance):
    kept = 'are' if chosen == 'prototypes' else 'is'
    return (
      'It cannot be said yet whether these classes can be told apart: '
      f'{found.top1:.1f} % are named right ({found.low:.1f} to '
      f'{found.high:.1f}), and always naming the most frequent class '
      f'{chance:.1f} %; {title} {kept} kept.'
    )
  if chosen in FROZEN:
    own = {
      'prototypes': 'their class means are',
      'probe': 'a linear probe on them is',
    }[chosen]
    if all(name in FROZEN for name in rights):
      return f'Only frozen features were tried: {own} chosen.'
    return f'Nothing beats the frozen features here: {own} chosen.'
  # The others that are worth a word, and what they are called.
  frozen = [name for name in rights if name in FROZEN]
  others = {}
  if frozen:
    best = max(frozen, key=lambda name: np.mean(rights[name]))
    others[best] = 'frozen features'
  if chosen == 'csdnet' and 'cross_entropy' in rights:
    others['cross_entropy'] = TITLES['cross_entropy']
  gains = []
  for name, called in others.items():
    gain = difference(rights[chosen], rights[name], units)
    unit = ' points' * (not gains)
    gains.append(
      f'{gain.points:.1f}{unit} ({gain.low:.1f} to {gain.high:.1f}) over '
      f'{called}'
    )
  begun = capitalised(title)
  if not gains:
    return f'{begun} is chosen.'
  return f'{begun} gains {" and ".join(gains)}; {title} is chosen.'


def _checked(values, units) -> tuple[np.ndarray, np.ndarray]:
  """Figures of pictures, float64 [n], and their units as 0 to G - 1."""
  values = np.asarray(values, np.float64)
  if not len(values):
    raise ValueError('there are no pictures to compare by')
  _, units = np.unique(np.asarray(units), return_inverse=True)
  return values, units


def _independent(right: np.ndarray, units: np.ndarray) -> float:
  """How many independent pictures vary as much as these do by unit."""
  p, (sums, sizes) = right.mean(), _by_unit(right, units)
  if p in (0, 1) or len(sizes) == 1:
    return len(sizes)
  spread = np.sum((sums - p * sizes) ** 2)
  most = len(right)
  return min(most, p * (1 - p) * most**2 / spread) if spread else most


def _by_unit(values, units) -> tuple[np.ndarray, np.ndarray]:
  return np.bincount(units, weights=values), np.bincount(units)


def _error(sums: np.ndarray, sizes: np.ndarray) -> float:
  """The standard error of a mean of clusters, by their sums and sizes."""
  n, total = len(sizes), sizes.sum()
  if n == 1:
    return math.inf
  spread = np.sum((sums - sizes * sums.sum() / total) ** 2)
  return math.sqrt(n / (n - 1) * spread) / total
