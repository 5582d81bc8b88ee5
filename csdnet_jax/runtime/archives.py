"""Arrays in files: an .npz is there as a whole or not at all."""

import io
import zipfile
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from csdnet_jax.runtime import paths, writers
from csdnet_jax.runtime.errors import UserError

Made = TypeVar('Made')


def write(path: paths.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes an .npz of these arrays, by name."""
  archive = io.BytesIO()
  np.savez(archive, **arrays)
  writers.write_bytes(path, archive.getvalue())


def read(
  path: paths.Path,
  make: Callable[[Mapping[str, np.ndarray]], Made],
  remedy: str,
) -> Made:
  """Returns what `make` makes of the arrays of an .npz; nothing is unpickled.

  Args:
    path: of the file.
    make: takes the arrays by name.
    remedy: what to do about a file that is none, the end of the sentence.

  Raises:
    UserError: if it cannot be read, or does not hold what `make` wants.
  """
  try:
    with np.load(io.BytesIO(paths.read_bytes(path))) as file:
      return make(file)
  except (
    EOFError, KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile
  ) as error:  # fmt: skip
    raise UserError(f'{path} cannot be read ({error}); {remedy}') from error
