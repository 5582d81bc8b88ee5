"""What may be wrong with a data set of images: leaks, labels, pixels."""

import collections
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from csdnet_jax.data.images import fingerprints, groups, splits
from csdnet_jax.runtime.errors import counted

# Grey levels. Twelve bits that are stored as sixteen reach a sixteenth of 255.
_BLACK, _WHITE = 20, 235
# Share of a class that must be in another for it to look like a copy.
_COPY = 0.75

# The UFG release names a file <class>_<index>_<split>.png.
_RELEASE_NAME = re.compile(r'_(\d+)_(train|test)\.\w+$')


def _odd_trains(index: int) -> str:
  return 'train' if index % 2 else 'test'


def _first_five_train(index: int) -> str:
  return 'train' if index <= 5 else 'test'


# Which side an index is on, where the release has a rule for it.
_RULES = {
  'cotton80': _odd_trains,
  'soy_local': _odd_trains,
  'soy_global': _odd_trains,
  'soy_ageing': _first_five_train,
}


class Finding(NamedTuple):
  """Something that a person should know of a data set.

  Attributes:
    name: of the figure.
    items: what it was found in, for people.
    what: it is, after the number of items.
    advice: what to do about it, or ''.
    warns: rather than notes.
    stops: where `config.data.strict` is set.
  """

  name: str
  items: list[str]
  what: str
  advice: str = ''
  warns: bool = True
  stops: bool = False


class _Images(NamedTuple):
  """All n images of a data set, part after part."""

  names: list[str]
  sides: list[str]  # The part of each.
  classes: list[str]  # The name of the class of each.
  prints: np.ndarray  # `fingerprints.DTYPE` [n]

  @property
  def where(self) -> str:
    """Where images are of which no part, or fold, has all."""
    folds = any(side.startswith('fold ') for side in self.sides)
    if folds and 'test' in self.sides:
      return 'in several folds, or in one and the test part'
    return 'in several folds' if folds else 'on both sides of the split'

  def said(self, rows: Sequence[int], joint: str = ' = ') -> str:
    return joint.join(f'{self.names[i]} ({self.sides[i]})' for i in rows)


def of(
  dataset: splits.Dataset,
  prints: np.ndarray,
  *,
  size: int,
  group: str,
  folds: np.ndarray | None = None,
) -> list[Finding]:
  """Looks for all that may be wrong.

  Args:
    dataset: with its parts.
    prints: `fingerprints.DTYPE` [n], in the order of `splits.whole`.
    size: pixels a side that the network sees.
    group: `config.data.group`.
    folds: int [n] of the train part, see `folds.deal`, if there are such.
  """
  parts = splits.parts_of(dataset)
  sides = [side for side, part in parts.items() for _ in part.names]
  if folds is not None:
    sides[: len(folds)] = [
      'every training' if fold < 0 else f'fold {fold + 1}'
      for fold in folds.tolist()
    ]
  images = _Images(
    [name for part in parts.values() for name in part.names],
    sides,
    [dataset.class_names[y] for part in parts.values() for y in part.labels],
    prints,
  )
  found = [
    *_equal(images),
    Finding(
      'misnamed', _misnamed(dataset.name, parts),
      'files disagree by name with the split', stops=True,
    ),
    *_groups(dataset, images, group),
    *_alike(images),
    _absent(dataset, 'test', 'untested', _why_untested(dataset)),
    _absent(
      dataset, 'val', 'unvalidated',
      'the best epoch and the temperature are found without it',
    ),
    *_pixels(images, size),
  ]  # fmt: skip
  return [finding for finding in found if finding.items]


def _equal(images: _Images) -> list[Finding]:
  """Equal images in one part, over parts, under several labels."""
  within, across, labels = [], [], []
  for rows in _rows_of(fingerprints.equal(images.prints)):
    if len({images.sides[i] for i in rows}) > 1:
      across.append(images.said(rows))
    elif len({images.classes[i] for i in rows}) == 1:
      within.append(images.said(rows))
    if len({images.classes[i] for i in rows}) > 1:
      labels.append(
        ' = '.join(f'{images.names[i]} ({images.classes[i]})' for i in rows)
      )
  return [
    Finding(
      'equal_across', across, f'images are {images.where}',
      stops=True,
    ),
    Finding(
      'equal_labels', labels, 'images are in several classes at once',
      'leave each in the class that it shows', stops=True,
    ),
    Finding(
      'equal_within', within, 'images are twice in one part', warns=False
    ),
  ]  # fmt: skip


def _rows_of(numbers: np.ndarray) -> list[list[int]]:
  """The rows of each number that comes more than once."""
  rows = collections.defaultdict(list)
  for i, number in enumerate(numbers.tolist()):
    rows[number].append(i)
  return [found for found in rows.values() if len(found) > 1]


