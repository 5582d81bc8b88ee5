"""The parts of a data set: written down once, and drawn no more."""

import collections
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
    drawn: whether its test part is the program's own choice.
    digests: the SHA-256 of each image's file, as hex, by name; `load_images`
      fills them in.
    notes: what a person should know of how the data were read.
  """

  name: str
  class_names: tuple[str, ...]
  train: Split
  val: Split | None = None
  test: Split = EMPTY
  groups: Mapping[str, str] = MappingProxyType({})
  unused: tuple[Unused, ...] = ()
  drawn: bool = False
  digests: Mapping[str, str] = MappingProxyType({})
  notes: tuple[str, ...] = ()


PARTS = ('train', 'val', 'test')


def parts_of(dataset: Dataset) -> dict[str, Split]:
  """The parts that the data set has, by name, in the order train, val, test."""
  parts = {part: getattr(dataset, part) for part in PARTS}
  return {part: split for part, split in parts.items() if split and split.names}


def whole(dataset: Dataset) -> Split:
  """All images of a data set as one part, in the order train, val, test."""
  parts = parts_of(dataset).values()
  return gather([(part, i) for part in parts for i in range(len(part.names))])


def without(dataset: Dataset, names: Mapping[str, str]) -> Dataset:
  """Leaves images out of a data set; `unused` says why.

  Args:
    dataset: with whatever parts.
    names: the reason for each, by name.
  """
  if not names:
    return dataset
  parts = {
    part: gather(
      [(split, i) for i, n in enumerate(split.names) if n not in names]
    )
    for part, split in parts_of(dataset).items()
  }
  unused = (Unused(name, reason) for name, reason in names.items())
  return dataset._replace(**parts, unused=(*dataset.unused, *unused))


def require_trained(dataset: Dataset) -> None:
  """Raises a `UserError` that names the classes without a training image."""
  untrained = [c.rpartition(':')[0] for c in classes_under(dataset, 1)]
  if untrained:
    raise UserError(
      f'Classes of {dataset.name} have no training image '
      f'({preview(untrained)}); add some or take the classes out'
    )


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
  require_trained(dataset)
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
  return dataset._replace(**{'val': None, 'test': EMPTY, **regrouped})


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
