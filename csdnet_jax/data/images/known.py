"""The images of a run whose table is gone: told by what the run has kept."""

import collections
import os
from collections.abc import Mapping
from typing import Any

from csdnet_jax.data import folders
from csdnet_jax.data.images import splits

_UNKNOWN = 'images that the run does not know'


def candidates(
  root: str | os.PathLike, name: str, saved: Mapping[str, Any]
) -> splits.Dataset:
  """Every file of a folder that may be an image of a run.

  Args:
    root: the folder.
    name: of the data set; '' for the folder's.
    saved: what `saved.split_to_json` gave, with digests.

  Returns:
    The classes of the run, and all files in train, their labels still 0.

  Raises:
    UserError: there is no such folder, or a folder in it cannot be read.
  """
  root = folders.root_of(root)
  names, _ = folders.walk(root, root)
  # A table may have named a file that is not called as a picture.
  other = [n for n in saved['digests'] if folders.is_inside(n, root, root)]
  names = sorted({*names, *(n for n in other if (root / n).is_file())})
  train = splits.of_files(root, names, [0] * len(names))
  return splits.Dataset(name or root.name, tuple(saved['class_names']), train)


def labelled(
  dataset: splits.Dataset, saved: Mapping[str, Any]
) -> splits.Dataset:
  """Gives each candidate the label that the run knows its content by.

  Args:
    dataset: `candidates`, with the digests of all that can be read.
    saved: as for `candidates`.

  Returns:
    The images that are of a part of the run, by content or else by name, for
    `saved.apply_split` to judge. What it has never seen is `unused`.
  """
  labels = {n: y for p in splits.PARTS for n, y in saved.get(p, {}).items()}
  alike = collections.defaultdict(list)
  for name in labels:
    alike[saved['digests'].get(name)].append(name)
  found = {}
  # Equal pictures may have two labels: those that kept their names first.
  for name in sorted(dataset.digests, key=lambda n: (n not in labels, n)):
    same = alike.get(dataset.digests[name])
    if same:
      known = name if name in same else same[0]
      found[name] = labels[known]
      if len(same) > 1:
        same.remove(known)
    elif name in labels:
      found[name] = labels[name]
  seen = set(saved['digests'].values())
  unused = [
    folders.Unused(name, _UNKNOWN)
    for name, digest in dataset.digests.items()
    if digest not in seen and name not in found
  ]
  train = dataset.train
  rows = [(train, i) for i, n in enumerate(train.names) if n in found]
  kept = splits.gather(rows)
  kept.labels[:] = [found[name] for name in kept.names]
  return dataset._replace(
    train=kept,
    unused=(*dataset.unused, *unused),
    digests={name: dataset.digests[name] for name in kept.names},
  )
