r"""Makes a report of finished grids.

  python -m experiments.report.collect experiments/results/components.jsonl \
    --out=experiments/reports/components

prints a Markdown table for each grid and data set: for each arm the mean, the
standard deviation and the number of seeds, and the difference from the baseline
with a 95 % interval by a paired bootstrap over seeds and test images. With
--out it also writes `report.md`, `report.html` and, for each table, a CSV file
with the columns `arm,n,mean,sd,diff,low,high`. Runs are averaged only if
nothing differs between them but the seed, and compared only if nothing but what
the grid sets. A grid that chooses something, such as tuning, is judged on the
validation part of train; --part says another. --notes=FILE puts paragraphs of
text on top of the page, and --pictures=RUN what a run's workdir shows of it at
the end.

  python -m experiments.report.collect --readme

writes the README's table from experiments/results/baselines.jsonl.
"""

import argparse
import collections
import pathlib
import statistics
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from csdnet_jax.runtime.errors import UserError
from experiments import bootstrap, results
from experiments.report import page, text

ROOT = pathlib.Path(__file__).parents[2]
README_RESULTS = results.RESULTS / 'baselines.jsonl'
BEGIN, END = '<!-- results: begin -->\n', '<!-- results: end -->\n'


class Arm(NamedTuple):
  """An arm over its seeds, in percent.

  Attributes:
    name: in words.
    seeds: the figure of each seed, over all stages where the set has several.
    mean, sd: of those; sd is None for one seed.
    spread: the 95 % interval of the mean, or None without predictions.
    diff: the difference from the baseline over the `shared` seeds that both
      have, or None for the baseline.
    low, high: the 95 % interval of `diff`, or None.
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
  shots = row['config']['data.shots']
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
  holder, made_by, modules = {}, {}, {}
  for row in rows:
    config = row['config']
    one = modules.setdefault(row['arm'], row)
    if one['code'].keys() != row['code'].keys():
      raise UserError(
        f'On {name} {_run(one)} and {_run(row)} do not know the same code; '
        'run the older one again.'
      )
    for key in sorted(config.keys() - {'seed', 'data.name'}):
      arm = row['arm'] if key in row['overrides'] else ''
      one = holder.setdefault((key, arm), row)
      if one['config'][key] != config[key]:
        raise UserError(
          f'On {name} {_run(one)} has config.{key} {one["config"][key]!r} but '
          f'{_run(row)} has {config[key]!r}, which the grid does not sweep; '
          'collect them apart, or remove one of them.'
        )
    for module, digest in row['code'].items():
      one = made_by.setdefault(module, row)
      if one['code'][module] != digest:
        raise UserError(
          f'On {name} {_run(one)} and {_run(row)} were made by different '
          f'code ({module}.py has changed); run the older ones again, or '
          'collect them apart.'
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
  if known and len(known) == len(figures):
    figure = results.figure(next(iter(known.values()))[0])
    spread = bootstrap.interval(_stacked(known, known), figure=figure)
  shared = sorted(figures.keys() & figures_base.keys())
  if shared:
    diff = statistics.mean(figures[s] - figures_base[s] for s in shared)
    if all(s in known and s in known_base for s in shared):
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


def readme() -> str:
  """Returns the README's table."""
  return text.readme_table(tables(results.read(README_RESULTS)))


def write_readme() -> None:
  """Writes the README's table between its markers."""
  path = ROOT / 'README.md'
  head, begin, rest = path.read_text(encoding='utf-8').partition(BEGIN)
  _, end, tail = rest.partition(END)
  if not begin or not end:
    raise UserError(
      f'{path} has no line {BEGIN.strip()} before one {END.strip()}; put both '
      'where the table belongs.'
    )
  path.write_text(head + BEGIN + readme() + END + tail, encoding='utf-8')


def main(argv: Sequence[str]) -> None:
  """Reads the files, prints the tables, writes the report."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.report.collect',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('results', nargs='*', type=pathlib.Path)
  parser.add_argument('--baseline', default='', metavar='ARM')
  parser.add_argument('--part', default='', choices=('test', 'val'))
  parser.add_argument('--out', type=pathlib.Path, metavar='DIR')
  parser.add_argument('--notes', type=pathlib.Path, metavar='FILE')
  parser.add_argument('--pictures', type=pathlib.Path, metavar='RUN')
  parser.add_argument('--readme', action='store_true')
  args = parser.parse_args(argv)
  if args.readme:
    write_readme()
  if not args.results:
    if args.readme:
      return
    raise UserError(
      'Say which results to collect, such as '
      'experiments/results/components.jsonl.'
    )
  absent = [str(path) for path in args.results if not path.exists()]
  if absent:
    raise UserError(f'There is no file {absent[0]}; run its grid first.')
  if (args.notes or args.pictures) and not args.out:
    raise UserError('--notes and --pictures go into a page; add --out=DIR.')
  notes = ''
  if args.notes:
    try:
      notes = args.notes.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
      raise UserError(
        f'--notes={args.notes} cannot be read as UTF-8 text ({error}); name '
        'another file.'
      ) from error
  for name in ('config.json', 'pictures'):
    if args.pictures and not (args.pictures / name).exists():
      raise UserError(
        f'--pictures={args.pictures}: it is not the workdir of a finished run, '
        f'there is no {name} in it.'
      )
  rows = [row for path in args.results for row in results.read(path)]
  made = tables(rows, baseline=args.baseline, part=args.part)
  whole = '\n'.join(text.markdown(table) for table in made)
  print(whole)
  if args.out:
    try:
      args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise UserError(
        f'--out={args.out} cannot be made ({error.strerror}); name a folder.'
      ) from error
    title = ', '.join(dict.fromkeys(row['grid'] for row in rows))
    head = '\n\n'.join(x for x in (notes.strip(), text.METHOD) if x)
    (args.out / 'report.md').write_text(f'{head}\n\n{whole}', encoding='utf-8')
    (args.out / 'report.html').write_text(
      page.page(title, made, notes=notes, run=args.pictures), encoding='utf-8'
    )
    for table in made:
      name = f'{table.grid}_{table.set}'.replace(', ', '_').replace(' ', '_')
      text.write_csv(args.out / f'{name}.csv', table)
    print(f'Wrote {args.out / "report.html"}')


if __name__ == '__main__':
  try:
    main(sys.argv[1:])
  except UserError as error:
    sys.exit(f'error: {error}')
