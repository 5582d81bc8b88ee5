"""Folders of images, with or without masks: what lies in them, checked."""

import collections
import os
import pathlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from csdnet_jax.data import formats
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError, printable

_THREADS = 16

# Why something is not used, as what follows its number; the singular below.
UNKNOWN = 'of unknown kind'
FOLDERS = 'folders'
EMPTY = 'empty class folders'
IMAGELESS = 'class folders without images'
LINKS = 'links'
HIDDEN = 'hidden'
NO_FILES = 'pipes, sockets or devices'
_SINGULAR = {
  'folders': 'folder', 'images': 'image', 'links': 'link', 'lists': 'list',
  'pipes,': 'pipe,', 'sockets': 'socket', 'devices': 'device',
}  # fmt: skip
_NAMED = 3  # Of each reason.

# What operating systems and file servers leave behind; nobody put it there.
_JUNK = frozenset(
  name.casefold()
  for name in (
    '.DS_Store', 'Thumbs.db', 'ehthumbs.db', 'desktop.ini', '__MACOSX',
    '.ipynb_checkpoints', '@eaDir', 'lost+found', '$RECYCLE.BIN',
    'System Volume Information', '.Spotlight-V100', '.Trashes',
    '.fseventsd', '.TemporaryItems', '.AppleDouble', '.apdisk', '.localized',
    '.directory', 'Icon\r',
  )
)  # fmt: skip
_JUNK_STARTS = ('._', '.Trash-', '.nfs', '.fuse_hidden')


class Unused(NamedTuple):
  """What lies in a folder of images and is not used.

  Attributes:
    path: of the file or folder, relative to the root, on one line.
    reason: by which such things are counted, such as '.HEIC'.
  """

  path: str
  reason: str


class Listing(NamedTuple):
  """What lies in a folder, sorted by name, without operating systems' junk.

  Attributes:
    folders: that can be looked into.
    images: files called as pictures that are read.
    unused: everything else, with the reason.
  """

  folders: list[paths.Path]
  images: list[paths.Path]
  unused: list[tuple[paths.Path, str]]


def root_of(root: str | os.PathLike) -> paths.Path:
  """The folder that `config.data.root` names, links followed.

  Raises:
    UserError: it names none.
  """
  if not os.fspath(root):
    raise UserError(
      'config.data.root is empty; set --config.data.root=FOLDER, your folder '
      'of images'
    )
  root = paths.of(root)
  if not root.is_dir():
    raise UserError(
      f'config.data.root={root} is not a folder; set '
      '--config.data.root=FOLDER, your folder of images'
    )
  return paths.resolve(root)


def listing(folder: paths.Path, root: paths.Path | None = None) -> Listing:
  """Lists a folder; nothing in it is opened.

  Args:
    folder: to list.
    root: a link to a file is used if that lies in this folder; None if it may
      lie anywhere. Links to folders may lead into a circle and never are.

  Raises:
    UserError: the folder cannot be read.
  """
  try:
    entries = [entry for entry in folder.iterdir() if not _is_junk(entry.name)]
  except OSError as error:
    raise UserError(
      f'The folder {folder} cannot be read ({error.strerror or error}); change '
      'its permissions, or move it away.'
    ) from error
  entries.sort(key=lambda e: e.name)
  found = Listing([], [], [])
  for entry, kind in zip(entries, _kinds(entries, root), strict=True):
    if kind == 'folder':
      found.folders.append(entry)
    elif kind == 'image':
      found.images.append(entry)
    else:
      found.unused.append((entry, kind))
  return found


def _kinds(entries: list[paths.Path], root: paths.Path | None) -> list[str]:
  if not (entries and paths.is_remote(entries[0])):
    return [_kind(entry, root) for entry in entries]
  # Together, since an object store takes its time to answer each.
  with ThreadPoolExecutor(_THREADS) as pool:
    return list(pool.map(lambda entry: _kind(entry, root), entries))


def _is_junk(name: str) -> bool:
  return name.casefold() in _JUNK or name.startswith(_JUNK_STARTS)


def _kind(entry: paths.Path, root: paths.Path | None) -> str:
  """'folder', 'image', or the reason not to use it."""
  if entry.name.startswith('.'):
    return HIDDEN
  if not paths.is_remote(entry) and entry.is_symlink():
    if not entry.is_file() or not (
      root is None or entry.resolve().is_relative_to(root)
    ):
      return LINKS
  elif entry.is_dir():
    return 'folder'
  elif not entry.is_file():
    return NO_FILES
  return 'image' if formats.is_read(entry.name) else reason_of(entry.name)


def reason_of(name: str) -> str:
  """Why a file is not used that is not called as a picture that is read.

  >>> reason_of('a/1.CR2'), reason_of('a/notes.txt')
  ('.CR2', 'of unknown kind')
  """
  return f'.{name.rpartition(".")[2]}' if formats.is_picture(name) else UNKNOWN


def under(
  folder: paths.Path, root: paths.Path | None = None
) -> tuple[list[paths.Path], list[tuple[paths.Path, str]]]:
  """The images of a folder at any depth, and what else lies there.

  Args:
    folder: to look into.
    root: as for `listing`.
  """
  here = listing(folder, root)
  images, unused = list(here.images), list(here.unused)
  for inner in here.folders:
    more_images, more_unused = under(inner, root)
    images += more_images
    unused += more_unused
  return images, unused


