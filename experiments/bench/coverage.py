"""How often the intervals of a report hold what they claim, by simulation.

  python -m experiments.bench.coverage

draws finite pools of images whose true share of success under each of two arms
is known, splits each pool anew for each seed as `config.data.resplit` does
(train and test of a class change places by the toss of a coin), and counts how
often the 95 % interval of the difference of the arms holds its true mean over
all re-splits of that pool. Beside it stands what an interval holds whose seeds
all share one split. It takes some seconds.
"""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from experiments.report import intervals

SEEDS = (3, 5, 8, 16)


class Sizes(NamedTuple):
  """How large the effects on an image are, in units of a run's own noise.

  An image is right where the sum of normal effects and of a normal of deviation
  one, drawn for each image in each run, is above zero. With these the pools
  look like the lines of `components` on one split of grape58: 56 to 65 % are
  right; the same image under two seeds correlates 0.56 in one arm and 0.55 in
  two; the difference of two arms on one split deviates 4.4 points over seeds.
  What a split does they cannot tell; it is our choice.

  Attributes:
    classes: of them `larger` have three images a side, the others two.
    larger: classes of three.
    means: of the two arms.
    image: how hard an image is for both arms.
    arm: how hard it is for one arm more than for the other.
    half: what a class's train half does to its test half, for both arms.
    split: what a whole split does to an arm.
    run: what a run does to all its images.
  """

  classes: int = 58
  larger: int = 13
  means: tuple[float, float] = (0.66, 0.48)
  image: float = 1.8
  arm: float = 0.2
  half: float = 0.3
  split: float = 0.05
  run: float = 0.05


GRAPE58 = Sizes()


class Runs(NamedTuple):
  """What two arms make of P pools of 2 M images under n seeds.

  Attributes:
    right: bool [P, n, 2, M]: of each seed's test images.
    over_splits: [P], the true difference, its mean over all re-splits.
    on_split: [P], that on the split of the first seed.
  """

  right: np.ndarray
  over_splits: np.ndarray
  on_split: np.ndarray

  @property
  def differences(self) -> np.ndarray:
    """The difference of the arms under each seed, [P, n]."""
    return -np.diff(self.right.mean(-1), axis=-1)[..., 0]


def draw(
  pools: int, seeds: int, *, resplit: bool, sizes: Sizes, seed: int
) -> Runs:
  """Draws pools of images, and what seeds see of them.

  Args:
    pools: P.
    seeds: n of each pool.
    resplit: whether each seed has a split of its own; else all share one.
    sizes: of the effects.
    seed: of the draws.
  """
  rng = np.random.default_rng(seed)
  a_side = np.full(sizes.classes, 2)
  a_side[: sizes.larger] = 3
  # The class of each image of one side; the other side has as many of each.
  class_of = np.repeat(np.arange(sizes.classes), a_side)
  m, splits = len(class_of), seeds if resplit else 1
  halves = rng.normal(0, sizes.half, (pools, 2, 1, sizes.classes))
  mean = (
    np.array(sizes.means)[:, None]
    + rng.normal(0, sizes.image, (pools, 2, 1, m))
    + rng.normal(0, sizes.arm, (pools, 2, 2, m))
    + halves[..., class_of]
  )  # [P, side, arm, M]
  coins = rng.random((pools, splits, 1, sizes.classes)) < 0.5
  of_split = rng.normal(0, sizes.split, (pools, splits, 2, 1))
  tested = of_split + np.where(
    coins[..., class_of], mean[:, None, 0], mean[:, None, 1]
  )
  of_run = rng.normal(0, sizes.run, (pools, seeds, 2, 1))
  noise = rng.standard_normal((pools, seeds, 2, m))
  # P(x + noise > 0), the normal effects of a run and of a split averaged out.
  run = 1 + sizes.run**2
  over = ndtr(mean / np.sqrt(run + sizes.split**2)).mean((1, 3))
  on = ndtr(tested[:, 0] / np.sqrt(run)).mean(-1)
  return Runs(
    tested + of_run + noise > 0, over[:, 0] - over[:, 1], on[:, 0] - on[:, 1]
  )


def of_resplits(
  seeds: int, *, pools: int = 4000, sizes: Sizes = GRAPE58, seed: int = 0
) -> tuple[float, float]:
  """Returns how often the interval over re-splits holds their mean.

  Returns:
    The share of pools, and the mean half width in points.
  """
  runs = draw(pools, seeds, resplit=True, sizes=sizes, seed=seed)
  low, high = intervals.of_seeds(runs.differences)
  held = (low <= runs.over_splits) & (runs.over_splits <= high)
  return float(held.mean()), float(50 * (high - low).mean())


def of_one_split(
  seeds: int, *, pools: int = 400, sizes: Sizes = GRAPE58, seed: int = 0
) -> tuple[float, float, float]:
  """Returns how often the interval of one split holds two means.

  Returns:
    The share of pools in which it holds the mean over seeds on that split, the
    share in which it holds the mean over all re-splits, and the mean half width
    in points.
  """
  runs = draw(pools, seeds, resplit=False, sizes=sizes, seed=seed)
  found = [
    intervals.of_seeds_and_images(
      [right[:, 0]], [right[:, 1]], resamples=1000, seed=i
    )
    for i, right in enumerate(runs.right)
  ]
  low, high = np.transpose(found)
  on, over = (
    float(((low <= true) & (true <= high)).mean())
    for true in (runs.on_split, runs.over_splits)
  )
  return on, over, float(50 * (high - low).mean())


def main(argv: Sequence[str]) -> None:
  """Prints the table."""
  if argv:
    sys.exit(f'error: {argv[0]}: it takes no arguments.')
  print(
    '| seeds | over re-splits | ± points | one split: that split | re-splits '
    '| ± points |\n|---|---|---|---|---|---|'
  )
  for n in SEEDS:
    held, half = of_resplits(n)
    on, over, other = of_one_split(n)
    print(
      f'| {n} | {held:.1%} | {half:.1f} | {on:.1%} | {over:.1%} | {other:.1f} |'
    )


if __name__ == '__main__':
  main(sys.argv[1:])
