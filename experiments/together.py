"""Points of a grid that share a program, trained in one process.

`experiments.run --together=N` plans them and starts `python -m
experiments.together FOLDER` for each batch, a process of its own as a point
has, so that what it held on a GPU is free after it.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from csdnet_jax.data.cache import cache_dir
from csdnet_jax.runtime import commands, writers
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import say
from csdnet_jax.tasks import classification
from csdnet_jax.training.fit import fit
from csdnet_jax.training.together import group, grouping, train
from csdnet_jax.training.workdir import holds_run
from experiments import results
from experiments.execute import (
  DONE,
  FAILED,
  RUNNING,
  STOPPED,
  last_words,
  local,
  note,
  watch,
)
from experiments.grid import Point, resolve

# Runs at most of a program where nobody says: what a GPU's memory does not
# hold is halved.
ON_A_GPU = 64
_ALONE = 3  # Exit status: the runs cannot share a program after all.


class Batch(NamedTuple):
  """Points that are run in one process.

  Attributes:
    points: in the order of the grid.
    program: counts the programs; of two batches of one it is the same.
  """

  points: tuple[Point, ...]
  program: int

  @property
  def folder(self) -> str:
    """The same for the same points, below that of the grid."""
    names = json.dumps([point.name for point in self.points])
    return f'together/{hashlib.sha256(names.encode()).hexdigest()[:12]}'


def default() -> int:
  """Returns how many runs share a program here where nobody says."""
  if jax.config.jax_platforms == 'cpu':
    return 1
  # Asked elsewhere: who asks for a device holds it, and the runs need it.
  question = 'import jax; print(jax.default_backend())'
  answer = subprocess.run(
    [sys.executable, '-c', question], capture_output=True, text=True
  )
  # Of a CPU's own cores nobody has measured it yet (docs/scale-out.md).
  return ON_A_GPU if answer.stdout.strip() == 'gpu' else 1


def plan(
  points: Sequence[Point], workdir: pathlib.Path, most: int
) -> list[Batch]:
  """Returns which points are run together, each once.

  Args:
    points: to be run.
    workdir: of the grid. What a point alone has begun there goes on alone.
    most: in one batch; batches of a program are as equal as can be, so that
      what is left of them makes the same ones again.
  """
  configs, sizes, single, own = [], [], [], []
  for point in points:
    config = resolve(point.arguments)
    try:
      size = results.sizes_of(config)
      config, _ = fit(config, dict(size.parts)['train'])
    except UserError:
      # Its own process says so.
      single.append(point)
      continue
    if holds_run(workdir / point.name):
      single.append(point)
      continue
    own.append(point)
    configs.append(config)
    sizes.append(size)
  batches = []
  for number, rows in enumerate(grouping.groups(configs, sizes)):
    parts = np.array_split(rows, -(-len(rows) // most))
    batches += [Batch(tuple(own[i] for i in part), number) for part in parts]
  batches += [Batch((point,), -1) for point in single]
  order = {point: i for i, point in enumerate(points)}
  return sorted(batches, key=lambda batch: order[batch.points[0]])


def describe(batches: Sequence[Batch]) -> Iterator[str]:
  """Yields a line for each program of more than one run, and of the others."""
  programs, alone = {}, 0
  for batch in batches:
    if len(batch.points) > 1:
      programs.setdefault(batch.program, []).append(batch.points)
    else:
      alone += 1
  for parts in programs.values():
    points = [point for part in parts for point in part]
    arms = dict.fromkeys(point.arm for point in points)
    sizes = ' + '.join(str(len(part)) for part in parts)
    yield f'one program, {sizes} runs together: {"; ".join(arms)}'
  if alone:
    yield f'one by one: {alone}'


def launch(
  points: Iterable[Point],
  workdir: pathlib.Path,
  stop: Callable[[], bool],
  *,
  most: int,
  programs: int = 1,
) -> Iterator[tuple[Point, str]]:
  """What `execute.local` does, with points together that can share a program.

  Args:
    points: to be run, all of them taken at once.
    workdir: of the grid.
    stop: whether to end now; a running batch is told to save first.
    most: points in one batch.
    programs: batches at a time, each in a process of its own.
  """
  batches = plan(list(points), workdir, most)
  programs = max(1, min(programs, len(batches)))
  over, events = threading.Event(), queue.SimpleQueue()

  def told() -> bool:
    return over.is_set() or stop()

  def follow(batch):
    try:
      if not told():
        for event in _run(batch, workdir, told, _environment(batch, programs)):
          events.put(event)
      events.put(None)
    except BaseException as error:
      events.put(error)

  with concurrent.futures.ThreadPoolExecutor(programs) as threads:
    try:
      for batch in batches:
        threads.submit(follow, batch)
      left = len(batches)
      while left:
        event = events.get()
        if isinstance(event, BaseException):
          raise event
        if event is None:
          left -= 1
        else:
          yield event
    finally:
      over.set()


def _environment(batch: Batch, programs: int) -> dict[str, str]:
  """What the process of a batch needs, but for what the user has set."""
  env = {}
  if programs > 1:
    env['XLA_PYTHON_CLIENT_MEM_FRACTION'] = f'{0.9 / programs:.3f}'
    env['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'
  env = {key: value for key, value in env.items() if key not in os.environ}
  if len(batch.points) > 1:
    # Many small programs, each run once: timing kernels on a GPU takes longer
    # than it saves. Of a flag that is given twice the last counts.
    flags = '--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false'
    env['XLA_FLAGS'] = f'{flags} {os.environ.get("XLA_FLAGS", "")}'.strip()
  return env


def _run(batch: Batch, workdir, stop, env) -> Iterator[tuple[Point, str]]:
  if len(batch.points) == 1:
    yield from local(batch.points, workdir, stop, env)
    return
  for point in batch.points:
    yield point, RUNNING
  folder = workdir / batch.folder
  folder.mkdir(parents=True, exist_ok=True)
  named = {point.name: point.arguments for point in batch.points}
  writers.write_json(folder / 'points.json', named)
  (folder / 'failed.json').unlink(missing_ok=True)
  command = [sys.executable, '-m', 'experiments.together', str(folder)]
  status, told = watch(command, folder, stop, env)
  if status == _ALONE:
    say(last_words(folder))
    for point in batch.points:
      if not stop():
        yield from local([point], workdir, stop, env)
    return
  why = {}
  if (folder / 'failed.json').exists():
    why = results.load(folder / 'failed.json')
  stopped = told or stop() or status == 0
  for point in batch.points:
    if (workdir / point.name / 'summary.json').exists():
      yield point, DONE
    elif stopped and point.name not in why:
      yield point, STOPPED
    else:
      sentence = why.get(point.name) or last_words(folder)
      note(workdir / point.name, command, sentence.removeprefix('error: '))
      yield point, FAILED


# ------------------------------------------------------------- in the process


def main(folder: pathlib.Path) -> int:
  """Trains the points that `points.json` of a folder names.

  Returns:
    The exit status.
  """
  points = results.load(folder / 'points.json')
  datasets, runs = {}, []
  for name, arguments in points.items():
    config = resolve(arguments)
    read = json.dumps(config.data.to_dict())
    if read not in datasets:
      datasets[read] = classification.load(config)
    dataset = datasets[read]
    config, notes = fit(config, len(dataset.train.names))
    for sentence in notes if not runs else ():
      say(sentence)
    runs.append(group.Run(config, dataset, folder.parents[1] / name))
  config = runs[0].config
  commands.keep_compiled(cache_dir(config.data.cache) / 'xla')
  try:
    with commands.explained(config):
      _require_same_code(folder, config)
      failed = train.train(runs, folder)
  except jax.errors.ConcretizationTypeError:
    # Somebody's method has an `if` on a number that is traced here.
    say(
      f'Python reads a number of config.method.name={config.method.name} that '
      'differs from run to run (docs/extend.md); they are run one by one.'
    )
    return _ALONE
  why = {
    run.workdir.name: sentence
    for run, sentence in zip(runs, failed or [''] * len(runs), strict=True)
    if sentence
  }
  if why:
    writers.write_json(folder / 'failed.json', why)
  return 0


def _require_same_code(folder: pathlib.Path, config) -> None:
  """Refuses to go on with what other code began, here or in a half below."""
  now = results.code_now(config)
  for path in folder.rglob('environment.json'):
    begun = results.code_of(path.parent)
    if begun is not None and (path.parent / 'checkpoints').is_dir():
      results.require_same_code(path.parent, begun, now)


if __name__ == '__main__':
  commands.quiet()
  commands.end(lambda: main(pathlib.Path(sys.argv[1])))
