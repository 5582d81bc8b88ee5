"""One point of a grid after the other, each in a process of its own."""

import os
import pathlib
import shlex
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from experiments.grid import Point

DONE, FAILED, RUNNING, STOPPED = 'done', 'failed', 'running', 'stopped'
_START = '$ '  # Before the command of each start in a point's log.


def local(
  points: Iterable[Point],
  workdir: pathlib.Path,
  stop: Callable[[], bool],
  env: Mapping[str, str] = types.MappingProxyType({}),
) -> Iterator[tuple[Point, str]]:
  """Runs points one after the other on this computer.

  Args:
    points: to be run, taken one at a time.
    workdir: of the grid.
    stop: whether to end now; a running point is told to save first.
    env: of the processes, beside that of this one.

  Yields:
    (point, RUNNING) when it starts and, when it ends, what `outcome` says.
  """
  for point in points:
    yield point, RUNNING
    yield point, execute(point, workdir, stop, env)


def execute(
  point: Point,
  workdir: pathlib.Path,
  stop: Callable[[], bool],
  env: Mapping[str, str] = types.MappingProxyType({}),
) -> str:
  """Runs a point in a process of its own and returns DONE, FAILED or STOPPED.

  What it prints goes to `log.txt` in its workdir.
  """
  folder = workdir / point.name
  folder.mkdir(parents=True, exist_ok=True)
  command = point.command(workdir, sys.executable)
  status, told = watch(command, folder, stop, env)
  if (folder / 'summary.json').exists():
    return DONE
  # A terminal's Ctrl-C reaches the point before this process tells it.
  stopped = told or stop() or status == 0
  return STOPPED if stopped else FAILED


def watch(
  command: Sequence[str],
  folder: pathlib.Path,
  stop: Callable[[], bool],
  env: Mapping[str, str] = types.MappingProxyType({}),
) -> tuple[int, bool]:
  """Runs a process to its end; returns its status, and if it was told to end.

  Args:
    command: what it prints goes to `log.txt` of the folder.
    folder: that is there.
    stop: whether the process is to be told now.
    env: of the process, beside that of this one.
  """
  with open(folder / 'log.txt', 'a', encoding='utf-8') as log:
    log.write(f'\n{_START}{shlex.join(command)}\n')
    log.flush()
    process = subprocess.Popen(
      command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **env}
    )
    told = False
    try:
      while process.poll() is None:
        if stop() and not told:
          process.terminate()
          told = True
        time.sleep(0.1)
    finally:
      if process.poll() is None:
        process.terminate()
        process.wait()
  return process.returncode, told


def note(folder: pathlib.Path, command: Sequence[str], why: str) -> None:
  """Writes for `last_words` why a point failed in the process of others."""
  folder.mkdir(parents=True, exist_ok=True)
  with open(folder / 'log.txt', 'a', encoding='utf-8') as log:
    log.write(f'\n{_START}{shlex.join(command)}\nerror: {why}\n')


def last_words(folder: pathlib.Path) -> str:
  """Returns the line that says why a run failed, of its last start."""
  path = folder / 'log.txt'
  if not path.exists():  # Ray may lose a task before it starts.
    return 'it has not started'
  log = path.read_text(encoding='utf-8', errors='replace')
  last = log.rpartition(f'\n{_START}')[2].splitlines()[1:]
  lines = [line.strip() for line in last if line.strip()]
  errors = [line for line in lines if line.startswith('error:')]
  return (errors or lines or ['it printed nothing'])[-1]
