"""What all commands share: how one starts, and how it ends in a sentence."""

import argparse
import errno
import importlib.util
import os
import pathlib
import sys
from collections.abc import Callable
from typing import NoReturn

import jax
from absl import logging

from csdnet_jax import methods
from csdnet_jax.data.cache import cache_dir
from csdnet_jax.inference import trained as run_lib
from csdnet_jax.runtime import environment
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import console, say


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
    where = getattr(error, 'filename', None) or 'the workdir or the cache'
    return (
      f'The disk is full while writing to {where}; free some space and run the '
      'same command again: everything saved so far is kept.'
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


def fail(sentence: str) -> NoReturn:
  """Prints the sentence and exits with status 2."""
  console.print(f'error: {sentence}', style='red', markup=False)
  sys.stdout.flush()
  sys.exit(2)


def quiet() -> None:
  """Orbax and JAX narrate at INFO; a command has its own words."""
  logging.set_verbosity(logging.WARNING)
  # It logs the traceback of what it raises as well; one of them is enough.
  logging.get_absl_handler().addFilter(lambda r: 'orbax' not in r.pathname)
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')


def cache_compiled(cache: str) -> None:
  """Keeps compiled programs: a second start takes seconds, not minutes.

  Args:
    cache: `config.data.cache`; a cache that JAX was told of goes before it.
  """
  if not jax.config.jax_compilation_cache_dir:
    folder = cache_dir(cache) / 'xla'
    jax.config.update('jax_compilation_cache_dir', str(folder))


def start(main: Callable[[list[str]], int | None]) -> NoReturn:
  """Runs a command that uses a finished run, and exits with its status.

  Args:
    main: takes the arguments; returns the exit status, None for 0.
  """
  quiet()
  try:
    status = main(sys.argv[1:])
  except KeyboardInterrupt:
    fail('Interrupted.')
  except (UserError, OSError, ValueError, jax.errors.JaxRuntimeError) as error:
    sentence = explain(error)
    if sentence is None:
      raise
    fail(sentence)
  sys.exit(status)


def parser(name: str, doc: str) -> argparse.ArgumentParser:
  """Returns the parser of `python -m csdnet_jax.<name>`, with its --run."""
  made = argparse.ArgumentParser(
    prog=f'python -m csdnet_jax.{name}',
    description=doc,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  made.add_argument(
    '--run', required=True, metavar='DIR', help='the workdir of a trained run'
  )
  return made


def require(module: str, extra: str) -> None:
  """Asks for a library that only this command needs.

  Raises:
    UserError: if it is not installed; says which extra brings it.
  """
  if importlib.util.find_spec(module) is None:
    raise UserError(
      f'{module} is not installed; run pip install -e ".[{extra}]".'
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


def open_run(workdir: str, *, segments: bool = False) -> run_lib.TrainedRun:
  """Loads a run for a command and says what it is.

  Args:
    workdir: of the run.
    segments: whether the command can use one of segmentation.

  Raises:
    UserError: if it cannot, and as `run.load_run`.
  """
  for note in environment.device_notes():
    say(note)
  run = run_lib.load_run(workdir)
  if methods.task(run.config) == 'segmentation' and not segments:
    raise UserError(
      f'{workdir} is a run of segmentation, which this command cannot use: it '
      'names one class for a whole image. Export the network '
      '(csdnet_jax.inference.export), or evaluate it (--eval_only).'
    )
  cache_compiled(run.config.data.cache)
  say(
    f'{workdir}: {run.config.method.name} with {run.config.model.name} at '
    f'{run.config.model.size} px, {len(run.class_names)} classes, step '
    f'{run.step}.'
  )
  return run


def report(problems: list[str]) -> int:
  """Lists the pictures that could not be read; returns the exit status."""
  if not problems:
    return 0
  say(f'Left out, {len(problems)} images that cannot be read:', style='red')
  for problem in problems:
    say(f'  {problem}', style='red')
  return 1
