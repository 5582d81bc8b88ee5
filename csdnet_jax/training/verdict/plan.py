"""What a verdict will do, decided before anything long and kept in plan.json.

The folds, the candidates that fit the minutes, their steps and the size of the
images: a command that was killed goes on with the same plan, and its verdict is
the same.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from csdnet_jax.config import differences, from_json
from csdnet_jax.data.images import draw, fingerprints, folds, saved, splits
from csdnet_jax.data.images.dividing import prints_of
from csdnet_jax.evaluation.comparison import TITLES
from csdnet_jax.runtime import paths, writers
from csdnet_jax.runtime.errors import UserError, capitalised
from csdnet_jax.runtime.terminal import duration, say

FILE = 'plan.json'

# Those that are trained, in order of simplicity.
TUNED = ('cross_entropy', 'csdnet')
# Images that a step forwards for each image of its batch.
_VIEWS = {'cross_entropy': 1, 'csdnet': 2}

# What a training image costs in forward passes, and the seconds that it takes
# to compile a program. Rounded up from 4.7 and 27 s, of EfficientNet-Lite0 at
# 128 px on two CPU cores.
_PASSES = 5.0
_COMPILING = 40.0
# Seconds for pictures, predictions and the page at the end; our guess.
_ENDING = 30.0


class Level(NamedTuple):
  """How thorough a training is.

  Attributes:
    size: pixels a side that the network sees.
    epochs: over the training images.
    least: steps; small folders get so many, whatever their epochs.
  """

  size: int
  epochs: int
  least: int


# From the most thorough on: the first that fits the minutes is taken. Leaves
# are told apart by detail, so that pixels come first. Our choice; fewer than
# 200 steps are too few for small folders (docs/evidence.md).
LEVELS = Level(224, 30, 400), Level(160, 30, 400), Level(128, 20, 200)
_MOST_STEPS = 4000


class Plan(NamedTuple):
  """What was decided.

  Attributes:
    config: of all candidates, as given.
    minutes: that it was to take.
    dataset: what is dealt over the folds is its train part.
    folds: int32 [n], see `folds.deal`.
    units: int32 [n]; images of one number belong together.
    level: of all candidates.
    batch: images a step.
    tuned: the candidates that are trained, of `TUNED`.
    seconds: {what: how long it was thought to take}.
    left_out: what does not fit the minutes, in sentences.
  """

  config: ml_collections.ConfigDict
  minutes: float
  dataset: splits.Dataset
  folds: np.ndarray
  units: np.ndarray
  level: Level
  batch: int
  tuned: tuple[str, ...]
  seconds: dict[str, float]
  left_out: tuple[str, ...]

  @property
  def k(self) -> int:
    """How many folds there are."""
    return int(self.folds.max()) + 1

  def part(self, k: int) -> splits.Dataset:
    """The data set of fold k."""
    return folds.parts(self.dataset, self.folds, k)

  def steps(self, n_train: int) -> int:
    """Steps of a training on so many images."""
    return _steps(self.level, self.batch, n_train)

  @property
  def untested(self) -> list[str]:
    """The classes of which no image is ever tested."""
    labels = self.dataset.train.labels
    tested = np.unique(labels[self.folds >= 0])
    return [
      name
      for label, name in enumerate(self.dataset.class_names)
      if label not in tested
    ]


def _steps(level: Level, batch: int, n_train: int) -> int:
  wanted = max(level.least, round(level.epochs * n_train / batch))
  return min(wanted, _MOST_STEPS)


def whole(dataset: splits.Dataset) -> splits.Dataset:
  """Joins the validation part to the train part; a test part stays apart."""
  if dataset.val is None:
    return dataset
  both = [
    (part, i)
    for part in (dataset.train, dataset.val)
    for i in range(len(part.names))
  ]
  return dataset._replace(train=splits.gather(both), val=None)


def levels(
  config: ml_collections.ConfigDict,
  dataset: splits.Dataset,
  given: Sequence[str],
) -> list[Level]:
  """Returns the levels that a config and its images leave open.

  Small pictures are not enlarged: the size is at most the median of their
  longer sides, in steps of 32 pixels, which all networks take.

  Args:
    config: of the candidates.
    dataset: with its fingerprints.
    given: the fields that the user has set, by name.
  """
  if {'model.size', 'model.name'} & set(given):
    return [level._replace(size=config.model.size) for level in LEVELS]
  longer = np.median(prints_of(dataset, config.data)['size'].max(1))
  most = max(int(longer) // 32 * 32, 32)
  return [level._replace(size=min(level.size, most)) for level in LEVELS]


def deal(
  config: ml_collections.ConfigDict, dataset: splits.Dataset
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the fold and the unit of each image, int32 [n].

  Args:
    config: of the candidates.
    dataset: of `whole`.

  Raises:
    UserError: as `folds.deal`.
  """
  names = splits.whole(dataset).names
  equal = fingerprints.equal(prints_of(dataset, config.data)).tolist()
  units = draw.units_of(
    dataset.train.names, dataset.groups, dict(zip(names, equal, strict=True))
  )
  dealt = folds.deal(dataset, units, config.seed)
  return dealt, units.astype(np.int32)


