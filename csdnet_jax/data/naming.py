"""The names of classes and of parts, in the form in which they are compared."""

import collections
import unicodedata
from collections.abc import Iterable

from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError, printable

# How people call the parts of a split, in lower case.
PARTS = {
  'train': ('train', 'training'),
  'val': ('val', 'valid', 'validation', 'dev'),
  'test': ('test', 'testing'),
}


def class_name(name: str) -> str:
  """A class's name in the one form in which names are compared and shown.

  Unicode NFC, in which macOS does not write folders, and without blanks at its
  ends.

  >>> class_name('Cafe\\u0301 ') == 'Caf\\u00e9'
  True
  """
  return unicodedata.normalize('NFC', name).strip() or name


def loose(name: str) -> str:
  """A class's name without case, accents, blanks, `_` and `-`.

  Names that are equal so are likely one, written by two people.

  >>> loose('Sauvignon_Blanc') == loose('sauvignon blanc')
  True
  """
  letters = unicodedata.normalize('NFKD', name).casefold()
  return ''.join(
    c
    for c in letters
    if not (unicodedata.combining(c) or c.isspace() or c in '_-')
  )


def notes(written: Iterable[str]) -> tuple[str, ...]:
  """What to say of names of classes, as written, that are one or nearly.

  >>> notes(['Syrah', 'syrah'])
  ('class names differ by case alone, and stay apart: Syrah, syrah',)
  """
  spellings = collections.defaultdict(set)
  for name in written:
    spellings[class_name(name)].add(name)
  joined = [
    f'{", ".join(map(ascii, sorted(names)))} as {printable(name)}'
    for name, names in sorted(spellings.items())
    if len(names) > 1
  ]
  by_case = collections.defaultdict(list)
  for name in sorted(spellings):
    by_case[name.casefold()].append(printable(name))
  alike = [', '.join(names) for names in by_case.values() if len(names) > 1]
  found = []
  if joined:
    found.append(
      'class names differ by blanks or in how letters are encoded, and are '
      f'joined: {"; ".join(joined)}'
    )
  if alike:
    found.append(
      f'class names differ by case alone, and stay apart: {"; ".join(alike)}'
    )
  return tuple(found)


def part_of(name: str) -> str:
  """'train', 'val' or 'test' of one of their usual names; '' of another.

  >>> part_of('Valid'), part_of('valley')
  ('val', '')
  """
  return next((p for p, n in PARTS.items() if name.casefold() in n), '')


def parts_among(
  entries: Iterable[paths.Path], folder: paths.Path
) -> dict[str, paths.Path]:
  """The folder of each part that some of these folders are.

  Args:
    entries: the folders.
    folder: that they lie in, for the sentence.

  Raises:
    UserError: two of them may be one part.
  """
  parts: dict[str, paths.Path] = {}
  for entry in entries:
    part = part_of(entry.name)
    if part in parts:
      raise UserError(
        f'{folder} has both {parts[part].name}/ and {entry.name}/, each of '
        f'which may be the {part} part; remove or rename one of them'
      )
    if part:
      parts[part] = entry
  return parts
