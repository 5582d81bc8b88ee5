"""The names of classes, in the one form in which they are compared."""

import collections
import unicodedata
from collections.abc import Iterable

from csdnet_jax.runtime.errors import printable


def class_name(name: str) -> str:
  """A class's name in the one form in which names are compared and shown.

  Unicode NFC, in which macOS does not write folders, and without blanks at its
  ends.

  >>> class_name('Cafe\\u0301 ') == 'Caf\\u00e9'
  True
  """
  return unicodedata.normalize('NFC', name).strip() or name


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
