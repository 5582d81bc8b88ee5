r"""Runs a grid: `python -m experiments.run --grid=csdnet:components`.

  python -m experiments.run --grid=csdnet:components \
    --config.data.root=my_leaves --workdir=runs/components

Each point is a process of its own, `python -m csdnet_jax.main ...`, in a folder
of the workdir. What is finished is skipped, what was stopped or killed goes on,
a failure is recorded and the rest is done. Each finished point appends one line
to experiments/results/GRID.jsonl; a point that another grid has run already
takes its line from there. --dry_run prints one command for each point,
for a scheduler's array or a colleague, and needs no data.

--together=N trains up to N points in one program and one process, where their
configs differ in numbers alone; with --dry_run it says which, and reads the
data for it. --programs=N runs N such processes at a time: a GPU need not wait
while the next program is compiled.
"""

import argparse
import contextlib
import pathlib
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence

import rich.live
import rich.table
import rich.text

from csdnet_jax.runtime import commands, writers
from csdnet_jax.runtime.code import is_dirty, of_code
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import console, say
from csdnet_jax.training.workdir import holds_run
from experiments import launch_ray, results, together
from experiments.execute import DONE, FAILED, RUNNING, last_words, local
from experiments.grid import Point, expand, find, resolve


class Board:
  """The live table: an arm a row, a seed a column."""

  def __init__(self, points: list[Point]):
    self._cells = dict.fromkeys(points, '')
    self._rows = list(dict.fromkeys(self._row(point) for point in points))
    (self._part,) = {point.part for point in points}
    self._seeds = sorted({point.seed for point in points})
    self._clock = time.monotonic()

  @staticmethod
  def _row(point: Point) -> str:
    return f'{point.set} {point.arm}'.strip()

  def show(self, point: Point, text: str, why: str = '') -> None:
    """Changes a cell; why it failed, and all without a terminal, is a line."""
    self._cells[point] = text
    if why or not console.is_terminal:
      say(f'{point.name}: {text}' + (f': {why}' if why else ''))

  def __rich__(self) -> rich.table.Table:
    minutes = (time.monotonic() - self._clock) / 60
    ended = sum(x not in ('', RUNNING) for x in self._cells.values())
    table = rich.table.Table(
      title=f'{ended} of {len(self._cells)} points, {minutes:.0f} minutes',
      title_justify='left',
    )
    table.add_column(f'percent of the {self._part} part')
    for seed in self._seeds:
      table.add_column(f'seed {seed}', justify='right')
    at = {(self._row(p), p.seed): text for p, text in self._cells.items()}
    for row in self._rows:
      cells = (row, *(at.get((row, seed), '') for seed in self._seeds))
      table.add_row(*map(rich.text.Text, cells))
    return table


def run(
  points: list[Point],
  workdir: pathlib.Path,
  path: pathlib.Path,
  *,
  launch: Callable = local,
  budget_minutes: float | None = None,
  stop: Callable[[], bool] = lambda: False,
) -> dict[Point, str]:
  """Runs what of a grid is not finished yet.

  Args:
    points: of the grid.
    workdir: holds a folder for each, and `failures.json`.
    path: of the results, to which finished points are appended.
    launch: `local`, `launch_ray.launch`, or `together.launch` with its `most`.
    budget_minutes: after which no point is started.
    stop: whether to end now.

  Returns:
    What became of each point: DONE, FAILED, STOPPED, or '' if not started.
  """
  clock = time.monotonic()
  own, others = results.read(path), results.beside(path)
  became, failures = dict.fromkeys(points, ''), {}
  board = Board(points)

  def done(point, row):
    became[point] = DONE
    images = results.of_images(row, point.part)
    board.show(point, f'{results.value(row, images):.1f}')

  def keep(point, row):
    own.append(row)
    results.append(path, row)
    done(point, row)

  def fail(point, why):
    became[point], failures[point.name] = FAILED, why
    board.show(point, FAILED, why)

  def finish(point):
    try:
      row = results.record(point, workdir / point.name)
      if row in own:  # By code that no commit holds, see `results.find`.
        done(point, row)
      else:
        keep(point, row)
    except (UserError, OSError) as error:
      fail(point, str(error))

  def known(point) -> bool:
    """Whether the point is there, has been run elsewhere, or cannot be run."""
    folder = workdir / point.name
    try:
      results.require_judged(point)
      mine = [
        x for x in own if (x['grid'], x['arm']) == (point.grid, point.arm)
      ]
      row = results.find(point, mine)
      if row:
        done(point, row)
        return True
      row = results.find(point, own + others)
      if row:
        keep(point, results.taken(point, row))
        return True
      begun = results.code_of(folder) if holds_run(folder) else None
      if begun is not None:
        now = results.code_now(resolve(point.arguments))
        results.require_same_code(folder, begun, now)
    except (UserError, OSError) as error:
      fail(point, str(error))
      return True
    if (folder / 'summary.json').exists():
      # It ended, but was not recorded any more.
      finish(point)
      return True
    return False

  def waiting():
    """Yields what is to be run, as long as there is time."""
    for point in points:
      late = budget_minutes is not None and (
        time.monotonic() - clock > 60 * budget_minutes
      )
      if late or stop():
        return
      if not became[point] and not known(point):
        yield point

  with contextlib.ExitStack() as stack:
    if console.is_terminal:
      stack.enter_context(rich.live.Live(board, console=console))
    for point in points:
      known(point)
    for point, state in launch(waiting(), workdir, stop):
      if state == DONE:
        finish(point)
      elif state == FAILED:
        fail(point, last_words(workdir / point.name))
      else:
        became[point] = state
        board.show(point, state)
  note_failures(workdir / 'failures.json', points, failures)
  return became


