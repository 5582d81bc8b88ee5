"""The parts of a data set, drawn class by class, whole groups at a time."""

import collections
import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from csdnet_jax.data.images import splits
from csdnet_jax.runtime.errors import UserError, preview


def draw_split(
  dataset: splits.Dataset,
  *,
  test_fraction: float,
  val_fraction: float,
  shots: int,
  seed: int,
  equal: Mapping[str, int] = MappingProxyType({}),
) -> splits.Dataset:
  """Draws the parts that a data set does not come with, class by class.

  An image's place in the draw is the hash of the seed and its name, so adding
  images to one class moves none of another. Images of one group, and equal
  ones, are drawn as one, at the first of their places; a class is never
  without a training image, so that what has a single group is not drawn from.

  Args:
    dataset: its test part may be empty; train then holds every image, and
      `groups` says which belong together.
    test_fraction: of each class, as near as whole groups allow, where the test
      part is empty; in [0, 1), 0 draws none.
    val_fraction: the same of each class's training images.
    shots: training images to keep of each class, after that, of as many groups
      as there are; 0 for all.
    seed: of the draws.
    equal: a number for each image, by name; equal ones have one number.

  Returns:
    The data set with its parts; the order within each is the one it came in.

  Raises:
    UserError: a field out of range; nothing to draw from; a class with too few
      images for `shots`, by name.
  """
  for field, fraction in (
    ('test_fraction', test_fraction), ('val_fraction', val_fraction)
  ):  # fmt: skip
    if not 0 <= fraction < 1:
      raise UserError(
        f'config.data.{field} is {fraction}; it must be 0 or lie between 0 and '
        '1'
      )
  if shots < 0:
    raise UserError(
      f'config.data.shots is {shots}; it must be a number of images, '
      'or 0 for all'
    )
  if test_fraction and not dataset.test.names:
    train, test = _drawn(dataset, equal, 'test', test_fraction, seed)
    dataset = dataset._replace(train=train, test=test)
  if val_fraction:
    if dataset.val is not None:
      raise UserError(
        f'{dataset.name} has a val/ folder; set --config.data.val_fraction=0 '
        'or remove the folder'
      )
    train, val = _drawn(dataset, equal, 'val', val_fraction, seed)
    dataset = dataset._replace(train=train, val=val)
  if shots:
    poor = splits.classes_under(dataset, shots)
    if poor:
      raise UserError(
        f'Classes of {dataset.name} have fewer training images '
        f'than config.data.shots={shots} ({preview(poor)}); lower it'
      )
    train = _shots(dataset, equal, shots, f'shots/{seed}')
    dataset = dataset._replace(train=train)
  return dataset


def swap_sides(dataset: splits.Dataset, seed: int) -> splits.Dataset:
  """Lets train and test change places in some classes, by the toss of a coin.

  In each class that has equally many images on both sides; what its source
  keeps apart, such as the leaves of one plant, stays apart. So each seed has a
  split of its own, of the same size, where a data set comes with but one.

  Args:
    dataset: with a test part; a val part stays as it is.
    seed: the coin of a class is the hash of it and of the class's name.

  Returns:
    The data set. Within a part, first what stayed in it, then what came.
  """
  sides = dataset.train, dataset.test
  counts = [
    np.bincount(side.labels, minlength=len(dataset.class_names))
    for side in sides
  ]
  tossed = [
    int(place(f'sides/{seed}', name), 16) % 2 == 1
    for name in dataset.class_names
  ]
  swapped = (counts[0] == counts[1]) & np.array(tossed)

  def rows(side, moved):
    chosen = np.flatnonzero(swapped[side.labels] == moved)
    return [(side, int(i)) for i in chosen]

  train, test = sides
  return dataset._replace(
    train=splits.gather(rows(train, False) + rows(test, True)),
    test=splits.gather(rows(test, False) + rows(train, True)),
  )


