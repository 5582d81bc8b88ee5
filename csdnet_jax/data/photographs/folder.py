"""From a folder of photographs to a folder of classes, a picture a leaf."""

import collections
import contextlib
import io
import pathlib
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from csdnet_jax.data import cache, decode, folders, formats
from csdnet_jax.data.photographs import cut, find, key, sheet
from csdnet_jax.runtime import writers
from csdnet_jax.runtime.errors import UserError, preview, printable

UNLABELLED = 'unlabelled'
# Photographs are JPEGs themselves: losslessly kept, their leaves would take ten
# times the space. Colour is kept at full resolution.
_JPEG = {'format': 'JPEG', 'quality': 95, 'subsampling': 0}


class Cut(NamedTuple):
  """One leaf, cut out.

  Attributes:
    jpeg: its picture.
    box: left, top, right, bottom in pixels of the photograph, upright.
    note: what a person should know of it, or ''.
  """

  jpeg: bytes
  box: tuple[int, int, int, int]
  note: str


class Photograph(NamedTuple):
  """What was found in one photograph.

  Attributes:
    leaves: cut out, in the order of their numbers.
    left_out: the reason of every other region.
    panel: uint8 [h, w, 3], for the contact sheet.
    plain: whether its ground is.
  """

  leaves: tuple[Cut, ...]
  left_out: tuple[str, ...]
  panel: np.ndarray
  plain: bool


class Report(NamedTuple):
  """What came of a folder.

  Attributes:
    leaves: how many were written.
    left_out: how many regions by reason.
    notes: of single leaves and photographs, to be looked at.
    unreadable: photographs that are, and why.
    empty: photographs without a leaf.
  """

  leaves: int
  left_out: Mapping[str, int]
  notes: tuple[str, ...]
  unreadable: tuple[str, ...]
  empty: tuple[str, ...]


def list_photographs(
  root: pathlib.Path,
) -> tuple[list[str], list[folders.Unused]]:
  """The pictures under a folder, at any depth, sorted; and what else is there.

  Raises:
    UserError: there is no such folder, or no picture in it; as `folders.walk`.
  """
  if not root.is_dir():
    raise UserError(f'{root} is not a folder; give one of photographs.')
  root = root.resolve()
  photographs, unused = folders.walk(root, root)
  if not photographs:
    raise UserError(
      f'{root} holds no photographs ({", ".join(formats.extensions())}); '
      f'{folders.said(unused) or "it is empty"}.'
    )
  return photographs, unused


def by_folder(photographs: Sequence[str]) -> dict[str, str]:
  """{photograph: its topmost folder, `UNLABELLED` where it lies in none}.

  Raises:
    UserError: as `key.class_name`.
  """
  tops = {p: p.partition('/')[0] for p in photographs if '/' in p}
  names = {top: key.class_name(top, f'{top}/') for top in set(tops.values())}
  return {p: names[tops[p]] if p in tops else UNLABELLED for p in photographs}


def look(root: pathlib.Path, name: str, label: str) -> Photograph:
  """Finds and cuts out the leaves of one photograph.

  Args:
    root: the folder.
    name: of the photograph, under it.
    label: its class, for the contact sheet.

  Raises:
    decode.ImageError: it cannot be read.
  """
  data = cache.read(lambda _: (root / name).read_bytes(), 0, name)
  pixels = decode.decode(data, name)
  found = find.find(pixels)
  leaves = []
  for leaf in found.leaves:
    jpeg = io.BytesIO()
    picture = Image.fromarray(cut.cut(pixels, leaf, found.scale))
    picture.save(jpeg, **_JPEG)
    leaves.append(Cut(jpeg.getvalue(), leaf.box, leaf.note))
  return Photograph(
    tuple(leaves),
    tuple(region.reason for region in found.left_out),
    sheet.panel(found, f'{printable(name)}, {label}: {len(leaves)}'),
    found.plain,
  )