def _groups(dataset, images: _Images, group: str) -> list[Finding]:
  """Groups that the split cuts; without any, names that look like them."""
  cut = groups.cut(dataset.groups, images.names, images.sides)
  alone = [i for i, n in enumerate(images.names) if n not in dataset.groups]
  found = [
    Finding(
      'groups_across',
      [f'{g}: {images.said(rows, ", ")}' for g, rows in cut.items()],
      f'groups are {images.where}',
      'it came with the data and stays as it is', stops=True,
    ),
    Finding(
      'groups_span',
      [
        f'{g}: {", ".join(held)}'
        for g, held in groups.spanning(
          dataset.groups, images.names, images.classes
        ).items()
      ],
      'groups hold images of several classes', warns=False,
    ),
    Finding(
      'ungrouped', [images.names[i] for i in alone] if dataset.groups else [],
      'images are of no group', 'each is one of its own', warns=False,
    ),
  ]  # fmt: skip
  if group == groups.STEM:
    return found
  names, classes, sides = (
    [of[i] for i in alone]
    for of in (images.names, images.classes, images.sides)
  )
  shared = groups.shared_stems(names, classes, sides)
  rows_of = [[alone[i] for i in rows] for rows in shared.values()]
  untested = ('train', 'val', 'every training')
  judging = [side not in untested for side in images.sides]
  tested = sum(judging[i] for rows in rows_of for i in rows)
  return [
    *found,
    Finding(
      'stems_across', [images.said(rows, ', ') for rows in rows_of],
      f'stems of names are {images.where}, with {tested} of '
      f'{counted(sum(judging), "test images")}',
      'if a stem is one plant or photograph, the figures flatter; '
      + (
        f'to keep it on one side: --config.data.group={groups.STEM}'
        if dataset.drawn
        else 'the split came with the data and stays as it is'
      ),
    ),
  ]  # fmt: skip


def _alike(images: _Images) -> list[Finding]:
  """Near-duplicates over parts, and classes that are copies of others."""
  pairs = fingerprints.alike(images.prints)
  across = [
    images.said(pair, ' ~ ')
    for pair in pairs.tolist()
    if images.sides[pair[0]] != images.sides[pair[1]]
  ]
  twins = collections.defaultdict(set)
  equal = _rows_of(fingerprints.equal(images.prints))
  for rows in [*equal, *pairs.tolist()]:
    for i in rows:
      for j in rows:
        if images.classes[i] != images.classes[j]:
          twins[images.classes[i], images.classes[j]].add(i)
  counts = collections.Counter(images.classes)
  copies = [
    f'{one} of {other}: {len(rows)} of its {counts[one]} images'
    for (one, other), rows in sorted(twins.items())
    if len(rows) >= _COPY * counts[one]
    # The smaller is the copy; of equal ones the later.
    and (counts[one], other) <= (counts[other], one)
  ]
  return [
    Finding(
      'alike_across', across,
      f'pairs of images {images.where} are all but equal',
      'take one of each out, or name what they share: --config.data.group=...',
    ),
    Finding(
      'copies', copies, 'classes look like a copy of another',
      'join the two, or take one out',
    ),
  ]  # fmt: skip


def _absent(
  dataset: splits.Dataset, part: str, name: str, advice: str
) -> Finding:
  """Classes of which a part has nothing, though it has something."""
  labels = splits.parts_of(dataset).get(part, splits.EMPTY).labels
  counts = np.bincount(labels, minlength=len(dataset.class_names))
  absent = [
    class_name
    for class_name, count in zip(dataset.class_names, counts, strict=True)
    if not count and len(labels)
  ]
  return Finding(name, absent, f'classes have no {part} image', advice)


def _why_untested(dataset: splits.Dataset) -> str:
  if not dataset.drawn:
    return ''
  if dataset.groups:
    return 'each is a single group, which stays whole in train'
  return 'each has a single image, or only equal ones'


def _pixels(images: _Images, size: int) -> list[Finding]:
  prints = images.prints

  def named(rows):
    return [images.names[i] for i in np.flatnonzero(rows)]

  return [
    Finding(
      'black', named(prints['brightest'] < _BLACK),
      'images are almost black',
      'were they saved with 12 bits in 16? scale them',
    ),
    Finding(
      'white', named(prints['darkest'] > _WHITE), 'images are almost white'
    ),
    Finding(
      'tiny', named(prints['size'].min(1) < size / 2),
      f'images are less than half as high or wide as the {size} px that the '
      'network sees', warns=False,
    ),
  ]  # fmt: skip


def _misnamed(name: str, parts) -> list[str]:
  rule = _RULES.get(name.partition('/')[0])
  wrong = []
  for part, split in parts.items():
    side = 'test' if part == 'test' else 'train'  # val is carved from train
    for file_name in split.names:
      match = _RELEASE_NAME.search(file_name)
      if match is None:
        continue
      said = {match[2], rule(int(match[1]))} if rule else {match[2]}
      if said != {side}:
        wrong.append(f'{file_name} ({part})')
  return wrong
