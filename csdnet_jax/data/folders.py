"""Folders of images, with or without masks: what lies in them, checked."""

import os
import pathlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError

EXTENSIONS = ('jpg', 'jpeg', 'png', 'bmp', 'gif', 'tif', 'tiff', 'webp')
_THREADS = 16


class Unused(NamedTuple):
  """What lies in a folder of images and is not used.

  Attributes:
    path: of the file or folder, relative to the root.
    reason: by which such things are counted, such as '.HEIC'.
  """

  path: str
  reason: str


def root_of(root: str | os.PathLike) -> paths.Path:
  """The folder that `config.data.root` names, links followed.

  Raises:
    UserError: it names none.
  """
  if not os.fspath(root):
    raise UserError(
      'config.data.root is empty; set it to your folder of images'
    )
  root = paths.of(root)
  if not root.is_dir():
    raise UserError(
      f'config.data.root={root} is not a folder; set it to your folder of '
      'images'
    )
  return paths.resolve(root)


def walk(folder: paths.Path, root: paths.Path) -> Iterable[str]:
  """Yields the path under the root of every image in the folder."""
  for entry in entries_of(folder, root):
    if entry.is_dir():
      yield from walk(entry, root)
    elif is_image(entry):
      yield entry.relative_to(root).as_posix()


def entries_of(folder: paths.Path, root: paths.Path) -> list[paths.Path]:
  """What lies in a folder, sorted, without hidden files; checks names, links.

  Raises:
    UserError: the folder cannot be read; a name is not UTF-8, which neither the
      split nor the predictions could hold; a link leads to a folder, to nothing
      or out.
  """
  try:
    entries = [e for e in folder.iterdir() if not e.name.startswith('.')]
  except OSError as error:
    raise UserError(
      f'The folder {folder} cannot be read ({error.strerror or error}); change '
      'its permissions, or move it away.'
    ) from error
  for entry in entries:
    try:
      entry.name.encode()
    except UnicodeEncodeError as error:
      raise UserError(
        f'{entry.name!r} in {folder} is no UTF-8 name; rename it.'
      ) from error
    if paths.is_remote(entry) or not entry.is_symlink():
      continue
    # A link to a folder may lead into a circle, even inside the root.
    if not entry.is_file() or not entry.resolve().is_relative_to(root):
      raise UserError(
        f'{entry} is a link to a folder, to nothing or out of {root}; replace '
        'it by what it points to, or remove it'
      )
  return sorted(entries, key=lambda e: e.name)


def is_image(entry: paths.Path) -> bool:
  """Whether it is a file with the extension of an image."""
  _, _, extension = entry.name.rpartition('.')
  return extension.lower() in EXTENSIONS and entry.is_file()


def lines_of(
  path: paths.Path, form: str = "'<path under images/> <label>' for each image"
) -> list[str]:
  """The lines of a text file; `form` says what one is, should it be absent."""
  if not path.is_file():
    raise UserError(f'{path} is absent; write one line {form}')
  try:
    return path.read_bytes().decode('utf-8-sig').splitlines()
  except UnicodeDecodeError as e:
    raise UserError(f'{path} is not UTF-8 text; save it as UTF-8') from e


def is_inside(name: str, images: paths.Path, root: paths.Path) -> bool:
  """Whether `name`, under `images`, lies in the root, links followed."""
  path = pathlib.PurePosixPath(name)
  if path.is_absolute() or '..' in path.parts:
    return False
  return paths.resolve(images / path).is_relative_to(root)


def missing_of(images: paths.Path, named: Sequence[str]) -> list[str]:
  """Those of the named files that are not in the folder."""
  # Together, since an object store takes its time to answer each.
  with ThreadPoolExecutor(_THREADS) as pool:
    there = pool.map(lambda n: (images / n).is_file(), named)
    return [n for n, found in zip(named, there, strict=True) if not found]
