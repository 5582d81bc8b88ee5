"""Images with masks, pairs of any size, decoded once.

A prepared part is one memory-mapped file in the cache; see `cache.File`.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from csdnet_jax.data import cache, decode
from csdnet_jax.data.folders import Unused
from csdnet_jax.data.masks import layouts
from csdnet_jax.runtime.errors import UserError, counted, preview
from csdnet_jax.runtime.terminal import say

_COUNTS = np.dtype('<i8')


class Scan(NamedTuple):
  """What the files of n pairs say before they are decoded.

  Attributes:
    images: SHA-256 of each image's file, hex.
    masks: likewise.
    sizes: int32 [n, 2], height and width, upright.
  """

  images: tuple[str, ...]
  masks: tuple[str, ...]
  sizes: np.ndarray


class Prepared(NamedTuple):
  """n pairs of any size.

  Attributes:
    pixels: uint8, of all pairs one after the other, memory-mapped, read-only.
    starts: int64 [n], where each begins.
    extents: int32 [n, 2], height and width of each, as kept.
    sizes: int32 [n, 2], height and width of the originals.
    counts: int64 [n, 256], pixels of each class, and of 255, in the originals.
  """

  pixels: np.ndarray
  starts: np.ndarray
  extents: np.ndarray
  sizes: np.ndarray
  counts: np.ndarray

  def image(self, i: int) -> np.ndarray:
    """Image i, uint8 [h, w, 3], not copied."""
    h, w = self.extents[i].tolist()
    start = int(self.starts[i])
    return self.pixels[start : start + 3 * h * w].reshape(h, w, 3)

  def mask(self, i: int) -> np.ndarray:
    """Mask i, uint8 [h, w], classes or 255, not copied."""
    h, w = self.extents[i].tolist()
    start = int(self.starts[i]) + 3 * h * w
    return self.pixels[start : start + h * w].reshape(h, w)


class Parts(NamedTuple):
  """What a run reads: `train` resized, the parts that judge it as they are."""

  train: Prepared | None
  val: Prepared | None
  test: Prepared


def scan(part: layouts.Pairs) -> Scan:
  """Reads every file of a part once, without decoding it.

  Raises:
    UnreadableError: lists all that cannot be read or opened, and the masks of
      another size than their image.
  """

  def look(i):
    name, mask_name = part.names[i], part.masks[i]
    image, mask = _read(part, i)
    size = decode.size_of(image, name)
    mask_size = decode.size_of(mask, mask_name, mask=True)
    _require_one_size(part, i, size, mask_size)
    return cache.sha256(image), cache.sha256(mask), size

  images, masks, sizes = zip(*cache.all_of(look, len(part.names)), strict=True)
  return Scan(images, masks, np.array(sizes, np.int32))


def scanned(dataset: layouts.SegmentationSet) -> layouts.SegmentationSet:
  """The data set with the `scan` of each part.

  Raises:
    UnreadableError: as `scan`.
  """
  parts = layouts.parts_of(dataset)
  return dataset._replace(scans={name: scan(p) for name, p in parts.items()})


def usable(dataset: layouts.SegmentationSet) -> layouts.SegmentationSet:
  """The data set without the pairs that cannot be used, which are listed.

  Every pair is decoded for it, each time.

  Raises:
    UserError: a part has no other.
  """
  made, problems = {}, {}
  for name, part in layouts.parts_of(dataset).items():

    def try_to(i, part=part):
      _decoded(dataset, part, i)

    rows = []
    for i, error in enumerate(cache.in_order(try_to, len(part.names))):
      if error:
        problems[part.names[i]] = str(error)
      else:
        rows.append(i)
    if not rows:
      raise UserError(
        f'No pair of the {name} part of {dataset.name} can be used '
        f'({preview(problems.values())}); replace them'
      )
    made[name] = layouts.take([(part, i) for i in rows])
  if problems:
    skipped = counted(len(problems), 'pairs that cannot be used')
    say(f'Skipped, {skipped}:', style='red')
  for problem in problems.values():
    say(f'  {problem}', style='red')
  skipped = (Unused(name, 'unreadable') for name in problems)
  return dataset._replace(**made, unused=(*dataset.unused, *skipped))


def prepare(
  dataset: layouts.SegmentationSet,
  *,
  resize: int,
  cache_dir: pathlib.Path,
  progress: Callable[[int, int], None] | None = None,
) -> Parts:
  """Decodes every pair that a run reads, or names all that it cannot.

  Args:
    dataset: the pairs, scanned.
    resize: longest allowed shorter side of the training pairs, which larger
      ones are shrunk to; 0 keeps all as they are.
    cache_dir: where the files go.
    progress: called as `(done, total)`, in pairs, over all the parts.

  Raises:
    UnreadableError: lists the pairs of all the parts that cannot be used, such
      as those with ids outside the class list.
    UserError: the cache folder cannot be written, or is too full.
  """
  parts, scans = layouts.parts_of(dataset), dataset.scans
  jobs = {
    name: _job(cache_dir, dataset, scans[name], resize * (name == 'train'))
    for name in parts
  }
  cache.require_space(cache_dir, [file for file, _ in jobs.values()])
  total = sum(len(part.names) for part in parts.values())
  done, problems = 0, []
  for name, part in parts.items():
    file, extents = jobs[name]
    if not cache.is_whole(file):
      told = progress and (lambda n, before=done: progress(before + n, total))
      try:
        cache.write(file, _records(dataset, part, extents), told)
      except cache.UnreadableError as e:
        problems += e.problems
    done += len(part.names)
    if progress:
      progress(done, total)
  if problems:
    raise cache.UnreadableError(problems)
  prepared = {name: _opened(*jobs[name], scans[name].sizes) for name in parts}
  return Parts(prepared.get('train'), prepared.get('val'), prepared['test'])


def shrunk(size: Sequence[int], resize: int) -> tuple[int, int]:
  """Height and width once the shorter side is `resize` at most; 0 is any.

  >>> shrunk((360, 480), 180), shrunk((360, 480), 0)
  ((180, 240), (360, 480))
  """
  height, width = map(int, size)
  short = min(height, width)
  if not 0 < resize < short:
    return height, width
  return round(height * resize / short), round(width * resize / short)


def _job(cache_dir, dataset, scanned: Scan, resize: int):
  """The file of a part, and the extents [n, 2] of the pairs in it."""
  extents = np.array([shrunk(s, resize) for s in scanned.sizes], np.int32)
  made_of = {
    'view': 'pairs',
    'digests': [list(scanned.images), list(scanned.masks)],
    'ids': dataset.ids.tolist(),
    'resize': resize,
  }
  n = int(_lengths(extents).sum())
  return cache.file(cache_dir, made_of, np.dtype(np.uint8), n), extents


def _lengths(extents: np.ndarray) -> np.ndarray:
  """Bytes of each pair: the image, the mask, and 256 counts."""
  return 4 * extents.astype(np.int64).prod(1) + 256 * _COUNTS.itemsize


def _records(dataset, part: layouts.Pairs, extents: np.ndarray):
  def render(i):
    image, label = _decoded(dataset, part, i)
    counts = np.bincount(label.ravel(), minlength=256).astype(_COUNTS)
    h, w = extents[i].tolist()
    if (h, w) != label.shape:
      image = np.clip(np.round(decode.bilinear(image, h, w)), 0, 255)
      rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(int)
        for old, new in zip(label.shape, (h, w), strict=True)
      )
      label = label[rows[:, None], columns]
    return image.astype(np.uint8).tobytes() + label.tobytes() + counts.tobytes()

  return cache.in_order(render, len(part.names))


def _decoded(dataset, part: layouts.Pairs, i: int):
  """The pixels uint8 [h, w, 3] and the classes uint8 [h, w] of a pair."""
  image, mask = _read(part, i)
  image = decode.decode(image, part.names[i])
  mask = decode.decode_mask(mask, part.masks[i])
  _require_one_size(part, i, image.shape[:2], mask.shape)
  label = dataset.ids[mask]
  _require_classes(label, mask, dataset, part.masks[i])
  return image, label.astype(np.uint8)


def _require_one_size(part: layouts.Pairs, i: int, size, mask_size) -> None:
  if size != mask_size:
    (h, w), (mask_h, mask_w) = size, mask_size
    raise decode.ImageError(
      f'{part.masks[i]}: a mask of {mask_h} x {mask_w} pixels for an image of '
      f'{h} x {w} ({part.names[i]}); make it the same'
    )


def _require_classes(label, mask, dataset, name: str) -> None:
  if (label != layouts.REFUSED).all():
    return
  beyond = np.unique(mask[label == layouts.REFUSED])
  known = np.flatnonzero(dataset.ids != layouts.REFUSED).tolist()
  raise decode.ImageError(
    f'{name}: holds ids outside the class list '
    f'({preview(map(str, beyond))}); the {len(dataset.class_names)} '
    f'classes of {dataset.name} are stored as {_ranges(known)}'
  )


def _ranges(numbers: Sequence[int]) -> str:
  """Sorted numbers as '0 to 11 and 255'."""
  runs: list[list[int]] = []
  for number in numbers:
    if runs and runs[-1][-1] == number - 1:
      runs[-1].append(number)
    else:
      runs.append([number])
  said = [f'{r[0]} to {r[-1]}' if len(r) > 1 else str(r[0]) for r in runs]
  return ' and '.join(said)


def _opened(file: cache.File, extents, sizes) -> Prepared:
  pixels = cache.open_map(file)
  ends = np.cumsum(_lengths(extents))
  width = 256 * _COUNTS.itemsize
  counts = [pixels[end - width : end].tobytes() for end in ends]
  return Prepared(
    pixels,
    ends - _lengths(extents),
    extents,
    sizes,
    np.frombuffer(b''.join(counts), _COUNTS).reshape(-1, 256),
  )


def _read(part: layouts.Pairs, i: int) -> tuple[bytes, bytes]:
  return cache.read(part.read, i, f'{part.names[i]} or {part.masks[i]}')
