"""Runs the points of a grid on a Ray cluster, one task each.

Ray decides where: it joins the cluster that RAY_ADDRESS names, or starts one on
this computer. A point takes a GPU where the cluster has any, else the CPUs that
EXPERIMENT_CPUS says (1). All machines must see the same workdir, data and
cache, by the same paths, and have this repository as their working directory.
"""

import importlib.util
import os
import pathlib
import signal
from collections.abc import Callable, Iterable, Iterator

from csdnet_jax.runtime.errors import UserError, first_line
from experiments.execute import FAILED, RUNNING, execute
from experiments.grid import Point


def launch(
  points: Iterable[Point], workdir: pathlib.Path, stop: Callable[[], bool]
) -> Iterator[tuple[Point, str]]:
  """What `execute.local` does, many points at a time.

  Raises:
    UserError: if Ray is not installed.
  """
  if importlib.util.find_spec('ray') is None:
    raise UserError('Ray is not installed; run pip install "csdnet_jax[ray]".')
  import ray

  handler = signal.getsignal(signal.SIGTERM)
  try:
    ray.init(log_to_driver=False)
  except (ConnectionError, ValueError) as error:
    raise UserError(
      f'Ray cannot start ({first_line(error)}); check RAY_ADDRESS.'
    ) from error
  # Ray's own would end this process before its points have saved.
  signal.signal(signal.SIGTERM, handler)
  try:
    yield from _schedule(ray, iter(points), workdir.resolve(), stop)
  finally:
    ray.shutdown()


def _schedule(ray, points, workdir, stop):
  """Keeps as many tasks as the cluster has room for."""
  resources = ray.cluster_resources()
  needs = {'num_cpus': _cpus()}
  slots = int(resources.get('CPU', 1) // needs['num_cpus'])
  if resources.get('GPU'):
    needs['num_gpus'] = 1
    slots = min(slots, int(resources['GPU']))
  here = os.getcwd()

  def point_task(point, told):
    os.chdir(here)
    path = pathlib.Path(told)
    return execute(point, workdir, path.exists)

  task = ray.remote(**needs, max_retries=0)(point_task)
  # Seen by the tasks wherever they run, as the workdir is.
  told = workdir / '.stop'
  workdir.mkdir(parents=True, exist_ok=True)
  told.unlink(missing_ok=True)
  running = {}
  while True:
    while len(running) < max(slots, 1) and not stop():
      point = next(points, None)
      if point is None:
        break
      running[task.remote(point, str(told))] = point
      yield point, RUNNING
    if not running:
      break
    if stop():
      told.touch()
    ready, _ = ray.wait(list(running), timeout=0.5)
    for reference in ready:
      yield running.pop(reference), _outcome(ray, reference)
  told.unlink(missing_ok=True)


def _cpus() -> float:
  text = os.environ.get('EXPERIMENT_CPUS', '1')
  try:
    if (cpus := float(text)) > 0:
      return cpus
  except ValueError:
    pass
  raise UserError(f'EXPERIMENT_CPUS is {text!r}; say a number above 0.')


def _outcome(ray, reference) -> str:
  try:
    return ray.get(reference)
  except ray.exceptions.RayError as error:
    print(f'A task of Ray was lost: {error}', flush=True)
    return FAILED
