"""Folders on a disk and in an object store, through one interface."""

import os
import pathlib

import fsspec
from etils import epath

from csdnet_jax.runtime.errors import UserError

Path = pathlib.Path | epath.Path


def is_remote(path: str | os.PathLike) -> bool:
  """Returns whether it lies in an object store.

  >>> is_remote('gs://bucket/runs'), is_remote('runs')
  (True, False)
  """
  return '://' in os.fspath(path)


def of(path: str | os.PathLike) -> Path:
  """Returns the path with the methods of `pathlib.Path`, ~ expanded.

  A path of the disk is pathlib's own: symbolic links, locks and atomic renames,
  of which an object store has none, work there as ever.

  Raises:
    UserError: if it is in a store that cannot be read.
  """
  if not is_remote(path):
    # A shell expands the ~ of `--workdir ~/runs`, not of `--workdir=~/runs`.
    return pathlib.Path(os.path.expanduser(path))
  if not os.fspath(path).startswith('gs://'):
    raise UserError(f'{path} is neither a folder nor a gs:// path; give one.')
  try:
    fsspec.get_filesystem_class('gs')
  except ImportError as error:
    raise UserError(
      f'{path} takes a library that is not installed; run '
      'pip install "csdnet_jax[gcs]".'
    ) from error
  return epath.Path(path)


def absolute(path: Path) -> Path:
  """Returns the path from the root; in a store it starts there already."""
  return path if is_remote(path) else path.absolute()


def resolve(path: Path) -> Path:
  """The same with symbolic links followed, of which a store has none."""
  return path if is_remote(path) else path.resolve()


def read_bytes(path: Path) -> bytes:
  """Returns what a file holds, and waits for nobody to write into it.

  Raises:
    OSError: if it cannot be read, or is a pipe, a socket or a device, of which
      the first never ends where nobody writes.
  """
  special = not is_remote(path) and path.exists()
  if special and not (path.is_file() or path.is_dir()):
    raise OSError('it is a pipe, a socket or a device')
  return path.read_bytes()


def of_disk(path: str | os.PathLike, field: str, why: str) -> pathlib.Path:
  """Returns a path that must be of this host's disk, ~ expanded.

  Args:
    path: as given.
    field: that gives it, such as 'config.data.cache'.
    why: it must be, as the end of a sentence.

  Raises:
    UserError: if it lies in an object store.
  """
  if is_remote(path):
    raise UserError(f'{field}={path} must be a folder on a disk: {why}.')
  return pathlib.Path(os.path.expanduser(path))
