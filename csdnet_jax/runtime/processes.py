"""Several processes: how they meet, and how none waits for one that stopped."""

import contextlib
import os
import uuid

import jax
import numpy as np

from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError

_VARIABLES = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')


def join() -> None:
  """Finds the other processes: by the cluster, or by three variables.

  Raises:
    UserError: if there are none, or the variables are incomplete or wrong.
  """
  given = {name: os.environ.get(name, '') for name in _VARIABLES}
  absent = [name for name, value in given.items() if not value]
  if 0 < len(absent) < len(given):
    present = [name for name in given if name not in absent]
    raise UserError(
      f'--distributed needs all three of {", ".join(_VARIABLES)}, or none on a '
      f'TPU pod or under SLURM: {" and ".join(present)} is set, '
      f'{" and ".join(absent)} is not.'
    )
  _, count, index = given.values()
  try:
    jax.distributed.initialize(
      num_processes=int(count) if count else None,
      process_id=int(index) if index else None,
    )
  except ValueError as error:
    raise UserError(
      f'--distributed found no other processes ({error}); start it on a TPU '
      f'pod or under SLURM, or set {", ".join(_VARIABLES)}.'
    ) from error


@contextlib.contextmanager
def collective():
  """What stops one process stops all of them, once all are here.

  Inside a process may wait for another only where that one comes whatever fails
  in it.

  Raises:
    UserError: on the processes that did not fail themselves; these raise what
      has stopped them.
  """
  problem = None
  try:
    yield
  except Exception as error:
    problem = error
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    failed = multihost_utils.process_allgather(np.array(problem is not None))
    if failed.any() and problem is None:
      raise UserError(
        f'Process {int(np.argmax(failed))} has stopped, and this one with it; '
        'its own output says why.'
      )
  if problem is not None:
    raise problem


def of_first(data: bytes) -> bytes:
  """Returns what process 0 gives; all give equally many bytes."""
  if jax.process_count() == 1:
    return data
  from jax.experimental import multihost_utils

  array = np.frombuffer(data, np.uint8)
  return np.asarray(multihost_utils.broadcast_one_to_all(array)).tobytes()


def require_shared(workdir: paths.Path) -> None:
  """Checks that every process sees the workdir that the first one made.

  Raises:
    UserError: on every process, if one of them does not.
  """
  if jax.process_count() == 1:
    return
  token = of_first(uuid.uuid4().bytes)
  # A new name: an old one may be in a network disk's cache.
  mark = workdir / f'.shared-{token.hex()}'
  with collective():
    if jax.process_index() == 0:
      mark.write_bytes(token)
  try:
    with collective():
      if not mark.exists() or mark.read_bytes() != token:
        raise UserError(
          f'Process {jax.process_index()} does not see what process 0 writes '
          f'in the workdir {workdir}; give --workdir a folder that all hosts '
          'share, or a gs:// path.'
        )
  finally:
    if jax.process_index() == 0:
      mark.unlink(missing_ok=True)
