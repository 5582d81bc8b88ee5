"""What a run keeps of its images: parts, labels, digests and fingerprints.

An image is known again by its content, wherever it lies and whatever it is
called now; the name decides between equal ones, and where nothing was kept of
the content.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from csdnet_jax.data.folders import Unused
from csdnet_jax.data.images import fingerprints
from csdnet_jax.data.images.splits import (
  EMPTY,
  PARTS,
  Dataset,
  gather,
  parts_of,
)
from csdnet_jax.data.naming import class_name
from csdnet_jax.runtime.errors import UserError, counted, preview
from csdnet_jax.runtime.terminal import say

ADDED = 'added since the run began'


def split_to_json(dataset: Dataset) -> dict[str, Any]:
  """The split as plain data.

  Returns:
    `class_names`; for each part name -> label; `digests`, name -> SHA-256 as
    hex, of every image of the data set, also of those in no part; and `prints`,
    name -> fingerprint as hex, of the training images.
  """
  parts = {
    part: dict(zip(split.names, split.labels.tolist(), strict=True))
    for part, split in parts_of(dataset).items()
  }
  prints = {
    name: dataset.prints[name].hex()
    for name in dataset.train.names
    if name in dataset.prints
  }
  content = {'digests': dict(dataset.digests), 'prints': prints}
  return {
    'class_names': list(dataset.class_names),
    **parts,
    **{what: by_name for what, by_name in content.items() if by_name},
  }


def apply_split(dataset: Dataset, saved: Mapping[str, Any]) -> Dataset:
  """Regroups a data set's images as an earlier run did.

  Says how many images have other names now.

  Args:
    dataset: holds every image of the parts of `saved`, in whichever part and
      under whatever name; with its digests.
    saved: what `split_to_json` gave; of older runs without digests or prints.

  Returns:
    The data set with the classes, the parts and the order within them of
    `saved`. Images that the run has never seen are `unused`.

  Raises:
    UserError: an image is gone, is another one now, or has another label.
  """
  wanted = {p: saved[p] for p in PARTS if p in saved}
  labels = {name: y for part in wanted.values() for name, y in part.items()}
  class_of = {
    name: class_name(dataset.class_names[label])
    for split in parts_of(dataset).values()
    for name, label in zip(split.names, split.labels, strict=True)
  }
  classes = {n: class_name(saved['class_names'][y]) for n, y in labels.items()}
  known = dict.fromkeys(labels) | dict(saved.get('digests', {}))
  found = _found(known, classes, dataset.digests, class_of)
  _require_all(dataset, classes, found, class_of)
  renamed = [f'{n} is {found[n]}' for n in labels if found[n] != n]
  if renamed:
    what = f'images of {dataset.name} have other names than when the run began'
    say(
      f'{counted(len(renamed), what)}, and the same content '
      f'({preview(renamed, 3)}).'
    )
  where = {
    name: (split, i)
    for split in parts_of(dataset).values()
    for i, name in enumerate(split.names)
  }
  parts = {
    part: gather([where[found[name]] for name in names])._replace(
      labels=np.array(list(names.values()), np.int32)
    )
    for part, names in wanted.items()
  }
  ours = {found[name] for name in known if name in found}
  # A run that kept no digests may have left out any of them.
  added = [n for n in where if n not in ours] if 'digests' in saved else []
  unused = tuple(Unused(name, ADDED) for name in added)
  return dataset._replace(
    **{'val': None, 'test': EMPTY, **parts},
    class_names=tuple(saved['class_names']),
    unused=(*dataset.unused, *unused),
    digests={n: d for n, d in dataset.digests.items() if n not in set(added)},
    prints={
      found[name]: bytes.fromhex(print_)
      for name, print_ in saved.get('prints', {}).items()
    },
  )


def prints_of(split: Mapping[str, Any]) -> np.ndarray:
  """Returns the fingerprints that were kept, `fingerprints.DTYPE` [n]."""
  return fingerprints.of_bytes(map(bytes.fromhex, split['prints'].values()))


def learnt(split: Mapping[str, Any], dataset: Dataset) -> set[str]:
  """Returns the digests of images that a run has learnt from.

  Args:
    split: what `split_to_json` gave, with digests.
    dataset: whose images of equal pixels are among them, in whatever bytes.
  """
  found = {split['digests'][name] for name in split['train']}
  if 'prints' in split:
    # Of the same pictures, saved again.
    trained = {pixels.tobytes() for pixels in prints_of(split)['pixels']}
    given = fingerprints.of_bytes(dataset.prints.values())['pixels']
    found |= {
      dataset.digests[name]
      for name, pixels in zip(dataset.prints, given, strict=True)
      if pixels.tobytes() in trained
    }
  return found


def _found(known, classes, digests, class_of) -> dict[str, str]:
  """The file that holds each image that is known by name or digest.

  Args:
    known: {name: digest or None}, what is looked for.
    classes: {name: class}, of those that have one.
    digests: {file: digest}, what is there.
    class_of: {file: class}.
  """
  found = {
    name: name
    for name, digest in known.items()
    if name in class_of and digest in (None, digests.get(name))
  }
  spare = collections.defaultdict(list)
  for name in class_of.keys() - found.keys():
    spare[digests.get(name)].append(name)
  for name, digest in known.items():
    files = sorted(spare.get(digest, ())) if digest else []
    if name in found or not files:
      continue
    alike = [f for f in files if class_of[f] == classes.get(name, class_of[f])]
    found[name] = (alike or files)[0]
    spare[digest].remove(found[name])
  return found


def _require_all(dataset, classes, found, class_of) -> None:
  """Refuses a data set that lacks an image of the run, or shows another."""
  lost = [name for name in classes if name not in found]
  moved = [
    f'{found[name]}: {class_of[found[name]]}, not {label}'
    for name, label in classes.items()
    if name in found and class_of[found[name]] != label
  ]
  faults = {
    'are missing': [n for n in lost if n not in class_of],
    'are other pictures now': [n for n in lost if n in class_of],
    'have another label now': moved,
  }
  require_none(faults, dataset.name)


def require_none(faults: Mapping[str, Sequence[str]], name: str) -> None:
  """Refuses a data set that is not what a run began with.

  Args:
    faults: of images, by what they are, such as 'are missing'.
    name: of the data set.

  Raises:
    UserError: names the images.
  """
  if any(faults.values()):
    said = ', '.join(
      f'{len(names)} {what} ({preview(names)})'
      for what, names in faults.items()
      if names
    )
    raise UserError(
      f'{name} does not hold the images of this run any more: {said}; restore '
      'them, or start a new run in another --workdir'
    )
