"""The table that says what each photograph shows."""

import csv
import io
import itertools
import pathlib
import unicodedata
from collections.abc import Sequence

from csdnet_jax.data.naming import PARTS
from csdnet_jax.runtime.errors import UserError, first_line, preview

_PHOTOGRAPH = ('photograph', 'image')
_LABEL = ('label', 'variety')
# Folders of these names mean something else to who reads a folder of classes.
_TAKEN = ('anno', 'images', *itertools.chain(*PARTS.values()))


def read(path: pathlib.Path, encoding: str = 'utf-8') -> dict[str, str]:
  """Reads a table with a row for each photograph, or several that agree.

  Args:
    path: of a text file, separated by tabs, commas or semicolons, whose first
      line names a column `photograph` or `image` and one `label` or `variety`;
      others are ignored.
    encoding: a text codec of Python.

  Returns:
    {photograph, as it is written: label}.

  Raises:
    UserError: the file is absent, not of that encoding, or not such a table;
      rows of a photograph disagree; a label cannot name a folder.
  """
  text = _text(path, encoding)
  head = text.partition('\n')[0]
  separator = max('\t,;', key=head.count)
  try:
    rows = csv.reader(io.StringIO(text, newline=''), delimiter=separator)
    numbered = [(rows.line_num, [cell.strip() for cell in r]) for r in rows]
  except csv.Error as error:
    raise UserError(
      f'{path} is no table ({first_line(error)}); save it as CSV.'
    ) from error
  numbered = [(number, row) for number, row in numbered if any(row)]
  if len(numbered) < 2:
    raise UserError(
      f'{path} has no rows; write a first line photograph,label and a row for '
      'each photograph.'
    )
  names = [name.casefold() for name in numbered[0][1]]
  at, of = (_column(path, names, known) for known in (_PHOTOGRAPH, _LABEL))
  labels = {}
  for number, row in numbered[1:]:
    if len(row) <= max(at, of) or not row[at] or not row[of]:
      raise UserError(
        f'Line {number} of {path} has no {names[at]} or no {names[of]}; fill '
        'it in or take the line out.'
      )
    photograph = unicodedata.normalize('NFC', row[at]).replace('\\', '/')
    label = class_name(row[of], f'Line {number} of {path}')
    if labels.setdefault(photograph, label) != label:
      raise UserError(
        f'{path} calls {photograph} both {labels[photograph]!r} and '
        f'{label!r} (line {number}); a photograph must show one class.'
      )
  return labels


def _text(path: pathlib.Path, encoding: str) -> str:
  try:
    data = path.read_bytes()
  except OSError as error:
    raise UserError(
      f'The table {path} cannot be read ({error.strerror}); give the path of a '
      'text file.'
    ) from error
  if encoding.lower().replace('_', '-') == 'utf-8':
    encoding = 'utf-8-sig'  # Spreadsheets mark what they save so.
  try:
    # A codec that is none of text, such as zlib, is a LookupError here too.
    return data.decode(encoding)
  except UnicodeError as error:
    raise UserError(
      f'{path} is not {encoding.removesuffix("-sig")} text (byte '
      f'{getattr(error, "start", 0)}); save it as UTF-8, in a spreadsheet as '
      '"CSV UTF-8", or name its encoding, such as --encoding=mac_roman or '
      '--encoding=cp1252.'
    ) from error
  except LookupError as error:
    raise UserError(
      f'--encoding={encoding} is no text encoding that Python knows; take one '
      'such as utf-8, mac_roman or cp1252.'
    ) from error


def _column(path: pathlib.Path, names: list[str], known: Sequence[str]) -> int:
  found = [i for i, name in enumerate(names) if name in known]
  if len(found) != 1:
    raise UserError(
      f'{path} has {len(found) or "no"} columns {" or ".join(known)}; its '
      f'first line must name one of them, and is {", ".join(names)}.'
    )
  return found[0]


def class_name(text: str, where: str) -> str:
  """The name of a class in one Unicode form, fit to name a folder.

  Raises:
    UserError: it is not; starts with `where`.
  """
  name = unicodedata.normalize('NFC', text).strip()
  bad = (
    not name.isprintable()
    or name.startswith('.')
    or name.casefold() in _TAKEN
    or any(c in name for c in '/\\:*?"<>|')
    or len(name.encode()) > 200
  )
  if bad:
    raise UserError(
      f'{where} has the label {name!r}, which cannot name a folder of a class; '
      'leave out slashes and the like, a dot at the start, and the names '
      f'{", ".join(_TAKEN)}.'
    )
  return name


def match(
  labels: dict[str, str], photographs: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
  """Finds each photograph in the table, by its path, name or stem.

  Case does not matter, nor does the extension unless the table has one.

  Args:
    labels: as `read` returns them.
    photographs: paths under the folder, with `/`.

  Returns:
    {photograph: label} of those that are in the table, and the photographs of
    the table that are none of these.

  Raises:
    UserError: a row may mean several photographs.
  """
  rows = {name.casefold(): name for name in labels}
  found, meant = {}, {}
  for photograph in photographs:
    path = unicodedata.normalize('NFC', photograph).casefold()
    name = path.rpartition('/')[2]
    tried = (path, path.rpartition('.')[0], name, name.rpartition('.')[0])
    row = next((rows[t] for t in tried if t in rows), None)
    if row is not None:
      meant.setdefault(row, []).append(photograph)
      found[photograph] = labels[row]
  several = [
    f'{row}: {preview(paths, 3)}'
    for row, paths in meant.items()
    if len(paths) > 1
  ]
  if several:
    raise UserError(
      'Rows of the table may mean several photographs '
      f'({preview(several, 3)}); write their paths, with folder and extension.'
    )
  return found, [row for row in labels if row not in meant]
