"""Lines of results as tables: what is averaged, compared, and refused.

Runs are averaged only if nothing differs between them but the seed, with what
the seed draws, and compared only if nothing but what the grid sets. Arms are
paired within a seed: there they have the same split and the same test images;
over seeds these may differ.
"""

import collections
import itertools
import json
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from csdnet_jax.runtime.errors import UserError
from experiments import results
from experiments.report import intervals

SPLIT = 'data.split_seed'  # What a seed may set, so that it draws its split.


class Arm(NamedTuple):
  """An arm over its seeds, in percent.

  Attributes:
    name: in words.
    seeds: the figure of each seed, over all stages where the set has several.
    splits: how many different ones these seeds have.
    mean, sd: of the seeds; sd is None for one.
    spread: the 95 % interval of the mean, or None for one seed, or for one
      split without predictions.
    diff: the difference from the baseline over the `shared` seeds that both
      have, or None for the baseline.
    low, high: the 95 % interval of `diff`, or None as of `spread`.
    shared: the number of those seeds.
    rows: the lines of its runs.
  """

  name: str
  seeds: dict[int, float]
  splits: int
  mean: float
  sd: float | None
  spread: tuple[float, float] | None
  diff: float | None
  low: float | None
  high: float | None
  shared: int
  rows: list[dict]

  @property
  def ends(self) -> tuple[float, float] | None:
    """The 95 % interval of `diff`, or None."""
    return None if self.low is None else (self.low, self.high)

  @property
  def visible(self) -> float | None:
    """Half the width of `ends`: what is smaller is not clear of zero.

    None without `ends`, or where it is a point, as for an arm of equal runs.
    """
    return None if self.low == self.high else (self.high - self.low) / 2


class Table(NamedTuple):
  """The arms of a grid on one data set.

  Attributes:
    grid: its name.
    set: its name, with the images a class where they were limited, and whether
      it was split anew.
    classes: '' for all, or how many were judged, those of which the split cuts
      no group.
    part: 'test' or 'val'.
    figure: what the arms are measured by, 'top-1' or 'mIoU'.
    images: the fewest and the most that a seed is judged on, over all stages.
    stages: how many sets each figure is the mean of.
    baseline: the arm that the others are compared with.
    arms: in the order of the files.
    unfinished: arms without a seed that has all stages.
  """

  grid: str
  set: str
  classes: str
  part: str
  figure: str
  images: tuple[int, int]
  stages: int
  baseline: str
  arms: list[Arm]
  unfinished: list[str]


def tables(
  rows: list[dict], *, baseline: str = '', part: str = ''
) -> list[Table]:
  """Returns a table for each grid and data set.

  After it one of the classes without a group in train and in the part that is
  judged, where the lines know groups and some class has one.

  Args:
    rows: of `results.read`.
    baseline: an arm; '' for the one that the grid names.
    part: 'test', or 'val' for the validation part of train; '' for the one
      that the grid names.

  Raises:
    UserError: if what would be averaged or compared is not the same but for
      the seed or what the grid sets.
  """
  if not rows:
    raise UserError('The files hold no results yet; run a grid first.')
  # A line that was added later replaces the one before.
  latest = {
    (row['grid'], _set(row), row['set'], row['arm'], row['seed']): row
    for row in rows
  }
  sets = collections.defaultdict(list)
  for row in latest.values():
    sets[row['grid'], _set(row)].append(row)
  made = []
  for (grid, name), own in sets.items():
    judged = part or own[0]['part']
    made.append(_table(grid, name, own, baseline, judged, whole=True))
    if _has_cut(own, judged):
      name += ', no group cut'
      made.append(_table(grid, name, own, baseline, judged, whole=False))
  return made


def _set(row: dict) -> str:
  """The set that a figure is for: the stages of SoyAgeing are one."""
  shots = row['config'].get('data.shots')
  words = [row['set'].partition('/')[0]]
  words += [f'{shots} a class'] if shots else []
  words += ['split anew'] if row['config'].get('data.resplit') else []
  return ', '.join(words)


def _has_cut(rows, part) -> bool:
  """Whether some image is of a cut class, and each row has others as well."""
  if not all('uncut' in row.get(part, {}) for row in rows):
    return False
  uncut = [results.bits(row[part], 'uncut') for row in rows]
  return all(x.any() for x in uncut) and not all(x.all() for x in uncut)


