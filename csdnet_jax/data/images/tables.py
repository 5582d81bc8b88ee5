"""A table of labelled images: a CSV or TSV file in place of class folders.

Its first line names the columns, in any order and case:

    path    of the image under the root, with / or \\; or from the disk's root
    label   the name of its class
    group   optional: what its images show one of, such as a plant
    part    optional: train, val or test, or another of their usual names

Other columns are passed by, but for the one that `config.data.group` names.
Cells lie between commas, semicolons or tabs, in quotes where they hold one.
"""

import collections
import csv
import io
import os
import posixpath
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from csdnet_jax.data import folders, naming
from csdnet_jax.data.images import labelled_folders, splits
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError, counted, preview

_UNNAMED = 'images that the table does not name'
_HEADER = "write a first line such as 'path,label'"
_UTF_16 = (b'\xff\xfe', b'\xfe\xff')


class _Row(NamedTuple):
  """One image: the line that its row ends in, and its cells, stripped."""

  line: int
  path: str
  label: str
  group: str
  part: str


def open_table(
  table: str | os.PathLike,
  root: str | os.PathLike = '',
  name: str = '',
  group: str = '',
  *,
  trains: bool = True,
) -> splits.Dataset:
  """Reads a table of labelled images; see the module's docstring.

  Args:
    table: the file, UTF-8 with or without a mark.
    root: the folder that its paths start from; '' for the table's own.
    name: of the data set; '' for the folder's.
    group: a column to take in place of `group`; where it is none, the groups
      are left for the caller to find.
    trains: as for `labelled_folders.open_folder`; else all rows are of train,
      whatever their part.

  Returns:
    The data set, in the table's order. Without a column `part` every image is
    in train and test is empty, for `draw_split`.

  Raises:
    UserError: the table is absent, not UTF-8, or no table; a row lacks its path
      or label, or names an image twice, outside the root or that is missing, or
      a part that is none; a class has no training image.
  """
  table = paths.of(table)
  if not table.is_file():
    raise UserError(
      f'config.data.table={table} is no file; give a CSV or TSV file with the '
      'columns path and label'
    )
  root = folders.root_of(os.fspath(root) or table.parent)
  rows = _rows(table, group.strip().casefold())
  images, _ = folders.walk(root, root)
  names = _names(table, root, rows, images)
  written = [row.label for row in rows]
  class_names = tuple(sorted(set(map(naming.class_name, written))))
  label = {class_name: i for i, class_name in enumerate(class_names)}
  notes = [*naming.notes(written)]
  groups = {n: r.group for n, r in zip(names, rows, strict=True) if r.group}
  if groups and len(groups) < len(rows):
    what = f'rows of {table.name} are without a group'
    notes.append(
      f'{counted(len(rows) - len(groups), what)}: such an image is a group of '
      'its own'
    )
  parts = _parts(table, rows) if trains else {'train': list(range(len(rows)))}
  if 'test' not in parts and 'val' in parts:
    parts['test'] = parts.pop('val')
    notes.append(labelled_folders.VAL_TESTS)
  used = [*names, _under(table, root)]
  dataset = splits.Dataset(
    name or root.name, class_names, groups=groups, notes=tuple(notes),
    unused=folders.rest(root, used, _UNNAMED, each_in=''),
    **{
      part: splits.of_files(
        root,
        [names[i] for i in members],
        [label[naming.class_name(written[i])] for i in members],
      )
      for part, members in parts.items()
    },
  )  # fmt: skip
  if trains:
    splits.require_classes(dataset, root)
  return dataset


def _text(table: paths.Path) -> str:
  data = table.read_bytes()
  try:
    if data.startswith(_UTF_16) or b'\0' in data:
      raise ValueError
    return data.decode('utf-8-sig')
  except ValueError as error:
    raise UserError(
      f'{table} is not UTF-8 text; save it anew (in Excel: File, Save As, "CSV '
      'UTF-8"; in LibreOffice: Save As, Text CSV, character set UTF-8)'
    ) from error


def _records(
  table: paths.Path, text: str, delimiter: str
) -> Iterator[tuple[int, list[str]]]:
  """Yields the line in which each row ends, and its cells; no blank rows."""
  lines = csv.reader(
    io.StringIO(text, newline=''), delimiter=delimiter, strict=True
  )
  try:
    for cells in lines:
      cells = [cell.strip() for cell in cells]
      if any(cells):
        yield lines.line_num, cells
  except csv.Error as error:
    raise UserError(
      f'Line {lines.line_num} of {table} is no row of a table ({error}); '
      'put a cell that holds a quote between quotes, and double the quote'
    ) from error


def _rows(table: paths.Path, group: str) -> list[_Row]:
  """The rows, each with a path and a label."""
  text = _text(table)
  tabs = table.suffix.casefold() in ('.tsv', '.tab')
  headers = {
    delimiter: _header(table, text, delimiter)
    for delimiter in ('\t,;' if tabs else ',\t;')
  }
  for delimiter, header in headers.items():
    if {'path', 'label'} <= {*header}:
      _, *records = _records(table, text, delimiter)
      return _checked(table, header, records, group)
  longest = max(headers.values(), key=len)
  raise UserError(
    f'{table} has no columns path and label; its first line is '
    f'{preview(longest) or "empty"}; {_HEADER}'
  )


