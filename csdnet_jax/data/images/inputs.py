"""The pictures that a command is given: files, folders and globs."""

import base64
import glob
import io
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from csdnet_jax.data import cache, decode, folders, formats
from csdnet_jax.data.batches import one_behind
from csdnet_jax.data.images import splits
from csdnet_jax.runtime.errors import UserError, printable
from csdnet_jax.runtime.paths import read_bytes


class Found(NamedTuple):
  """The pictures that somebody has named, and what was passed by.

  Attributes:
    split: the pictures; their labels are -1.
    unused: what lies in the folders and among the matches and is no picture
      that is read, by its whole path.
  """

  split: splits.Split
  unused: tuple[folders.Unused, ...]


def find(given: Iterable[str | os.PathLike]) -> Found:
  """Finds pictures; nothing is read yet.

  Args:
    given: files, whatever their names; folders, of which every picture is
      taken, by its extension, at any depth; globs ('**' is any depth), for
      which both hold. '~' is the home folder.

  Returns:
    The pictures in the order given, sorted within a folder or glob, each once.

  Raises:
    UserError: for the first that names nothing, or neither file nor folder.
  """
  paths, unused = [], []
  for one in map(os.path.expanduser, map(os.fspath, given)):
    if os.path.isfile(one):
      found, passed_by = [one], []
    elif os.path.isdir(one):
      found, passed_by = _in_folder(one)
    elif os.path.exists(one):
      raise UserError(
        f'{printable(one)} is a pipe, a socket or a device; give a file'
      )
    else:
      found, passed_by = _matches(one)
    if not found:
      known = ', '.join(formats.extensions())
      said = folders.said(passed_by)
      raise UserError(
        f'{one!r} is no file and holds no pictures ({known})'
        f'{said and f"; {said}"}; check the path.'
      )
    paths += map(os.path.normpath, found)
    unused += passed_by
  taken = set(paths)
  return Found(
    of_paths(list(dict.fromkeys(paths))),
    tuple(u for u in dict.fromkeys(unused) if u.path not in taken),
  )


def _matches(pattern: str) -> tuple[list[str], list[folders.Unused]]:
  """What a glob names: a shell expands it itself unless it is quoted."""
  found, unused = set(), []
  for match in glob.glob(pattern, recursive=True):
    if os.path.islink(match) and not os.path.isfile(match):
      unused.append(_unused(match, folders.LINKS))
    elif os.path.isdir(match):
      images, passed_by = _in_folder(match)
      found.update(images)
      unused += passed_by
    elif not os.path.isfile(match):
      unused.append(_unused(match, folders.NO_FILES))
    elif formats.is_read(match):
      found.add(match)
    else:
      unused.append(_unused(match, folders.reason_of(match)))
  return sorted(found), unused


def _in_folder(folder: str) -> tuple[list[str], list[folders.Unused]]:
  images, unused = folders.under(pathlib.Path(folder))
  return sorted(map(str, images)), [_unused(str(e), r) for e, r in unused]


def _unused(path: str, reason: str) -> folders.Unused:
  return folders.Unused(printable(os.path.normpath(path)), reason)


def of_paths(paths: Sequence[str | os.PathLike]) -> splits.Split:
  """Returns files as pictures of unknown label, -1; nothing is read yet."""
  return splits.Split(
    # A name that is not UTF-8 could be neither printed nor put into a table.
    tuple(os.fsencode(p).decode('utf-8', 'backslashreplace') for p in paths),
    np.full(len(paths), -1, np.int32),
    lambda i: _read(paths[i]),
  )


def _read(path: str | os.PathLike) -> bytes:
  return read_bytes(pathlib.Path(os.path.expanduser(path)))


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
    # A batch is read while the one before is used.
    for start, results in one_behind(chunks):
      results = dict(enumerate(results, start))
      errors = [r for r in results.values() if isinstance(r, decode.ImageError)]
      good = {i: r for i, r in results.items() if isinstance(r, np.ndarray)}
      yield list(good), np.stack([*good.values()]) if good else None, errors
