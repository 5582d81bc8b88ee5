"""What a run says and shows in the terminal, on the first process only."""

import contextlib
import json
import signal
import time

import jax
import rich.progress
import rich.table

from csdnet_jax.runtime import paths
from csdnet_jax.runtime.console import console

_verbose = False


def be_verbose(on: bool) -> None:
  """Sets whether `say` prints what it is given with `verbose`."""
  global _verbose
  _verbose = on


def say(
  text: str,
  style: str | None = None,
  *,
  everywhere: bool = False,
  verbose: bool = False,
) -> None:
  """Prints a line; brackets mean nothing in it.

  Args:
    text: the line, or several.
    style: of rich, such as 'red'.
    everywhere: on every process, not on the first only.
    verbose: whether only those hear it who ask for more, see `be_verbose`.
  """
  if verbose and not _verbose:
    return
  if everywhere or jax.process_index() == 0:
    console.print(text, style=style, markup=False)


def show_table(title: str, rows: dict) -> None:
  """Prints names and figures in two columns."""
  if jax.process_index():
    return
  table = rich.table.Table(title=title, title_justify='left', show_header=False)
  table.add_column('')
  table.add_column('', justify='right')
  for name, value in rows.items():
    exact = isinstance(value, float)
    table.add_row(name, f'{value:.2f}' if exact else str(value))
  console.print(table)


def show_summary(task, summary: dict, workdir: paths.Path) -> None:
  """Prints the table that a run ends with.

  Args:
    task: of the run, whose `rows` name the figures.
    summary: of the run.
    workdir: of the run.
  """
  starts = json.loads((workdir / 'environment.json').read_text())['starts']
  taken = duration(sum(start['seconds'] for start in starts))
  n, part = summary['n_test'], 'test'
  if not n:
    n, part = summary.get('n_val', 0), 'validation'
  if n:
    show_table(f'{n} {part} images, percent', task.rows(summary))
    if remark := task.remark(summary):
      say(remark, style='bold')
  else:
    say('No images were held out, so nothing tells how good the network is.')
  say(f'Everything is in {workdir}; it took {taken}.')


@contextlib.contextmanager
def progress_bar(unit: str, *, logged: str = ''):
  """A live bar: yields `(done, total, note='')`.

  Args:
    unit: what is counted, in the plural.
    logged: the same in the singular, if a log file, which is no terminal, gets
      a line each tenth of the way.
  """
  columns = (
    rich.progress.TextColumn('{task.description}'),
    rich.progress.BarColumn(),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TextColumn(unit),
    rich.progress.TimeRemainingColumn(),
    rich.progress.TextColumn('{task.fields[note]}'),
  )
  first = jax.process_index() == 0
  if first and logged and not console.is_terminal:
    yield _lines(logged)
    return
  bar = rich.progress.Progress(
    *columns, console=console, transient=True,
    disable=not (first and console.is_terminal),
  )  # fmt: skip
  with bar:
    task = bar.add_task('', total=None, note='')

    def update(done, total, note=''):
      bar.update(task, completed=done, total=total, note=note)

    yield update


def _lines(unit: str):
  """Returns an update that says a line each tenth of the way."""
  # Where it starts; and the next call, until which a program compiles.
  calls, tenth = [], 0

  def update(done, total, note=''):
    nonlocal tenth
    now = time.monotonic()
    if len(calls) < 2:
      calls.append((done, now))
    if len(calls) == 1:
      tenth = 10 * done // total
    if 10 * done // total > tenth:
      tenth = 10 * done // total
      parts = [f'{unit} {done} of {total} ({100 * done // total} %)', note]
      first, begun = calls[-1]
      if first < done < total:
        left = (total - done) * (now - begun) / (done - first)
        parts.append(f'{duration(max(left, 1))} left')
      say(', '.join(filter(None, parts)))

  return update


def duration(seconds: float) -> str:
  """Returns a time as people say it.

  >>> duration(42), duration(600), duration(9000)
  ('42 s', '10 min', '2 h 30 min')
  """
  if seconds < 120:
    return f'{seconds:.0f} s'
  minutes = round(seconds / 60)
  if minutes < 120:
    return f'{minutes} min'
  return f'{minutes // 60} h {minutes % 60} min'


@contextlib.contextmanager
def stopper():
  """Yields `step -> whether to save and stop`, the same on every process."""
  stopped = []

  def on_signal(number, frame):
    del frame
    stopped.append(number)

  if jax.process_count() > 1:
    # JAX's preemption service caught SIGTERM when the processes joined; it
    # passes the notice on, and all agree on a step that none has reached.
    from jax.experimental import multihost_utils

    old = signal.signal(
      signal.SIGINT, lambda *_: signal.raise_signal(signal.SIGTERM)
    )
    try:
      yield multihost_utils.reached_preemption_sync_point
    finally:
      signal.signal(signal.SIGINT, old)
    return
  old = {
    s: signal.signal(s, on_signal) for s in (signal.SIGTERM, signal.SIGINT)
  }
  try:
    yield lambda step: bool(stopped)
  finally:
    for number, handler in old.items():
      signal.signal(number, handler)