def _table(grid, name, rows, baseline, part, *, whole) -> Table:
  check(name, rows)
  baseline = baseline or rows[0]['baseline']
  grouped = collections.defaultdict(list)
  for row in rows:
    grouped[row['arm']].append(row)
  stages = {row['set']: row for row in rows}
  measured = {
    arm: _measure(own, sorted(stages), part, whole)
    for arm, own in grouped.items()
  }
  unfinished = [arm for arm, seeds in measured.items() if not seeds]
  if baseline not in measured or baseline in unfinished:
    raise UserError(
      f'There is no arm {baseline} on {name} to compare with; finish it, or '
      f'name another by --baseline: {"; ".join(grouped)}.'
    )
  arms = []
  for arm, own in grouped.items():
    if arm in unfinished:
      continue
    other = {} if arm == baseline else measured[baseline]
    arms.append(_arm(arm, own, measured[arm], other))
  counts = [seed.n for seeds in measured.values() for seed in seeds.values()]
  images = min(counts), max(counts)
  classes = ''
  if not whole:
    uncut = [row[part]['uncut_classes'] for row in rows]
    classes = span(min(uncut), max(uncut))
  figure = results.name_of_figure(rows[0])
  return Table(
    grid, name, classes, part, figure, images, len(stages), baseline, arms,
    unfinished,
  )  # fmt: skip


def span(least: int, most: int) -> str:
  """Returns a number, or '2 to 3'."""
  return f'{least}' if least == most else f'{least} to {most}'


def check(name: str, rows: list[dict]) -> None:
  """Refuses to average or compare what differs beyond the overrides.

  Runs of one arm must have one config, whatever the seed and the stage. Any two
  must agree on a field that the grid overrides in neither. The seed of the
  split is one for all runs, or each seed has its own; what it draws must be
  the same for all runs that have it.

  Args:
    name: of the set, for the sentence.
    rows: on that set.

  Raises:
    UserError: names the first thing that differs, and between which runs.
  """
  _require_same_code(name, rows)
  _require_own_splits(name, rows)
  holder = {}
  for row in rows:
    config = row['config']
    for key in sorted(config.keys() - {'seed', 'data.name', SPLIT}):
      arm = row['arm'] if key in row['overrides'] else ''
      one = holder.setdefault((key, arm), row)
      if one['config'][key] != config[key]:
        raise UserError(
          f'On {name} {_run(one)} has config.{key} {one["config"][key]!r} but '
          f'{_run(row)} has {config[key]!r}, which the grid does not sweep; '
          'collect them apart, or remove one of them.'
        )
  drawn = {}
  for row in rows:
    swept = {k for k in row['overrides'] if k.startswith('data.')}
    arm = row['arm'] if swept - {'data.name', SPLIT} else ''
    one = drawn.setdefault((row['set'], arm, row['config'].get(SPLIT)), row)
    if one.get('split') != row.get('split'):
      raise UserError(
        f'On {row["set"]} {_run(one)} and {_run(row)} were trained on '
        'different images; collect them apart.'
      )
  taught = [row for row in rows if 'teacher' in row]
  for row in taught:
    if row['teacher'] != taught[0]['teacher']:
      raise UserError(
        f'On {name} {_run(taught[0])} and {_run(row)} learnt from different '
        'teachers; collect them apart.'
      )
  for part in ('test', 'val'):
    images = {}
    for row in rows:
      if part not in row:
        continue
      one = images.setdefault((row['set'], row['config'].get(SPLIT)), row)
      if one[part]['images'] != row[part]['images']:
        raise UserError(
          f'On {row["set"]} {_run(one)} and {_run(row)} were evaluated on '
          f'different {part} images; collect them apart.'
        )