def walk(
  folder: paths.Path, root: paths.Path
) -> tuple[list[str], list[Unused]]:
  """The paths under the root of a folder's images, sorted; and what else is.

  Raises:
    UserError: a folder cannot be read; the name of an image is not UTF-8, which
      neither the split nor the predictions could hold.
  """
  images, unused = under(folder, root)
  for image in images:
    name = image.relative_to(root).as_posix()
    try:
      name.encode()
    except UnicodeEncodeError as error:
      raise UserError(
        f'{name!r} in {printable(str(root))} is no UTF-8 name; rename it.'
      ) from error
  named = sorted(image.relative_to(root).as_posix() for image in images)
  return named, relative(unused, root)


def relative(
  unused: Iterable[tuple[paths.Path, str]], root: paths.Path
) -> list[Unused]:
  """What a `listing` does not use, as a data set names it."""
  return [
    Unused(printable(entry.relative_to(root).as_posix()), reason)
    for entry, reason in unused
  ]


def rest(
  root: paths.Path,
  used: Collection[str],
  reason: str,
  *,
  each_in: str | None = None,
) -> tuple[Unused, ...]:
  """What lies in a root beside the files that are used.

  Args:
    root: the folder.
    used: the paths of the files under it that are used.
    reason: of the images that are not.
    each_in: a folder under the root, '' for the root, in which every file
      counts; elsewhere a folder of which nothing is used counts as one.
  """
  parents = {p.as_posix() for n in used for p in pathlib.PurePath(n).parents}
  kept = parents | set(used)  # A list may name files behind a link.

  def name_of(entry):
    return entry.relative_to(root).as_posix()

  def look(folder):
    here = listing(folder, root)
    files = [*((image, reason) for image in here.images), *here.unused]
    found = relative((f for f in files if name_of(f[0]) not in kept), root)
    for inner in here.folders:
      name = name_of(inner)
      each = each_in is not None and f'{name}/'.startswith(
        f'{each_in}/' if each_in else ''
      )
      if name in parents or each:
        found += look(inner)
      else:
        found.append(Unused(f'{printable(name)}/', FOLDERS))
    return found

  return tuple(look(root))


def counts(unused: Iterable[Unused]) -> dict[str, int]:
  """How much is not used, by reason: {'.HEIC': 20, 'links': 2}."""
  return {reason: len(names) for reason, names in by_reason(unused).items()}


def by_reason(unused: Iterable[Unused]) -> dict[str, list[str]]:
  """What is not used, by reason, the most first.

  >>> by_reason([Unused('a.heic', '.heic'), Unused('b.HEIC', '.HEIC')])
  {'.heic': ['a.heic', 'b.HEIC']}
  """
  found: dict[str, list[Unused]] = collections.defaultdict(list)
  for one in unused:
    # An extension is one kind in upper and in lower case.
    found[one.reason.casefold()].append(one)
  spelled = {
    collections.Counter(u.reason for u in group).most_common(1)[0][0]: group
    for group in sorted(found.values(), key=len, reverse=True)
  }
  return {reason: [u.path for u in group] for reason, group in spelled.items()}


def said(unused: Iterable[Unused]) -> str:
  """What is not used, in one sentence with the remedies; '' if nothing.

  >>> said([Unused('b/', EMPTY), Unused('a/1.CR2', '.CR2')])
  'not used: 1 empty class folder (b/), 1 .CR2 (a/1.CR2)'
  """
  groups = by_reason(unused)
  if not groups:
    return ''
  parts = []
  for reason, names in groups.items():
    first = ', '.join(names[:_NAMED])
    more = len(names) > _NAMED
    if reason == FOLDERS and not more:
      parts.append(f'folder{"s" * (len(names) > 1)} {first}')
    elif reason.startswith('.') and more:
      parts.append(f'{len(names)} {reason}')
    else:
      parts.append(f'{numbered(reason, len(names))} ({first}{", ..." * more})')
  return f'not used: {", ".join(parts)}{remedies(groups)}'


def but(unused: Iterable[Unused]) -> str:
  """What is not used, as the end of a sentence."""
  text = said(unused)
  return text and f' ({text})'


def numbered(reason: str, n: int) -> str:
  """'2 links', '1 link'."""
  if n == 1:
    noun, *rest = re.split('(?= that | without | outside )', reason, maxsplit=1)
    words = (_SINGULAR.get(word, word) for word in noun.split(' '))
    reason = ''.join([' '.join(words), *rest])
  return f'{n} {reason}'


def remedies(reasons: Iterable[str]) -> str:
  """'; to read .HEIC, ...' for the kinds that could be read; '' if none."""
  kinds: Mapping[str, list[str]] = collections.defaultdict(list)
  for reason in reasons:
    if reason.startswith('.') and (remedy := formats.remedy(reason)):
      kinds[remedy].append(reason)
  return ''.join(
    f'; to read {" and ".join(same)}, {remedy}'
    for remedy, same in kinds.items()
  )


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
