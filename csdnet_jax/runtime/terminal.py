"""What a run says and shows in the terminal, on the first process only."""

import contextlib
import json
import signal

import jax
import rich.console
import rich.progress
import rich.table

from csdnet_jax.runtime import paths

console = rich.console.Console(highlight=False, soft_wrap=True)


def say(
  text: str, style: str | None = None, *, everywhere: bool = False
) -> None:
  """Prints a line, on the first process only; brackets mean nothing in it."""
  if everywhere or jax.process_index() == 0:
    console.print(text, style=style, markup=False)


def show_table(title: str, rows: dict) -> None:
  """Prints names and figures in two columns."""
  if jax.process_index():
    return
  table = rich.table.Table(title=title, title_justify='left')
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
  rows = task.rows(summary)
  rows['seconds, all starts'] = round(sum(s['seconds'] for s in starts), 1)
  show_table(f'{summary["n_test"]} test images, percent', rows)
  say(f'Everything is in {workdir}')


@contextlib.contextmanager
def progress_bar(unit: str):
  """A live bar: yields `(done, total, note='')`."""
  columns = (
    rich.progress.TextColumn('{task.description}'),
    rich.progress.BarColumn(),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TextColumn(unit),
    rich.progress.TimeRemainingColumn(),
    rich.progress.TextColumn('{task.fields[note]}'),
  )
  quiet = jax.process_index() != 0 or not console.is_terminal
  bar = rich.progress.Progress(
    *columns, console=console, transient=True, disable=quiet
  )
  with bar:
    task = bar.add_task('', total=None, note='')

    def update(done, total, note=''):
      bar.update(task, completed=done, total=total, note=note)

    yield update


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
