"""Lines of results as tables: what is averaged, compared, and refused.

Runs are averaged only if nothing differs between them but the seed, and
compared only if nothing but what the grid sets.
"""

import collections
import itertools
import json
import statistics
from typing import NamedTuple

import numpy as np

from csdnet_jax.runtime.errors import UserError
from experiments import results
from experiments.report import bootstrap


class Arm(NamedTuple):
  """An arm over its seeds, in percent.

  Attributes:
    name: in words.
    seeds: the figure of each seed, over all stages where the set has several.
    mean, sd: of those; sd is None for one seed.
    spread: the 95 % interval of the mean, or None for one seed or without
      predictions.
    diff: the difference from the baseline over the `shared` seeds that both
      have, or None for the baseline.
    low, high: the 95 % interval of `diff`, or None for one shared seed.
    shared: the number of those seeds.
    rows: the lines of its runs.
  """

  name: str
  seeds: dict[int, float]
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


class Table(NamedTuple):
  """The arms of a grid on one data set.

  Attributes:
    grid: its name.
    set: its name, with the images a class where they were limited.
    part: 'test' or 'val'.
    figure: what the arms are measured by, 'top-1' or 'mIoU'.
    images: test images, over all stages.
    stages: how many sets each figure is the mean of.
    baseline: the arm that the others are compared with.
    arms: in the order of the files.
    unfinished: arms without a seed that has all stages.
  """

  grid: str
  set: str
  part: str
  figure: str
  images: int
  stages: int
  baseline: str
  arms: list[Arm]
  unfinished: list[str]


def tables(
  rows: list[dict], *, baseline: str = '', part: str = ''
) -> list[Table]:
  """Returns a table for each grid and data set.

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
  return [_table(*key, own, baseline, part) for key, own in sets.items()]


def _set(row: dict) -> str:
  """The set that a figure is for: the stages of SoyAgeing are one."""
  shots = row['config'].get('data.shots')
  name = row['set'].partition('/')[0]
  return f'{name}, {shots} a class' if shots else name


def _table(grid, name, rows, baseline, part) -> Table:
  check(name, rows)
  baseline = baseline or rows[0]['baseline']
  part = part or rows[0]['part']
  grouped = collections.defaultdict(list)
  for row in rows:
    grouped[row['arm']].append(row)
  stages = {row['set']: row for row in rows}
  measured = {
    arm: _measure(own, sorted(stages), part) for arm, own in grouped.items()
  }
  unfinished = [arm for arm, (figures, _) in measured.items() if not figures]
  if baseline not in measured or baseline in unfinished:
    raise UserError(
      f'There is no arm {baseline} on {name} to compare with; finish it, or '
      f'name another by --baseline: {"; ".join(grouped)}.'
    )
  arms = []
  for arm, own in grouped.items():
    if arm in unfinished:
      continue
    other = ({}, {}) if arm == baseline else measured[baseline]
    arms.append(_arm(arm, own, *measured[arm], *other))
  images = sum(
    row[part]['n'] if part in row else row['summary']['n_test']
    for row in stages.values()
  )
  figure = results.name_of_figure(rows[0])
  return Table(
    grid, name, part, figure, images, len(stages), baseline, arms, unfinished
  )


def check(name: str, rows: list[dict]) -> None:
  """Refuses to average or compare what differs beyond the overrides.

  Runs of one arm must have one config, whatever the seed and the stage. Any two
  must agree on a field that the grid overrides in neither.

  Args:
    name: of the set, for the sentence.
    rows: on that set.

  Raises:
    UserError: names the first thing that differs, and between which runs.
  """
  _require_same_code(name, rows)
  holder = {}
  for row in rows:
    config = row['config']
    for key in sorted(config.keys() - {'seed', 'data.name'}):
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
    arm = row['arm'] if swept - {'data.name'} else ''
    one = drawn.setdefault((row['set'], arm), row)
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
      one = images.setdefault(row['set'], row)
      if one[part]['images'] != row[part]['images']:
        raise UserError(
          f'On {row["set"]} {_run(one)} and {_run(row)} were evaluated on '
          f'different {part} images; collect them apart.'
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


def _measure(rows, stages, part):
  """Returns {seed: figure} and {seed: [what is known of images, by stage]}.

  A seed counts once all its stages are there.
  """
  runs = {(row['seed'], row['set']): row for row in rows}
  seeds = sorted({seed for seed, _ in runs})
  whole = [s for s in seeds if all((s, stage) in runs for stage in stages)]
  figures, known = {}, {}
  for seed in whole:
    own = [runs[seed, stage] for stage in stages]
    images = [results.of_images(row, part) for row in own]
    if all(x is not None for x in images):
      known[seed] = images
    figures[seed] = statistics.mean(map(results.value, own, images))
  return figures, known


def _arm(name, rows, figures, known, figures_base, known_base):
  values = list(figures.values())
  spread = diff = low = high = None
  if 1 < len(known) == len(figures):
    figure = results.figure(next(iter(known.values()))[0])
    spread = bootstrap.interval(_stacked(known, known), figure=figure)
  shared = sorted(figures.keys() & figures_base.keys())
  if shared:
    diff = statistics.mean(figures[s] - figures_base[s] for s in shared)
    if len(shared) > 1 and all(s in known and s in known_base for s in shared):
      low, high = bootstrap.interval(
        _stacked(known, shared),
        _stacked(known_base, shared),
        figure=results.figure(known[shared[0]][0]),
      )
  return Arm(
    name, figures, statistics.mean(values),
    statistics.stdev(values) if len(values) > 1 else None,
    spread, diff, low, high, len(shared), rows,
  )  # fmt: skip


def _stacked(known, seeds) -> list[np.ndarray]:
  """[seeds, images, ...] of each stage."""
  by_stage = zip(*(known[seed] for seed in seeds), strict=True)
  return [np.stack(stage) for stage in by_stage]