def write(
  root: pathlib.Path,
  labels: Mapping[str, str],
  out: pathlib.Path,
  sheets: pathlib.Path,
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
  """Cuts the leaves out of all photographs.

  Writes OUT/<label>/<photograph>_<k>.jpg, k from 0 as the leaves stand in the
  photograph, and OUT/leaves.csv: `path,label,group`, the group being the
  photograph, then the box in its pixels and the note. Both folders are there as
  a whole or not at all.

  Args:
    root: the folder of the photographs.
    labels: {photograph under it: label}, in the order of the table.
    out: the folder to make.
    sheets: the folder to make for the contact sheets.
    progress: called with the photographs done and their number.

  Raises:
    UserError: a folder is there and not empty, or cannot be written; two
      photographs would give pictures of one name.
  """
  names = list(labels)
  _require_names(labels)
  for flag, folder in (('--out', out), ('--sheets', sheets)):
    require_new(flag, folder)
    if folder.resolve().is_relative_to(root.resolve()):
      raise UserError(
        f'{flag}={folder} lies among the photographs; choose a folder outside '
        f'of {root}.'
      )
  if sheets.resolve().is_relative_to(out.resolve()):
    raise UserError(
      f'--sheets={sheets} lies in {out}, where it would pass for a class; '
      'choose another folder.'
    )
  left_out, notes, unreadable, empty = collections.Counter(), [], [], []
  rows, panels, pages = [], [], 0
  with (
    made(out) as new,
    made(sheets) as new_sheets,
    contextlib.closing(
      cache.in_order(
        lambda i: look(root, names[i], labels[names[i]]), len(names)
      )
    ) as looked,
  ):
    for i, (name, seen) in enumerate(zip(names, looked, strict=True), 1):
      progress(i, len(names))
      if isinstance(seen, decode.ImageError):
        unreadable.append(str(seen))
        continue
      left_out.update(seen.left_out)
      if not seen.plain:
        notes.append(f'{printable(name)}: its ground is not plain')
      if seen.leaves:
        (new / labels[name]).mkdir(exist_ok=True)
      else:
        empty.append(printable(name))
      for k, leaf in enumerate(seen.leaves):
        path = f'{labels[name]}/{_stem(name)}_{k}.jpg'
        (new / path).write_bytes(leaf.jpeg)
        rows.append([path, labels[name], name, *leaf.box, leaf.note])
        if leaf.note:
          notes.append(f'{printable(name)}, leaf {k}: {leaf.note}')
      panels.append(seen.panel)
      if len(panels) == sheet.COLUMNS * sheet.ROWS:
        pages = _write_sheet(new_sheets, panels, pages)
    if panels:
      _write_sheet(new_sheets, panels, pages)
    (new / 'leaves.csv').write_text(_table(rows), encoding='utf-8')
  return Report(
    len(rows), left_out, tuple(notes), tuple(unreadable), tuple(empty)
  )


def _stem(name: str) -> str:
  return pathlib.PurePosixPath(name).stem


def _require_names(labels: Mapping[str, str]) -> None:
  made = collections.defaultdict(list)
  for name, label in labels.items():
    made[label, _stem(name).casefold()].append(name)
  equal = [' and '.join(names) for names in made.values() if len(names) > 1]
  if equal:
    raise UserError(
      'Photographs of one class have the same name but for its folder or '
      f'extension ({preview(equal, 3)}), and so would their leaves; rename '
      'them.'
    )


def require_new(flag: str, folder: pathlib.Path) -> None:
  """Checks that a folder can be made, before the work and not after it.

  Args:
    flag: that names it, such as '--out'.
    folder: it may be there if it is empty.

  Raises:
    UserError: it cannot.
  """
  if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
    raise UserError(f'{flag}={folder} is there and no folder; choose another.')
  if folder.is_dir() and any(folder.iterdir()):
    raise UserError(
      f'{flag}={folder} is there and not empty; choose another, or remove it.'
    )
  if not folder.absolute().parent.is_dir():
    raise UserError(
      f'{flag}={folder}: there is no folder {folder.parent}; make it first.'
    )


@contextlib.contextmanager
def made(folder: pathlib.Path):
  """Yields a folder to fill, which then takes its name as a whole.

  Raises:
    UserError: something in it cannot be written; nothing of it is left then.
  """
  folder = folder.absolute()
  scratch = folder.with_name(f'.{folder.name}.{uuid.uuid4().hex}.tmp')
  try:
    scratch.mkdir()
    yield scratch
    if folder.is_dir():
      folder.rmdir()  # Empty: not every system renames over a folder.
    scratch.rename(folder)
  except OSError as error:
    raise UserError(
      f'Cannot write {folder} ({error.strerror or error}); free some space or '
      'choose another folder. Nothing of it was kept.'
    ) from error
  finally:
    shutil.rmtree(scratch, ignore_errors=True)


def _write_sheet(
  folder: pathlib.Path, panels: list[np.ndarray], pages: int
) -> int:
  """Writes the next page and empties the list; returns how many there are."""
  sheet.sheet(panels).save(folder / f'{pages + 1:03d}.jpg', quality=88)
  panels.clear()
  return pages + 1


def _table(rows: Sequence[Sequence]) -> str:
  box = ('left', 'top', 'right', 'bottom')
  return writers.csv_text([['path', 'label', 'group', *box, 'note'], *rows])
