"""Data sets of images and masks: where the pairs lie and what the ids mean.

    cityscapes   leftImg8bit/{train,val}/<city>/*_leftImg8bit.png and
                 gtFine/{train,val}/<city>/*_gtFine_labelTrainIds.png, or where
                 there are none the download's *_labelIds.png; val tests
    ade20k       images/ and annotations/, {training,validation} in both
    context60    JPEGImages/, ImageSets/*/{train,val}.txt, and the masks in
                 59_context_labels/ (the authors' files) or in
                 SegmentationClassContext/ (the converter of mmsegmentation)
    context59    the same without the background, which is left out
    camvid       {train,val,test}/ and {train,val,test}_labels/ (or ...annot/)
    pairs        your own: images/ and masks/, in both the same files in train/,
                 test/ and val/ (by any of the names in `naming.PARTS`); or the
                 lists train.txt, test.txt and val.txt of lines
                 '<image> <mask>', both under the root; and classes.txt, a name
                 on each line, the first being that of id 0

Whatever a set stores, a mask that was read holds a class in [0, C), or 255 for
a pixel that is left out of everything. Masks are PNG or BMP of one channel.
"""

import collections
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from csdnet_jax.data import folders, naming
from csdnet_jax.data.masks.classes import (
  CAMVID,
  CITYSCAPES,
  CITYSCAPES_IDS,
  CONTEXT,
)  # fmt: skip
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError, preview

IGNORE = 255
REFUSED = -1  # In `SegmentationSet.ids`: no class, and no way to leave it out.

_CONTEXT_LISTS = ('ImageSets/SegmentationContext', 'ImageSets/Main')
_NO_ROLE = 'images without a role'
_PARTS = ('train', 'val', 'test')
_PAIR = "'<image> <mask>' for each pair, both under the root"


class Pairs(NamedTuple):
  """One part of a data set, n pairs.

  Attributes:
    names: the path of each image, relative to the root.
    masks: the path of each mask, relative to the root.
    read: the encoded bytes of image and mask i; from any thread.
  """

  names: tuple[str, ...]
  masks: tuple[str, ...]
  read: Callable[[int], tuple[bytes, bytes]]


class SegmentationSet(NamedTuple):
  """The parts of a data set of pairs.

  Attributes:
    name: for people.
    class_names: of the C classes.
    ids: int16 [256], the class of each number in a mask's file: in [0, C),
      `IGNORE`, or `REFUSED`.
    train: what a run learns from; None where it is only judged.
    val: what may choose the best epoch, or None.
    test: what a run is judged by.
    scans: `pairs.Scan` of each part, by name; `pairs.scanned` fills them in.
    unused: what lies beside the pairs and is none of them.
  """

  name: str
  class_names: tuple[str, ...]
  ids: np.ndarray
  train: Pairs | None
  val: Pairs | None
  test: Pairs
  scans: Mapping[str, Any] = MappingProxyType({})
  unused: tuple[folders.Unused, ...] = ()


def load(data: Any) -> SegmentationSet:
  """Opens the data set that `config.data` describes; nothing is decoded yet.

  PASCAL Context comes in two orders of its classes. That of the authors' files
  has the 20 classes of VOC first; the widespread converter sorts by the ids of
  the 459 full classes, which is by name. A network trained on one scores near
  zero on the other, and no file says which it holds. What is known is the
  converters' output; that the folder's name tells which it was is our choice.
  Classes are always returned in the authors' order, to which the masks are
  mapped: that of the published weights of APD, as far as its code tells.

  Args:
    data: `source`, a key of `READERS`; `root`, its folder; `name`, '' for the
      folder's.

  Raises:
    UserError: the folder or a part is absent or empty; an image without a mask
      or a mask without an image; a list that does not parse or leaves the
      root; no class names.
  """
  root = folders.root_of(data.root)
  class_names, ids, parts = READERS[data.source](root)
  _require_disjoint(parts, root)
  # A set without a test part is judged by its val part, as papers do.
  test = parts['test'] if 'test' in parts else parts['val']
  val = parts.get('val') if 'test' in parts else None
  return SegmentationSet(
    data.name or root.name, tuple(class_names), ids,
    *(part and _open(root, part) for part in (parts['train'], val, test)),
    unused=folders.rest(root, _used(root, parts), _NO_ROLE),
  )  # fmt: skip


def _used(root: paths.Path, parts) -> list[str]:
  """The files that the pairs and their lists are."""
  lists = ['classes', 'objectInfo150', *parts]
  folder = next((f for f in _CONTEXT_LISTS if (root / f).is_dir()), '')
  lists += [f'{folder}/{part}' for part in parts if folder]
  return [
    *(name for part in parts.values() for pair in part for name in pair),
    *(f'{name}.txt' for name in lists),
  ]