def note_failures(path, points: list[Point], failures: dict[str, str]) -> None:
  """Writes why points failed, beside what a file says of others."""
  said = results.load(path) if path.exists() else {}
  names = {point.name for point in points}
  said = {name: why for name, why in said.items() if name not in names}
  if said | failures:
    path.parent.mkdir(parents=True, exist_ok=True)
    writers.write_json(path, said | failures)
  else:
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def signals():
  """Yields `() -> whether SIGINT or SIGTERM has come`."""
  came = []
  numbers = (signal.SIGINT, signal.SIGTERM)
  old = [signal.signal(n, lambda number, _: came.append(number))
         for n in numbers]  # fmt: skip
  try:
    yield lambda: bool(came)
  finally:
    for number, handler in zip(numbers, old, strict=True):
      signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m experiments.run',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
    epilog='--config=FILE and --config.key=value are as in csdnet_jax.main.',
  )
  parser.add_argument('--grid', required=True, metavar='FILE:NAME')
  parser.add_argument('--workdir', type=pathlib.Path, metavar='DIR')
  parser.add_argument('--results', type=pathlib.Path, metavar='FILE')
  parser.add_argument(
    '--seeds', type=int, metavar='N', help='0 to N - 1, not as many as the grid'
  )
  parser.add_argument('--dry_run', action='store_true')
  parser.add_argument('--budget_minutes', type=float, metavar='N')
  parser.add_argument('--launcher', choices=('local', 'ray'), default='local')
  parser.add_argument(
    '--together', type=int, metavar='N',
    help='runs at most that share a program; 1 is a process for each. Without '
    'it 1 on a CPU, and on a GPU what its memory holds',
  )  # fmt: skip
  parser.add_argument(
    '--programs', type=int, default=1, metavar='N',
    help='processes at a time, which share the memory of a GPU',
  )  # fmt: skip
  return parser


def main(argv: Sequence[str]) -> int:
  """Expands the grid, runs it, and says how it went.

  Returns:
    The exit status: 0 if all is done or was stopped, 1 if points failed.
  """
  args, rest = _parser().parse_known_args(argv)
  name, grid = find(args.grid)
  points = expand(name, grid, rest, seeds_of_each=args.seeds)
  workdir = args.workdir or pathlib.Path('runs') / name
  minutes = args.budget_minutes
  if minutes is not None and not minutes >= 0:
    raise UserError(f'--budget_minutes={minutes:g}: say 0 or more.')
  most = _together(args)
  if args.dry_run:
    return _dry_run(points, workdir, most)
  # Once, not for each point.
  results.require_judged(points[0])
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(
      f'--workdir={workdir} cannot be made ({error.strerror}); choose another.'
    ) from error
  if is_dirty(of_code()):
    say(
      'The code that makes figures is not as the commit has it: the lines of '
      'these runs are marked, and joined with no others.'
    )
  path = args.results or results.RESULTS / f'{name}.jsonl'
  launch = launch_ray.launch if args.launcher == 'ray' else local
  clock = time.monotonic()

  def late() -> bool:
    return minutes is not None and time.monotonic() - clock > 60 * minutes

  with signals() as stop:
    if most > 1 or args.programs > 1:
      launch = _together_until(late, most, args.programs)
    became = run(
      points, workdir, path, launch=launch,
      budget_minutes=minutes, stop=stop,
    )  # fmt: skip
  states = list(became.values())
  say(
    f'{states.count(DONE)} of {len(points)} points are done, '
    f'{states.count(FAILED)} failed; the results are in {path}.'
  )
  if states.count(FAILED):
    say(f'Why they failed is in {workdir / "failures.json"}.')
  if states.count(DONE) < len(points):
    say('The same command continues.')
  return 1 if states.count(FAILED) else 0


def _together(args) -> int:
  """How many runs share a program."""
  if args.together is not None and args.together < 1:
    raise UserError(f'--together={args.together}: say 1 or more.')
  if args.programs < 1:
    raise UserError(f'--programs={args.programs}: say 1 or more.')
  if args.launcher == 'ray':
    if args.programs > 1:
      raise UserError(
        f'--programs={args.programs} is for --launcher=local; Ray runs as many '
        'points as it has devices.'
      )
    if (args.together or 1) > 1:
      raise UserError(
        f'--together={args.together} is for --launcher=local; Ray runs a '
        'process for each point.'
      )
    return 1
  if args.together is None:
    # A dry run is for whatever computer.
    return 1 if args.dry_run else together.default()
  return args.together


def _together_until(
  late: Callable[[], bool], most: int, programs: int
) -> Callable:
  """The launcher of runs that share programs, which save when time is up."""

  def launch(points, workdir, stop):
    return together.launch(
      points, workdir, lambda: stop() or late(), most=most, programs=programs
    )

  return launch


def _dry_run(points: list[Point], workdir: pathlib.Path, most: int) -> int:
  """Prints what would be run: commands, or programs and their runs."""
  if most == 1:
    for point in points:
      print(shlex.join(point.command(workdir)))
    return 0
  for line in together.describe(together.plan(points, workdir, most)):
    print(line)
  return 0


if __name__ == '__main__':
  commands.end(lambda: main(sys.argv[1:]))
