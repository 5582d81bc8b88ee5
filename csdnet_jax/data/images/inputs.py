"""The pictures that a command is given: files, folders and globs."""

import base64
import glob
import io
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from csdnet_jax.data import cache, decode
from csdnet_jax.data.folders import EXTENSIONS
from csdnet_jax.data.images import splits
from csdnet_jax.runtime.errors import UserError


def find(given: Iterable[str | os.PathLike]) -> splits.Split:
  """Finds pictures; nothing is read yet.

  Args:
    given: files, whatever their names; folders, of which every picture is
      taken, by its extension, at any depth; globs ('**' is any depth), for
      which both hold. Hidden files and links to folders are passed by.

  Returns:
    The pictures in the order given, sorted within a folder or glob, each once;
    their labels are -1.

  Raises:
    UserError: for the first that names nothing.
  """
  paths = []
  for one in map(os.fspath, given):
    if os.path.isfile(one):
      found = [one]
    elif os.path.isdir(one):
      found = _pictures(one)
    else:
      # A shell expands globs itself unless they are quoted.
      matches = sorted(glob.glob(one, recursive=True))
      files = [m for m in matches if _is_picture(m) and os.path.isfile(m)]
      folders = [m for m in matches if os.path.isdir(m)]
      found = sorted({*files, *itertools.chain(*map(_pictures, folders))})
    if not found:
      known = ', '.join(EXTENSIONS)
      raise UserError(
        f'{one!r} is no file and holds no pictures ({known}); check the path.'
      )
    paths += map(os.path.normpath, found)
  return of_paths(list(dict.fromkeys(paths)))


def of_paths(paths: Sequence[str | os.PathLike]) -> splits.Split:
  """Returns files as pictures of unknown label, -1; nothing is read yet."""
  return splits.Split(
    # A name that is not UTF-8 could be neither printed nor put into a table.
    tuple(os.fsencode(p).decode('utf-8', 'backslashreplace') for p in paths),
    np.full(len(paths), -1, np.int32),
    lambda i: pathlib.Path(paths[i]).read_bytes(),
  )


def _pictures(folder: str) -> list[str]:
  found = []
  for parent, folders, names in os.walk(folder):
    folders[:] = [name for name in folders if not name.startswith('.')]
    found += [os.path.join(parent, n) for n in names if _is_picture(n)]
  return sorted(found)


def _is_picture(path: str) -> bool:
  name = os.path.basename(path)
  extension = name.rpartition('.')[2].lower()
  return not name.startswith('.') and extension in EXTENSIONS


def decoded(split: splits.Split, i: int) -> np.ndarray:
  """Returns picture i, uint8 [h, w, 3].

  Raises:
    decode.ImageError: if it cannot be read.
  """
  name = split.names[i]
  return decode.decode(cache.read(split.read, i, name), name)


def thumbnail(image: np.ndarray, side: int) -> str:
  """Returns a picture for a page that loads nothing: a data URI, JPEG.

  Args:
    image: uint8 [h, w, 3].
    side: pixels that its longer side has at most.
  """
  small, encoded = Image.fromarray(image), io.BytesIO()
  small.thumbnail((side, side))
  small.save(encoded, 'JPEG', quality=85)
  text = base64.b64encode(encoded.getvalue()).decode()
  return f'data:image/jpeg;base64,{text}'


def batches(
  split: splits.Split,
  view: Callable[[np.ndarray], np.ndarray],
  batch: int,
) -> Iterator[tuple[Sequence[int], np.ndarray, list[decode.ImageError]]]:
  """Reads every picture once, in order, some at a time.

  Args:
    split: n pictures.
    view: makes [S, S, 3] of each; called from several threads.
    batch: B, how many at a time.

  Yields:
    Which of the next B could be read, rows [b]; their views [b, S, S, 3], or
    None where b = 0; and the errors of the others.
  """

  def attempt(i):
    try:
      return view(decoded(split, i))
    except decode.ImageError as error:
      return error

  n = len(split.names)
  with ThreadPoolExecutor() as pool:
    chunks = (
      (start, pool.map(attempt, range(start, min(start + batch, n))))
      for start in range(0, n, batch)
    )
    # In pairs, so that a batch is read while the one before is used.
    for (start, results), _ in itertools.pairwise(
      itertools.chain(chunks, [None])
    ):
      results = dict(enumerate(results, start))
      errors = [r for r in results.values() if isinstance(r, decode.ImageError)]
      good = {i: r for i, r in results.items() if isinstance(r, np.ndarray)}
      yield list(good), np.stack([*good.values()]) if good else None, errors
