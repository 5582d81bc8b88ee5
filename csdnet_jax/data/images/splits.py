"""The parts of a data set: drawn once, written down, and drawn no more."""

import collections
import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from csdnet_jax.data.folders import Unused
from csdnet_jax.runtime.errors import UserError, preview


class Split(NamedTuple):
  """One part of a data set, n images.

  Attributes:
    names: the path of each, relative to the data set.
    labels: int32 [n], from 0.
    read: the encoded bytes of image i; may be called from several threads.
  """

  names: tuple[str, ...]
  labels: np.ndarray
  read: Callable[[int], bytes]


EMPTY = Split((), np.zeros(0, np.int32), lambda i: b'')


class Dataset(NamedTuple):
  """The parts of a data set; of one that has no split all is in `train`.

  Attributes:
    name: for people, and for the rules that the UFG release's names follow.
    class_names: of every class, by label.
    train: what a run learns from.
    val: carved from train to choose the best epoch, or None.
    test: what a run is judged by; empty where it is still to be drawn.
    groups: of images that their source knows to show one thing, such as a
      plant: the group of each, by name.
    unused: what lies beside the images and is none of them.
    digests: the SHA-256 of each image's file, as hex, by name; `load_images`
      fills them in.
  """

  name: str
  class_names: tuple[str, ...]
  train: Split
  val: Split | None = None
  test: Split = EMPTY
  groups: Mapping[str, str] = MappingProxyType({})
  unused: tuple[Unused, ...] = ()
  digests: Mapping[str, str] = MappingProxyType({})


def parts_of(dataset: Dataset) -> dict[str, Split]:
  """The parts that the data set has, by name, in the order train, val, test."""
  parts = {'train': dataset.train, 'val': dataset.val, 'test': dataset.test}
  return {part: split for part, split in parts.items() if split is not None}


def checked(dataset: Dataset) -> Dataset:
  """Checks what somebody else's program has put together.

  Returns:
    The data set, its labels int32.

  Raises:
    UserError: names and labels of different lengths, a name that is none or
      comes twice, a label that is no integer or of no class, a class without a
      training image, fewer than two classes.
  """
  classes, parts = len(dataset.class_names), parts_of(dataset)
  if classes < 2:
    raise UserError(
      f'{dataset.name} has {classes} class; classification takes at least two'
    )
  for part, split in parts.items():
    labels = np.asarray(split.labels)
    if labels.shape != (len(split.names),) or labels.dtype.kind not in 'iu':
      raise UserError(
        f'The {part} part of {dataset.name} has {len(split.names)} names, and '
        f'labels {labels.dtype} {list(labels.shape)}; give an integer for each'
      )
    beyond = sorted({int(i) for i in labels if not 0 <= i < classes})
    if beyond:
      raise UserError(
        f'Labels of {dataset.name} lie outside its {classes} classes '
        f'({preview(map(str, beyond))}); number them from 0'
      )
  splits = parts.values()
  names = collections.Counter(name for split in splits for name in split.names)
  wrong = [str(n) for n, k in names.items() if k > 1 or not isinstance(n, str)]
  if wrong:
    raise UserError(
      f'Images of {dataset.name} have the same name, or one that is no text '
      f'({preview(wrong)}); give each a name of its own'
    )
  untrained = [c.rpartition(':')[0] for c in classes_under(dataset, 1)]
  if untrained:
    raise UserError(
      f'Classes of {dataset.name} have no training image '
      f'({preview(untrained)}); add some or take the classes out'
    )
  return dataset._replace(
    **{
      part: split._replace(labels=np.asarray(split.labels, np.int32))
      for part, split in parts.items()
    }
  )


def split_to_json(dataset: Dataset) -> dict[str, Any]:
  """The split as plain data: class names, and name -> label for each part."""
  parts = {
    part: dict(zip(split.names, split.labels.tolist(), strict=True))
    for part, split in parts_of(dataset).items()
  }
  return {'class_names': list(dataset.class_names), **parts}


def apply_split(dataset: Dataset, saved: Mapping[str, Any]) -> Dataset:
  """Regroups a data set's images as an earlier run did.

  Args:
    dataset: holds every image that `saved` names, in whichever part.
    saved: what `split_to_json` gave.

  Returns:
    The data set with the parts, and the order within them, of `saved`;
    images that it does not name are left out.

  Raises:
    UserError: classes differ, or an image is gone or has another label now.
  """
  if tuple(saved['class_names']) != dataset.class_names:
    differ = sorted(set(saved['class_names']) ^ set(dataset.class_names))
    raise UserError(
      f'The classes of {dataset.name} are no longer those of the saved split '
      f'({preview(differ) or "their order differs"}); restore the data set or '
      'start a new workdir'
    )
  splits = list(parts_of(dataset).values())
  where = {
    name: (split, i) for split in splits for i, name in enumerate(split.names)
  }
  wanted = {p: saved[p] for p in ('train', 'val', 'test') if p in saved}
  gone = [
    name for part in wanted.values() for name in part if name not in where
  ]
  if gone:
    raise UserError(
      f'Images of the saved split are not in {dataset.name} any '
      f'more ({preview(gone)}); restore them or start a new workdir'
    )
  moved = [
    name
    for part in wanted.values()
    for name, label in part.items()
    if where[name][0].labels[where[name][1]] != label
  ]
  if moved:
    raise UserError(
      f'Images of the saved split have another label in '
      f'{dataset.name} now ({preview(moved)}); restore the lists or start a '
      'new workdir'
    )
  regrouped = {
    part: gather([where[name] for name in names])
    for part, names in wanted.items()
  }
  return dataset._replace(**{'val': None, **regrouped})


