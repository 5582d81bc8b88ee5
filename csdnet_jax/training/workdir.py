"""The folder of a run: who may write in it, and what it was started with."""

import contextlib
import errno

import jax

from csdnet_jax import tasks
from csdnet_jax.config import differences, to_json
from csdnet_jax.runtime import paths, processes, writers
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import say
from csdnet_jax.training import places
from csdnet_jax.training.fit import fit
from csdnet_jax.training.restore import read_run

try:
  import fcntl
except ImportError:  # Windows.
  fcntl = None

# What a network disk without locks answers.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_UNLOCKED = 'Nothing locks {}: start no second run in it.'


@contextlib.contextmanager
def lock(config, workdir: paths.Path):
  """Makes the workdir, or checks that it holds the same run, and locks it.

  Args:
    config: of the run, as given.
    workdir: what a start that saved nothing has left in it is removed.

  Raises:
    UserError: if it cannot be written, holds another config, or is in use.
  """
  with contextlib.ExitStack() as stack:
    with processes.collective():
      if jax.process_index() == 0:
        stack.enter_context(lock_file(workdir))
        _claim(config, workdir)
    processes.require_shared(workdir)
    yield


class BusyError(UserError):
  """Another process works in a workdir."""


def lock_file(workdir: paths.Path):
  """Makes the workdir and keeps other runs out of it until it is closed.

  Raises:
    BusyError: another process does so.
    UserError: it cannot be written.
  """
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    # A lock in a store would outlive a kill, and the run could not continue.
    if fcntl is None or paths.is_remote(workdir):
      say(_UNLOCKED.format(workdir))
      return contextlib.nullcontext()
    lock = open(workdir / '.lock', 'w')  # noqa: SIM115
  except OSError as error:
    if error.errno == errno.ENOSPC:
      raise
    raise UserError(
      f'The workdir {workdir} cannot be written ({error.strerror or error}); '
      'choose another with --workdir.'
    ) from error
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    lock.close()
    raise BusyError(
      f'Another process is training in {workdir}; wait for it, or choose '
      'another --workdir.'
    ) from error
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      lock.close()
      raise
    say(_UNLOCKED.format(workdir))
  return lock


def _claim(config, workdir: paths.Path) -> None:
  """Checks that the workdir holds the same run, or clears it for a new one."""
  if not require_same(config, workdir):
    for name in (
      'split.json', 'start.json', 'metrics.jsonl', 'teacher.json',
      'environment.json', 'calibration.json', 'embeddings.npz', 'unknown.json',
    ):  # fmt: skip
      (workdir / name).unlink(missing_ok=True)


def require_same(config, workdir: paths.Path) -> bool:
  """Returns whether a workdir holds this run already.

  Raises:
    UserError: if it holds a run of another config.
  """
  if not holds_run(workdir):
    return False
  known, split = read_run(workdir)
  given, _ = fit(config, len(split['train']))
  # Both: a run of an earlier version kept its paths as they were given.
  changed = differences(places.from_root(known), places.from_root(given))
  if changed:
    raise UserError(
      f'{workdir} holds a run of another config ({"; ".join(changed)}); '
      'choose another --workdir, or go back to those values.'
    )
  return True


def holds_run(workdir: paths.Path) -> bool:
  """Whether a run has saved anything that a start continues."""
  saved = workdir / 'checkpoints'
  begun = saved.is_dir() and any(saved.iterdir())
  return begun or (workdir / 'summary.json').exists()


def write_inputs(config, dataset, workdir: paths.Path) -> None:
  """Writes the config, the split and the class names of a run."""
  if jax.process_index() == 0:
    writers.write_text(workdir / 'config.json', to_json(config))
    split = tasks.of(config).split_of(dataset)
    writers.write_json(workdir / 'split.json', split)
    writers.write_json(workdir / 'class_names.json', dataset.class_names)
