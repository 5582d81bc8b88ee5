"""What a run keeps of its pairs: their parts, masks and digests."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from csdnet_jax.data.folders import Unused
from csdnet_jax.data.images.saved import ADDED, require_none
from csdnet_jax.data.masks.layouts import SegmentationSet, parts_of, take
from csdnet_jax.data.masks.pairs import Scan
from csdnet_jax.runtime.errors import UserError, preview


def split_to_json(dataset: SegmentationSet) -> dict[str, Any]:
  """The parts as plain data.

  Args:
    dataset: scanned.

  Returns:
    `class_names`; for each part image -> mask; and `digests`, image or mask ->
    SHA-256 as hex.
  """
  parts = {
    name: dict(zip(part.names, part.masks, strict=True))
    for name, part in parts_of(dataset).items()
  }
  return {
    'class_names': list(dataset.class_names),
    **parts,
    'digests': digests(dataset),
  }


def digests(dataset: SegmentationSet) -> dict[str, str]:
  """The SHA-256 of every image and mask, as hex, by name."""
  found = {}
  for name, part in parts_of(dataset).items():
    scan = dataset.scans[name]
    found |= zip(part.names, scan.images, strict=True)
    found |= zip(part.masks, scan.masks, strict=True)
  return found


def apply_split(
  dataset: SegmentationSet, saved: Mapping[str, Any]
) -> SegmentationSet:
  """Regroups a data set's pairs as an earlier run did.

  Args:
    dataset: scanned; holds every pair of `saved`, in whichever part.
    saved: what `split_to_json` gave; of older runs without digests.

  Returns:
    The data set with the parts and the order within them of `saved`. Pairs
    that it does not name are `unused`.

  Raises:
    UserError: a pair is gone or is another one now, or the classes differ.
  """
  if list(dataset.class_names) != list(saved['class_names']):
    differ = set(saved['class_names']) ^ set(dataset.class_names)
    raise UserError(
      f'The classes of {dataset.name} are not those of this run '
      f'({preview(sorted(differ)) or "their order differs"}); restore them, or '
      'start a new run in another --workdir'
    )
  where = {
    image: (name, i)
    for name, part in parts_of(dataset).items()
    for i, image in enumerate(part.names)
  }
  wanted = {p: saved[p] for p in ('train', 'val', 'test') if p in saved}
  masks = {
    image: mask for part in wanted.values() for image, mask in part.items()
  }
  known, now = saved.get('digests', {}), digests(dataset)

  def differs(image):
    name, i = where[image]
    return parts_of(dataset)[name].masks[i] != masks[image] or any(
      known.get(n, now[n]) != now[n] for n in (image, masks[image])
    )

  faults = {
    'are missing': [image for image in masks if image not in where],
    'are other pairs now': [
      image for image in masks if image in where and differs(image)
    ],
  }
  require_none(faults, dataset.name)
  parts = {
    part: [where[image] for image in names] for part, names in wanted.items()
  }
  added = tuple(Unused(n, ADDED) for n in where if n not in masks)
  return select(dataset, parts)._replace(unused=(*dataset.unused, *added))


def select(
  dataset: SegmentationSet,
  parts: Mapping[str, Sequence[tuple[str, int]]],
) -> SegmentationSet:
  """The data set whose parts are pair i of its part p, for each (p, i)."""
  before = parts_of(dataset)
  made, scans = dict.fromkeys(('train', 'val')), {}
  for name, rows in parts.items():
    made[name] = take([(before[p], i) for p, i in rows])
    scans[name] = _scan([(dataset.scans[p], i) for p, i in rows])
  return dataset._replace(**made, scans=scans)


def _scan(rows: Sequence[tuple[Scan, int]]) -> Scan:
  return Scan(
    tuple(scan.images[i] for scan, i in rows),
    tuple(scan.masks[i] for scan, i in rows),
    np.array([scan.sizes[i] for scan, i in rows], np.int32),
  )