def make(
  config: ml_collections.ConfigDict,
  dataset: splits.Dataset,
  dealt: tuple[np.ndarray, np.ndarray],
  *,
  minutes: float,
  rate: float,
  open_levels: Sequence[Level],
) -> Plan:
  """Decides what fits the minutes.

  Args:
    config: of the candidates.
    dataset: of `whole`.
    dealt: of `deal`.
    minutes: that all may take.
    rate: images x pixels a second, forward alone.
    open_levels: to choose from, the most thorough first.
  """
  of_image, units = dealt
  k, n = int(of_image.max()) + 1, len(of_image)
  trained = [int((of_image != i).sum()) for i in range(k)]
  batch = min(config.batch_size, *trained)

  def seconds(level: Level, tuned: Sequence[str]) -> dict[str, float]:
    second = rate / level.size**2
    found, final = {'frozen features': n / second}, 0.0
    for name in tuned:
      passes = _PASSES * _VIEWS[name] * batch / second
      steps = _steps(level, batch, min(trained))
      fold = passes * steps + _COMPILING / k
      found[name] = k * fold
      # Who will be chosen is not known yet: that of the last, slowest counts.
      final = passes * _steps(level, batch, n) + _COMPILING
      found['unknown classes'] = fold + _COMPILING
    # Forwards all images twice: for its head or figures, and for what it keeps.
    return found | {'final model': final + 2 * n / second + _ENDING}

  left_out = []
  for count in range(len(TUNED), -1, -1):
    tuned = TUNED[:count]
    for level in open_levels:
      taken = seconds(level, tuned)
      if sum(taken.values()) <= 60 * minutes or not tuned:
        return Plan(
          config, minutes, dataset, of_image, units, level, batch, tuned,
          taken, tuple(left_out),
        )  # fmt: skip
    needed = sum(taken.values())
    left_out.append(
      f'{capitalised(TITLES[tuned[-1]])} is left out: with it this would take '
      f'{duration(needed)}; --minutes={-(-needed // 60):.0f} in another '
      '--workdir tries it.'
    )
  raise AssertionError('frozen features always fit')


def describe(plan: Plan) -> list[str]:
  """Returns the plan in lines, with times, for people."""
  k, s = plan.k, plan.seconds
  each = [f'frozen features {duration(s["frozen features"] / k)}']
  each += [f'{TITLES[name]} {duration(s[name] / k)}' for name in plan.tuned]
  after = []
  if 'unknown classes' in s:
    after.append(f'unknown classes {duration(s["unknown classes"])}')
  after.append(f'final model {duration(s["final model"])}')
  n, tested = len(plan.folds), int((plan.folds >= 0).sum())
  lines = [
    f'Plan: {k} folds x ({", ".join(each)}), {", ".join(after)}: about '
    f'{duration(sum(s.values()))}.',
    f'{tested} of {n} images are each tested once, by a network that has not '
    f'seen them, at {plan.level.size} px.',
  ]
  if plan.untested:
    lines.append(
      'Trained on but never tested, since all their images belong together: '
      f'{", ".join(plan.untested)}.'
    )
  return [*lines, *plan.left_out]


def write(path: paths.Path, plan: Plan) -> None:
  """Keeps a plan."""
  names = plan.dataset.train.names
  value = {
    'config': plan.config.to_dict(),
    'minutes': plan.minutes,
    'split': saved.split_to_json(plan.dataset),
    'folds': dict(zip(names, plan.folds.tolist(), strict=True)),
    'units': dict(zip(names, plan.units.tolist(), strict=True)),
    'level': plan.level._asdict(),
    'batch': plan.batch,
    'tuned': plan.tuned,
    'seconds': plan.seconds,
    'left_out': plan.left_out,
  }
  writers.write_json(path, value)


def read(path: paths.Path) -> dict[str, Any] | None:
  """Returns what `write` wrote as plain data; None if there is none.

  Raises:
    UserError: if the file cannot be read.
  """
  try:
    return writers.read_json(path)
  except (OSError, ValueError) as error:
    raise UserError(
      f'{path} cannot be read ({error}); choose another --workdir.'
    ) from error


def require_same(
  kept: dict[str, Any],
  config: ml_collections.ConfigDict,
  minutes: float,
  workdir: paths.Path,
) -> None:
  """Refuses to go on with another config; says if the minutes are others.

  Args:
    kept: of `read`.
    config: as given now.
    minutes: as given now; those of the plan stay.
    workdir: for the sentences.

  Raises:
    UserError: if the config is another.
  """
  changed = differences(from_json(json.dumps(kept['config'])), config)
  if changed:
    raise UserError(
      f'{workdir} holds the verdict of another config ({"; ".join(changed)}); '
      'choose another --workdir, or go back to those values.'
    )
  if minutes != kept['minutes']:
    say(
      f'The plan of {workdir} was made for {kept["minutes"]:g} minutes and is '
      'kept; another --workdir gets another plan.'
    )


def again(
  kept: dict[str, Any],
  config: ml_collections.ConfigDict,
  dataset: splits.Dataset,
) -> Plan:
  """Returns the plan that was kept.

  Args:
    kept: of `read`.
    config: as given now.
    dataset: regrouped by its `split`, so that its images are in the order of
      then.
  """
  dealt = (
    np.array(list(kept[name].values()), np.int32) for name in ('folds', 'units')
  )
  return Plan(
    config, kept['minutes'], dataset, *dealt,
    Level(**kept['level']), kept['batch'], tuple(kept['tuned']),
    kept['seconds'], tuple(kept['left_out']),
  )  # fmt: skip