def _require_own_splits(name: str, rows: list[dict]) -> None:
  """Refuses arms of unlike splits, and seeds of which only some share one."""
  of_seed, of_split = {}, {}
  for row in rows:
    split = row['config'].get(SPLIT)
    one = of_seed.setdefault(row['seed'], row)
    if one['config'].get(SPLIT) != split:
      raise UserError(
        f'On {name} {_run(one)} has config.{SPLIT} '
        f'{one["config"].get(SPLIT)!r} but {_run(row)} has {split!r}; arms are '
        'compared on one split, collect them apart.'
      )
    of_split.setdefault(split, []).append(_run(one))
  if 1 < len(of_split) < len(of_seed):
    runs = max((list(dict.fromkeys(x)) for x in of_split.values()), key=len)
    raise UserError(
      f'On {name} {runs[0]} and {runs[1]} share config.{SPLIT}, which other '
      'seeds have of their own; collect them apart.'
    )


def _require_same_code(name: str, rows: list[dict]) -> None:
  """Refuses rows of one set that different code has made."""
  # Of each arm one row for each code, mostly one.
  made = {(row['arm'], json.dumps(row['code'])): row for row in rows}
  for one, other in itertools.combinations(made.values(), 2):
    codes = [row['code'] for row in (one, other)]
    if one['arm'] != other['arm']:
      # Each may have a module of its own from outside the package.
      both = codes[0].keys() & codes[1].keys()
      codes = [
        results.of_package(code) | {key: code[key] for key in both}
        for code in codes
      ]
    if changed := results.changes(*codes):
      raise UserError(
        f'On {name} {_run(one)} and {_run(other)} were made by different code '
        f'({changed}); run the older ones again, or collect them apart.'
      )


def _run(row: dict) -> str:
  return f'{row["arm"]} (seed {row["seed"]})'


class _Seed(NamedTuple):
  """An arm under one seed, over all stages.

  Attributes:
    figure: in percent.
    split: tells it from another split.
    n: images that it is judged on.
    images: what is known of them, by stage; None without predictions.
  """

  figure: float
  split: tuple
  n: int
  images: list[np.ndarray] | None


def _measure(rows, stages, part, whole) -> dict[int, _Seed]:
  """A seed counts once all its stages are there."""
  runs = {(row['seed'], row['set']): row for row in rows}
  seeds = sorted({seed for seed, _ in runs})
  return {
    seed: _seed([runs[seed, stage] for stage in stages], part, whole)
    for seed in seeds
    if all((seed, stage) in runs for stage in stages)
  }


def _seed(rows, part, whole) -> _Seed:
  images = [results.of_images(row, part, whole=whole) for row in rows]
  return _Seed(
    statistics.mean(map(results.value, rows, images)),
    tuple(row.get('split') for row in rows),
    sum(
      row['summary']['n_test'] if x is None else len(x)
      for row, x in zip(rows, images, strict=True)
    ),
    images if all(x is not None for x in images) else None,
  )


def _arm(name, rows, seeds: dict[int, _Seed], base: dict[int, _Seed]) -> Arm:
  figures = {seed: own.figure for seed, own in seeds.items()}
  values = list(figures.values())
  shared = sorted(seeds.keys() & base.keys())
  diff = ends = None
  if shared:
    diff = statistics.mean(figures[s] - base[s].figure for s in shared)
    ends = _interval([seeds[s] for s in shared], [base[s] for s in shared])
  return Arm(
    name, figures, len({own.split for own in seeds.values()}),
    statistics.mean(values),
    statistics.stdev(values) if len(values) > 1 else None,
    _interval(list(seeds.values())), diff, *(ends or (None, None)),
    len(shared), rows,
  )  # fmt: skip


def _interval(
  ours: Sequence[_Seed], theirs: Sequence[_Seed] = ()
) -> tuple[float, float] | None:
  """The 95 % interval of an arm, or of its difference from another."""
  if len(ours) < 2:
    return None
  if len({seed.split for seed in ours}) > 1:
    values = np.array([seed.figure for seed in ours])
    if theirs:
      values = values - [seed.figure for seed in theirs]
    low, high = intervals.of_seeds(values)
    return float(low), float(high)
  if any(seed.images is None for seed in (*ours, *theirs)):
    return None
  return intervals.of_seeds_and_images(
    _stacked(ours),
    _stacked(theirs) if theirs else None,
    figure=results.figure(ours[0].images[0]),
  )


def _stacked(seeds) -> list[np.ndarray]:
  """[seeds, images, ...] of each stage."""
  by_stage = zip(*(seed.images for seed in seeds), strict=True)
  return [np.stack(stage) for stage in by_stage]
