"""The parts of a data set: written down once, and drawn no more."""

import collections
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from csdnet_jax.data.folders import Unused, but
from csdnet_jax.runtime import paths
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


def of_files(
  folder: paths.Path, names: Iterable[str], labels: Iterable[int]
) -> Split:
  """The part of a data set that these files of a folder are."""
  names = tuple(names)
  return Split(
    names,
    np.array(list(labels), np.int32),
    lambda i: (folder / names[i]).read_bytes(),
  )


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
    prints: the fingerprint of each image, `fingerprints.DTYPE` as bytes, by
      name; `load_images` fills them in, and for the images of a run takes those
      that it kept, of its training images.
    notes: what a person should know of how the data were read.
    warnings: what of that is likely not what the person meant.
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
  prints: Mapping[str, bytes] = MappingProxyType({})
  notes: tuple[str, ...] = ()
  warnings: tuple[str, ...] = ()


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


def require_classes(dataset: Dataset, root: paths.Path) -> None:
  """Refuses fewer than two classes, or one without a training image."""
  if len(dataset.class_names) < 2:
    raise UserError(
      f'{root} has {len(dataset.class_names)} class '
      f'({preview(dataset.class_names)}); classification takes at least two'
      f'{but(dataset.unused)}'
    )
  require_trained(dataset)


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
