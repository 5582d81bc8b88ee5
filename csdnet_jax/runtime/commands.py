"""What all commands share: quiet libraries, and mistakes in a sentence."""

import contextlib
import errno
import importlib.util
import os
import pathlib
import sys
from collections.abc import Callable
from typing import NoReturn

import jax
from absl import flags, logging

from csdnet_jax.runtime.errors import UserError


@contextlib.contextmanager
def explained(config=None):
  """Turns what `explain` knows into a `UserError`; the rest passes.

  Args:
    config: as of `explain`.
  """
  try:
    yield
  except (OSError, ValueError, jax.errors.JaxRuntimeError) as error:
    sentence = explain(error, config)
    if sentence is None:
      raise
    raise UserError(sentence) from error


def explain(error: BaseException, config=None) -> str | None:
  """Returns the sentence for a user's mistake, None for a defect of ours.

  Args:
    error: what was raised.
    config: of the run, whose fields the sentence may name, or None.
  """
  if isinstance(error, UserError):
    return str(error)
  text = str(error)
  if (
    isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
  ) or 'No space left on device' in text:
    where = getattr(error, 'filename', None)
    where = where or (
      'a file' if config is None else 'the workdir or the cache'
    )
    kept = '' if config is None else ': everything saved so far is kept'
    return (
      f'The disk is full while writing to {where}; free some space and run the '
      f'same command again{kept}.'
    )
  if isinstance(error, jax.errors.JaxRuntimeError) and (
    'RESOURCE_EXHAUSTED' in text or 'ut of memory' in text
  ):
    if config is None:
      return (
        'The device is out of memory; stop what else runs on it, or set '
        'JAX_PLATFORMS=cpu.'
      )
    return (
      'The device is out of memory; set config.model.remat=True, lower '
      f'config.batch_size ({config.batch_size}) or config.model.size '
      f'({config.model.size}), or take a smaller config.model.name '
      f'({config.model.name}).'
    )
  return None


def end(main: Callable[[], int]) -> NoReturn:
  """Runs what a script does, and ends with its exit status.

  A user's mistake ends it in a sentence, as `explain` says.
  """
  try:
    sys.exit(main())
  except (UserError, OSError) as error:
    sentence = explain(error)
    if sentence is None:
      raise
    sys.exit(f'error: {sentence}')


def quiet() -> None:
  """Orbax and JAX narrate at INFO; a command has its own words."""
  logging.use_absl_handler()
  logging.set_verbosity(logging.WARNING)
  # It logs the traceback of what it raises as well; one of them is enough.
  logging.get_absl_handler().addFilter(lambda r: 'orbax' not in r.pathname)
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  # Grain reads absl's flags, of which a command has none.
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()


def keep_compiled(folder: pathlib.Path) -> None:
  """Keeps compiled programs: a second start takes seconds, not minutes.

  Args:
    folder: for them; a cache that JAX was told of goes before it.
  """
  if not jax.config.jax_compilation_cache_dir:
    jax.config.update('jax_compilation_cache_dir', str(folder))


def require(module: str, extra: str) -> None:
  """Asks for a library that only one command needs.

  Raises:
    UserError: if it is not installed; says which extra brings it.
  """
  if importlib.util.find_spec(module) is None:
    raise UserError(
      f'{module} is not installed; run pip install "csdnet_jax[{extra}]".'
    )


def out_path(flag: str, given: str, suffix: str) -> pathlib.Path:
  """Returns where a command writes; asked before the work, not after it.

  Args:
    flag: that names it, such as '--out'.
    given: the path; a file of that name is replaced in the end.
    suffix: that it must have, so that a slip replaces no picture.

  Raises:
    UserError: if the suffix is another, or nothing can be written there.
  """
  path = pathlib.Path(os.path.expanduser(given))
  if path.suffix.lower() != suffix or path.is_dir():
    raise UserError(f'{flag}={given} must name a file that ends in {suffix}.')
  if not path.parent.is_dir():
    raise UserError(
      f'{flag}={given}: there is no folder {path.parent}; make it first.'
    )
  if not os.access(path.parent, os.W_OK):
    raise UserError(
      f'{flag}={given}: the folder {path.parent} cannot be written; choose '
      'another.'
    )
  return path