def draw_split(
  dataset: Dataset,
  *,
  test_fraction: float,
  val_fraction: float,
  shots: int,
  seed: int,
) -> Dataset:
  """Draws the parts that a data set does not come with, class by class.

  An image's place in the draw is the hash of the seed and its name, so adding
  images to one class moves none of another.

  Args:
    dataset: its test part may be empty; train then holds every image.
    test_fraction: of each class, where the test part is empty; in (0, 1). Every
      class keeps a training and a test image.
    val_fraction: of each class's training images, at least one; in [0, 1).
    shots: training images to keep of each class, after that; 0 for all.
    seed: of the draws.

  Returns:
    The data set with its parts; the order within each is the one it came in.

  Raises:
    UserError: a field out of range; a class with too few images, by name.
  """
  if not 0 < test_fraction < 1:
    raise UserError(
      f'config.data.test_fraction is {test_fraction}; it must lie between 0 '
      'and 1'
    )
  if not 0 <= val_fraction < 1:
    raise UserError(
      f'config.data.val_fraction is {val_fraction}; it must be 0 or lie '
      'between 0 and 1'
    )
  if shots < 0:
    raise UserError(
      f'config.data.shots is {shots}; it must be a number of images, '
      'or 0 for all'
    )
  if not dataset.test.names:
    lone = classes_under(dataset, 2)
    if lone:
      raise UserError(
        f'Classes of {dataset.name} have a single image and '
        f'cannot be split ({preview(lone)}); add images to them or take them '
        'out'
      )
    test, train = _carve(
      dataset.train, lambda n: _share(n, test_fraction), f'test/{seed}'
    )
    dataset = dataset._replace(train=train, test=test)
  if val_fraction:
    if dataset.val is not None:
      raise UserError(
        f'{dataset.name} has a val/ folder; set config.data.val_fraction=0 or '
        'remove the folder'
      )
    lone = classes_under(dataset, 2)
    if lone:
      raise UserError(
        f'config.data.val_fraction={val_fraction} would leave {len(lone)} '
        f'classes of {dataset.name} without a training image '
        f'({preview(lone)}); set it to 0 or add images to them'
      )
    val, train = _carve(
      dataset.train, lambda n: _share(n, val_fraction), f'val/{seed}'
    )
    dataset = dataset._replace(train=train, val=val)
  if shots:
    poor = classes_under(dataset, shots)
    if poor:
      raise UserError(
        f'Classes of {dataset.name} have fewer training images '
        f'than config.data.shots={shots} ({preview(poor)}); lower it'
      )
    train, _ = _carve(dataset.train, lambda n: shots, f'shots/{seed}')
    dataset = dataset._replace(train=train)
  return dataset


def _share(n: int, fraction: float) -> int:
  return min(max(int(n * fraction + 0.5), 1), n - 1)


def _carve(
  split: Split, count: Callable[[int], int], salt: str
) -> tuple[Split, Split]:
  """Takes `count(n)` of the n images of each class; the taken, the rest."""
  taken = np.zeros(len(split.names), bool)
  for label in np.unique(split.labels):
    members = np.flatnonzero(split.labels == label).tolist()
    members.sort(key=lambda i: _place(salt, split.names[i]))
    taken[members[: count(len(members))]] = True
  return (
    gather([(split, int(i)) for i in np.flatnonzero(taken)]),
    gather([(split, int(i)) for i in np.flatnonzero(~taken)]),
  )


def _place(salt: str, name: str) -> str:
  return hashlib.sha256(f'{salt}/{name}'.encode()).hexdigest()


def gather(items: list[tuple[Split, int]]) -> Split:
  """The split that holds image i of each (split, i), in that order."""
  return Split(
    tuple(split.names[i] for split, i in items),
    np.array([split.labels[i] for split, i in items], np.int32),
    lambda j: items[j][0].read(items[j][1]),
  )


def classes_under(dataset: Dataset, least: int) -> list[str]:
  """'name: n' for every class with n < `least` training images, by label."""
  counts = np.bincount(dataset.train.labels, minlength=len(dataset.class_names))
  return [
    f'{name}: {n}'
    for name, n in zip(dataset.class_names, counts, strict=True)
    if n < least
  ]