def _drawn(
  dataset, equal, part, fraction, seed
) -> tuple[splits.Split, splits.Split]:
  """The rest of train, and the part that is drawn from it."""
  train = dataset.train
  units = units_of(train.names, dataset.groups, equal)
  taken = _take(train, units, fraction, f'{part}/{seed}')
  if not taken.any():
    raise UserError(
      f'No class of {dataset.name} has two training images'
      f'{" of different groups" if dataset.groups else ""}, of which one could '
      f'be in the {part} part; add images, or set '
      f'--config.data.{part}_fraction=0'
    )
  parts = (np.flatnonzero(rows).tolist() for rows in (~taken, taken))
  rest, drawn = (splits.gather([(train, i) for i in rows]) for rows in parts)
  return rest, drawn


def units_of(
  names: Sequence[str], groups: Mapping[str, str], equal: Mapping[str, int]
) -> np.ndarray:
  """Numbers what is drawn as one: groups, joined by equal images.

  Args:
    names: of n images.
    groups: of those that have one, by name.
    equal: a number for each image, by name; equal ones have one number.

  Returns:
    int [n], from 0.
  """
  first, pairs = {}, []
  for i, name in enumerate(names):
    for kind, of in (('group', groups), ('equal', equal)):
      if name in of:
        pairs.append((first.setdefault((kind, of[name]), i), i))
  return joined(len(names), np.array(pairs, int).reshape(-1, 2))


def joined(n: int, pairs: np.ndarray) -> np.ndarray:
  """Numbers n things, int [n]: pairs [m, 2] join those of one number."""
  ones = np.ones(len(pairs), bool)
  graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(n, n))
  return connected_components(graph, directed=False)[1]


def _take(
  split: splits.Split, units: np.ndarray, fraction: float, salt: str
) -> np.ndarray:
  """Which rows are drawn, bool [n]: of each class about its share, in units."""
  places = [place(salt, name) for name in split.names]
  members = collections.defaultdict(list)
  for i, unit in enumerate(units.tolist()):
    members[unit].append(i)
  first = {unit: min(places[i] for i in rows) for unit, rows in members.items()}
  images = {
    unit: collections.Counter(split.labels[rows].tolist())
    for unit, rows in members.items()
  }
  of_class = collections.defaultdict(list)
  for unit in sorted(members, key=first.get):
    for label in images[unit]:
      of_class[label].append(unit)
  left = {label: len(units) for label, units in of_class.items()}
  taken = set()

  def take(unit):
    taken.add(unit)
    for label in images[unit]:
      left[label] -= 1

  for label in sorted(of_class):
    sizes = {unit: images[unit][label] for unit in of_class[label]}
    n = sum(sizes.values())
    wanted = min(max(int(n * fraction + 0.5), 1), n - 1)
    # A unit that spans classes may have been taken for an earlier one.
    wanted -= sum(size for unit, size in sizes.items() if unit in taken)

    def may(unit):
      return unit not in taken and all(left[c] > 1 for c in images[unit])

    for unit, size in sizes.items():
      # If it brings the share nearer.
      if may(unit) and size < 2 * wanted:
        take(unit)
        wanted -= size
    if not taken & sizes.keys():
      smallest = sorted(filter(may, sizes), key=sizes.get)[:1]
      for unit in smallest:
        take(unit)
  return np.isin(units, list(taken))


def _shots(
  dataset: splits.Dataset, equal, shots: int, salt: str
) -> splits.Split:
  """Keeps so many images of each class, of one group only where need be."""
  train, turns, turn = dataset.train, collections.Counter(), {}
  units = units_of(train.names, dataset.groups, equal).tolist()
  places = [place(salt, name) for name in train.names]
  for i in sorted(range(len(places)), key=places.__getitem__):
    turn[i] = turns[units[i], train.labels[i]]
    turns[units[i], train.labels[i]] += 1
  kept = []
  for label in np.unique(train.labels):
    members = np.flatnonzero(train.labels == label).tolist()
    members.sort(key=lambda i: (turn[i], places[i]))
    kept += members[:shots]
  return splits.gather([(train, i) for i in sorted(kept)])


def place(salt: str, name: str) -> str:
  """Returns an image's place in a draw, as hex, whatever others there are."""
  return hashlib.sha256(f'{salt}/{name}'.encode()).hexdigest()