def take(rows: Sequence[tuple[Pairs, int]]) -> Pairs:
  """The part that holds pair i of each (part, i), in that order."""
  return Pairs(
    tuple(part.names[i] for part, i in rows),
    tuple(part.masks[i] for part, i in rows),
    lambda j: rows[j][0].read(rows[j][1]),
  )


def parts_of(dataset: SegmentationSet) -> dict[str, Pairs]:
  """The parts that the data set has, by name, in the order train, val, test."""
  parts = {'train': dataset.train, 'val': dataset.val, 'test': dataset.test}
  return {name: part for name, part in parts.items() if part is not None}


def _open(root: paths.Path, pairs: Sequence[tuple[str, str]]) -> Pairs:
  names, masks = zip(*pairs, strict=True)
  return Pairs(
    names,
    masks,
    lambda i: ((root / names[i]).read_bytes(), (root / masks[i]).read_bytes()),
  )


def _require_disjoint(parts, root: paths.Path) -> None:
  for name, part in parts.items():
    if not part:
      raise UserError(f'The {name} part of {root} is empty; add images to it')
  used: dict[str, str] = {}
  for name, part in parts.items():
    for image, _ in part:
      if used.setdefault(image, name) != name:
        raise UserError(
          f'{image} of {root} is in {used[image]} and in {name}; take it out '
          'of one of them'
        )


def _ids(classes: int, stored: Mapping[int, int] | None = None) -> np.ndarray:
  """The table of ids: `stored` -> class, 0 to C - 1 as they are without it."""
  ids = np.full(256, REFUSED, np.int16)
  ids[IGNORE] = IGNORE
  for number, label in (stored or {i: i for i in range(classes)}).items():
    ids[number] = label
  return ids


def _cityscapes(root):
  suffix, ids = '_gtFine_labelTrainIds', _ids(19)
  if not any((root / 'gtFine').glob(f'train/*/*{suffix}.png')):
    suffix = '_gtFine_labelIds'
    left_out = dict.fromkeys(range(34), IGNORE)
    ids = _ids(19, left_out | {n: i for i, n in enumerate(CITYSCAPES_IDS)})
  parts = {
    part: _matched(
      root, f'leftImg8bit/{part}', f'gtFine/{part}', '_leftImg8bit', suffix
    )
    for part in ('train', 'val')
  }
  return CITYSCAPES, ids, parts


def _ade20k(root):
  parts = {
    part: _matched(root, f'images/{folder}', f'annotations/{folder}')
    for part, folder in (('train', 'training'), ('val', 'validation'))
  }
  names = [str(i) for i in range(1, 151)]
  path = root / 'objectInfo150.txt'
  if path.is_file():
    rows = [line.split('\t') for line in folders.lines_of(path)[1:]]
    rows = [row for row in rows if row != ['']]
    if len(rows) != 150 or any(len(row) != 5 for row in rows):
      raise UserError(
        f'{path} has not 150 lines of five columns after its first; restore '
        'it, or remove it to have the classes numbered'
      )
    # The first of several synonyms.
    names = [row[4].split(',')[0].strip() for row in rows]
  stored = {0: IGNORE} | {i: i - 1 for i in range(1, 151)}
  return names, _ids(150, stored), parts


def _context60(root):
  order, parts = _context(root)
  return CONTEXT, _ids(60, order), parts


def _context59(root):
  order, parts = _context(root)
  stored = {i: label - 1 if label else IGNORE for i, label in order.items()}
  return CONTEXT[1:], _ids(59, stored), parts


def _context(root):
  """The class, in our order, of each stored id; and the parts."""
  by_name = (CONTEXT[0], *sorted(CONTEXT[1:]))
  orders = {
    '59_context_labels': CONTEXT,
    'SegmentationClassContext': by_name,
  }
  folder = _one_of(root, list(orders), 'the masks')
  lists = _one_of(root, _CONTEXT_LISTS, 'train.txt')
  parts = {}
  for part in ('train', 'val'):
    path = root / lists / f'{part}.txt'
    stems = [line.split()[0] for line in _lines(path, "'<name>'")]
    pairs = [(f'JPEGImages/{s}.jpg', f'{folder}/{s}.png') for s in stems]
    parts[part] = _listed(root, path, pairs)
  order = {i: CONTEXT.index(name) for i, name in enumerate(orders[folder])}
  return order, parts


def _one_of(root, names, what):
  present = [name for name in names if (root / name).is_dir()]
  if not present:
    raise UserError(f'{root} has no {" or ".join(names)}; add {what} there')
  if len(present) > 1 and what == 'the masks':
    raise UserError(
      f'{root} has both {" and ".join(present)}, which order the classes '
      'differently; remove one of them'
    )
  return present[0]


