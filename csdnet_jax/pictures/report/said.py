"""Sentences of a report: what was found in the data, and no path."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from csdnet_jax.runtime.errors import counted

_ITEMS = 10  # Of a finding; data_report.json has all.
# What `data.images.findings` gives under these names.
_FINDINGS = {
  'equal_across': 'pictures are equal and on both sides of the split, which '
  'flatters the figures',
  'equal_labels': 'pictures are equal and in several classes',
  'equal_within': 'pictures are there twice',
  'misnamed': 'files disagree by name with the split',
  'groups_across': 'groups are on both sides of the split, which flatters the '
  'figures',
  'groups_span': 'groups have pictures of several classes',
  'ungrouped': 'pictures are of no group',
  'stems_across': 'names that look like one plant or photograph are on both '
  'sides of the split, which flatters the figures if that is so',
  'alike_across': 'pairs of pictures on both sides of the split are all but '
  'equal, which flatters the figures',
  'copies': 'classes look like a copy of another',
  'untested': 'classes have no test picture',
  'unvalidated': 'classes have no validation picture',
  'black': 'pictures are almost black',
  'white': 'pictures are almost white',
  'tiny': 'pictures are smaller than half of what the network sees',
}

_SPLIT, _FOLDS = 'on both sides of the split', 'in several folds'
# Whose items hold names of classes or groups, which may look like anything.
_NAMING = (
  'equal_labels', 'groups_across', 'groups_span', 'copies', 'untested',
  'unvalidated',
)  # fmt: skip

# Folders, from the root of a Unix or Windows disk or of a network's, before
# what lies in them. A folder but the first may have blanks in its name, which
# may hide a word too many.
_PATH = re.compile(
  r'(?<![\w.)/\\])(?:\b[A-Za-z]:|~)?[\\/]{1,2}(?=[^\s\\/])'
  r'(?:[^\s\\/:;,]+[\\/])?'
  r'(?:(?:[^\s\\/:;,.]+(?: [^\s\\/:;,.]+)*|[^\s\\/:;,]+)[\\/])*'
)
# An address, whose scheme nobody needs.
_SCHEME = re.compile(r'\b[a-z0-9]+://')


def without(folders: Iterable[str], text: str) -> str:
  r"""Returns a text without folders that are known: no other word is touched.

  >>> without(['/me', '/me/my leaves'], '/me/my leaves/a.png of B/C /x/y, /me')
  'a.png of B/C /x/y, me'

  Args:
    folders: from the root; the longest goes first.
    text: of any words.
  """
  for folder in sorted(folders, key=len, reverse=True):
    whole = rf'(?<![\w.]){re.escape(folder)}'
    last = re.split(r'[\\/]', folder)[-1]
    text = re.sub(rf'{whole}[\\/]+(?=[^\s\\/])', '', text)
    # What is itself meant keeps its name.
    text = re.sub(rf'{whole}(?![\w-])[\\/]?', lambda _, last=last: last, text)
  return text


def without_paths(text: str, folders: Iterable[str] = ()) -> str:
  r"""Returns a text without any folder of this machine.

  Not for names of classes: what looks like a path may be one.

  >>> without_paths('from /home/me/weights/a.pth, 3/4 of B/c.png')
  'from a.pth, 3/4 of B/c.png'
  >>> without_paths(r'C:\Users\Jane Doe\leaves\a.png and gs://bucket/b')
  'a.png and bucket/b'
  >>> without_paths(r'root:/home/me/x, \\host\my disk\y and /data')
  'root:x, y and data'
  """
  return _PATH.sub('', _SCHEME.sub('', without(folders, text)))


def of_data(
  figures: Mapping[str, Any], folders: Iterable[str] = (), folds: bool = False
) -> dict[str, Any]:
  """Returns what a report says of the figures of `data_report.json`.

  Args:
    figures: of the file.
    folders: of this machine, see `without`.
    folds: whether the pictures were dealt over folds.
  """
  where = _FOLDS if folds else _SPLIT
  parts = figures.get('parts', {})
  of_class = figures.get('images_of_class', {})
  found = []
  for name, what in _FINDINGS.items():
    items = [
      without(folders, item)
      if name in _NAMING
      else without_paths(item, folders)
      for item in figures.get(name, ())
    ]
    if items:
      found.append({
        'what': counted(len(items), what).replace(_SPLIT, where),
        'items': items[:_ITEMS],
        'left_out': max(len(items) - _ITEMS, 0),
      })  # fmt: skip
  unused = figures.get('unused', {})
  return {
    'parts': parts,
    'where': where,
    'images': sum(of_class.values()),
    'of_class': of_class,
    'groups': figures.get('groups'),
    'sizes': figures.get('sizes'),
    'findings': found,
    'unused': ', '.join(f'{n} {why}' for why, n in unused.items()),
  }