def _header(table: paths.Path, text: str, delimiter: str) -> list[str]:
  """The columns' names in lower case; [] if the line does not parse."""
  try:
    _, cells = next(_records(table, text, delimiter), (0, []))
  except UserError:
    return []
  return [cell.casefold() for cell in cells]


def _checked(
  table: paths.Path,
  header: Sequence[str],
  records: Sequence[tuple[int, list[str]]],
  group: str,
) -> list[_Row]:
  known = ('path', 'label', 'part')
  column = group if group in header and group not in known else ''
  grouping = column if group else 'group'
  wanted = [*known, grouping]
  twice = [c for c in wanted if header.count(c) > 1]
  if twice:
    raise UserError(
      f'{table} has several columns {preview(twice)}; leave one of each'
    )
  rows, wrong = [], []
  for line, cells in records:
    if any(cells[len(header) :]):
      wrong.append(
        f'line {line} has {len(cells)} cells for {len(header)} columns'
      )
      continue
    row = collections.defaultdict(str, zip(header, cells, strict=False))
    rows.append(
      _Row(line, row['path'], row['label'], row[grouping], row['part'])
    )
    wrong += [f'line {line} has no {c}' for c in known[:2] if not row[c]]
  if wrong:
    raise UserError(
      f'Rows of {table} do not name an image and its class '
      f'({preview(wrong)}); correct them'
    )
  if not rows:
    raise UserError(f'{table} has no rows below its first line; add images')
  return rows


def _names(
  table: paths.Path,
  root: paths.Path,
  rows: Sequence[_Row],
  images: Sequence[str],
) -> list[str]:
  """The path of each row's image under the root, as the disk spells it."""
  there = set(images)
  # A table and a disk may encode one letter in two ways.
  spelled = {unicodedata.normalize('NFC', image): image for image in images}

  def name_of(row):
    for written in (row.path, row.path.replace('\\', '/')):
      name = posixpath.normpath(_inside(written, root))
      if name in there:
        return name
    return spelled.get(unicodedata.normalize('NFC', name), name)

  names = [name_of(row) for row in rows]
  other = [name for name in dict.fromkeys(names) if name not in there]
  outside = [n for n in other if not folders.is_inside(n, root, root)]
  if outside:
    raise UserError(
      f'{table} names images outside {root} ({preview(outside)}); write paths '
      'relative to that folder, or set --config.data.root to the one that '
      'holds them'
    )
  missing = folders.missing_of(root, other)
  if missing:
    raise UserError(
      f'{table} names images that are not in {root} ({preview(missing)}); add '
      'them, take their rows out, or set --config.data.root to the folder that '
      'the paths start from'
    )
  labels: dict[str, list[_Row]] = collections.defaultdict(list)
  for name, row in zip(names, rows, strict=True):
    labels[name].append(row)
  twice = [
    f'{name} in lines {", ".join(str(row.line) for row in same)} as '
    f'{" and ".join(dict.fromkeys(row.label for row in same))}'
    for name, same in labels.items()
    if len(same) > 1
  ]
  if twice:
    raise UserError(
      f'{table} names images twice ({preview(twice)}); leave one row for each'
    )
  return names


def _parts(table: paths.Path, rows: Sequence[_Row]) -> dict[str, list[int]]:
  """The rows of each part; all are of train where the table has no parts."""
  if not any(row.part for row in rows):
    return {'train': list(range(len(rows)))}
  parts: Mapping[str, list[int]] = collections.defaultdict(list)
  wrong = []
  for i, row in enumerate(rows):
    part = naming.part_of(row.part)
    if not part:
      wrong.append(f'line {row.line}: {row.part or "nothing"}')
    parts[part].append(i)
  if wrong:
    raise UserError(
      f'Rows of {table} are of no part ({preview(wrong)}); write train, val or '
      'test in every row, or take the column part out to have the program split'
    )
  if 'train' not in parts or len(parts) == 1:
    given, absent = (
      ('train', 'test') if 'train' in parts else (' and '.join(parts), 'train')
    )
    raise UserError(
      f'{table} has rows of the part {given} but none of {absent}; add some, '
      'or take the column part out to have the program split'
    )
  return dict(parts)


def _inside(name: str, root: paths.Path) -> str:
  """The path as the root names it, where it is absolute and lies in there."""
  if not posixpath.isabs(name):
    return name
  # Only the folder's links are followed: a file may be named by its link.
  folder, _, last = name.rpartition('/')
  inside = _under(paths.of(folder or '/'), root)
  return f'{inside}/{last}' if inside else name


def _under(path: paths.Path, root: paths.Path) -> str:
  """The path as a root names it; '' if it lies elsewhere."""
  path = paths.resolve(path)
  inside = path.is_relative_to(root)
  return path.relative_to(root).as_posix() if inside else ''