def _camvid(root):
  suffix = 'annot' if (root / 'trainannot').is_dir() else '_labels'
  parts = {
    part: _matched(root, part, f'{part}{suffix}')
    for part in ('train', 'val', 'test')
  }
  stored = {i: i for i in range(11)} | {11: IGNORE}
  return CAMVID, _ids(11, stored), parts


def _pairs(root):
  path = root / 'classes.txt'
  names = [line.strip() for line in folders.lines_of(path, 'for each class')]
  while names and not names[-1]:
    names.pop()
  twice = sorted(n for n, k in collections.Counter(names).items() if k > 1)
  if not 2 <= len(names) < IGNORE or '' in names or twice:
    raise UserError(
      f'{path} names {len(names)} classes'
      f'{f", some twice ({preview(twice)})" if twice else ""}; write 2 to '
      f'{IGNORE - 1} different names, one on each line'
    )
  listed = [p for p in _PARTS if (root / f'{p}.txt').is_file()]
  if listed:
    parts = {p: _listed(root, root / f'{p}.txt') for p in listed}
  else:
    images, masks = _part_folders(root, 'images'), _part_folders(root, 'masks')
    parts = {
      p: _matched(
        root, f'images/{images.get(p, p)}', f'masks/{masks.get(p, p)}'
      )
      for p in _PARTS
      if p in images or p in masks
    }
  absent = [p for p in ('train', 'test') if p not in parts]
  if absent and not (absent == ['test'] and 'val' in parts):
    raise UserError(
      f'{root} has no {absent[0]} part; write {absent[0]}.txt, or make '
      f'images/{absent[0]}/ and masks/{absent[0]}/'
    )
  return names, _ids(len(names)), parts


def _part_folders(root, inside) -> dict[str, str]:
  """The name of each part's folder, of those in a folder under the root."""
  if not (root / inside).is_dir():
    return {}
  here = folders.listing(root / inside)
  links = [e for e, why in here.unused if why == folders.LINKS and e.is_dir()]
  parts = naming.parts_among([*here.folders, *links], root / inside)
  return {part: entry.name for part, entry in parts.items()}


def _matched(
  root, images, masks, image_suffix='', mask_suffix=''
) -> list[tuple[str, str]]:
  """Pairs of equal names, but for suffix and extension, in two folders."""
  found = {
    folder: _by_stem(root, folder, suffix)
    for folder, suffix in ((images, image_suffix), (masks, mask_suffix))
  }
  for here, there in ((images, masks), (masks, images)):
    alone = [p for stem, p in found[here].items() if stem not in found[there]]
    if alone:
      raise UserError(
        f'Files of {root} have no partner in {there} ({preview(alone)}); '
        'add the partners, or take the files out'
      )
  return [(path, found[masks][stem]) for stem, path in found[images].items()]


def _by_stem(root, folder, suffix) -> dict[str, str]:
  if not (root / folder).is_dir():
    raise UserError(
      f'{root} has no {folder}/; add it, or set --config.data.root to the '
      'folder that holds it'
    )
  found: dict[str, str] = {}
  for path in folders.walk(root / folder, root)[0]:
    stem = pathlib.PurePosixPath(path).relative_to(folder).with_suffix('')
    if not stem.name.endswith(suffix):
      continue
    key = str(stem).removesuffix(suffix)
    if key in found:
      raise UserError(
        f'{root} has both {found[key]} and {path}; remove one of them'
      )
    found[key] = path
  return found


def _lines(path, form) -> list[str]:
  lines = [line.strip() for line in folders.lines_of(path, form)]
  return [line for line in lines if line]


def _listed(root, path, pairs=None) -> list[tuple[str, str]]:
  """The pairs of a list, checked: they are there, inside, and named once."""
  if pairs is None:
    pairs = []
    for line in _lines(path, _PAIR):
      words = line.split('\t' if '\t' in line else None)
      if len(words) != 2:
        raise UserError(f'{path} has the line {line!r}; write {_PAIR}')
      pairs.append((words[0].strip(), words[1].strip()))
  times = collections.Counter(image for image, _ in pairs)
  twice = sorted(image for image, n in times.items() if n > 1)
  if twice:
    raise UserError(
      f'{path} names images twice ({preview(twice)}); leave one line each'
    )
  names = [name for pair in pairs for name in pair]
  outside = [n for n in names if not folders.is_inside(n, root, root)]
  if outside:
    raise UserError(
      f'{path} names files outside {root} ({preview(outside)}); copy them '
      'into it'
    )
  missing = folders.missing_of(root, names)
  if missing:
    raise UserError(
      f'{path} names files that are not in {root} ({preview(missing)}); '
      'add them or take their pairs out of the list'
    )
  return pairs


READERS = {
  'cityscapes': _cityscapes,
  'ade20k': _ade20k,
  'context59': _context59,
  'context60': _context60,
  'camvid': _camvid,
  'pairs': _pairs,
}
