"""From images with masks to batches: pairs of any size, decoded once.

A prepared part is one memory-mapped file in the cache; see `cache.File`. Of
each pair a batch holds a window that the crop of the step lies in.
"""

import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from csdnet_jax.data import batches, cache, decode
from csdnet_jax.data.masks import layouts
from csdnet_jax.data.masks.layouts import IGNORE
from csdnet_jax.runtime.errors import UserError, preview

_COUNTS = np.dtype('<i8')
# Windows that are tried for one with a label, and the stride of the labels.
_TRIES = 4
_STRIDE = 8


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

  train: Prepared
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
    if size != mask_size:
      (h, w), (mh, mw) = size, mask_size
      raise decode.ImageError(
        f'{mask_name}: a mask of {mh} x {mw} pixels for an image of {h} x {w} '
        f'({name}); make it the same'
      )
    return cache.sha256(image), cache.sha256(mask), size

  images, masks, sizes = zip(*cache.all_of(look, len(part.names)), strict=True)
  return Scan(images, masks, np.array(sizes, np.int32))


def prepare(
  dataset: layouts.SegmentationSet,
  scans: Mapping[str, Scan],
  *,
  resize: int,
  cache_dir: pathlib.Path,
  progress: Callable[[int, int], None] | None = None,
) -> Parts:
  """Decodes every pair that a run reads, or names all that it cannot.

  Args:
    dataset: the pairs.
    scans: of each part that `segmentation.parts_of` names.
    resize: longest allowed shorter side of the training pairs, which larger
      ones are shrunk to; 0 keeps all as they are.
    cache_dir: where the files go.
    progress: called as `(done, total)`, in pairs, over all the parts.

  Raises:
    UnreadableError: lists the pairs of all the parts that cannot be used, such
      as those with ids outside the class list.
    UserError: the cache folder cannot be written, or is too full.
  """
  parts = layouts.parts_of(dataset)
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
  return Parts(prepared['train'], prepared.get('val'), prepared['test'])


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
    image, mask = _read(part, i)
    image = decode.decode(image, part.names[i])
    mask = decode.decode_mask(mask, part.masks[i])
    if image.shape[:2] != mask.shape:
      raise decode.ImageError(
        f'{part.names[i]}: has changed since it was first read; start again'
      )
    label = dataset.ids[mask]
    _require_classes(label, mask, dataset, part.masks[i])
    label = label.astype(np.uint8)
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


# ------------------------------------------------------------------- batches


def train_batches(
  prepared: Prepared,
  *,
  batch: int,
  seed: int,
  start: int,
  stop: int,
  canvas: int,
  size: int,
  scale: tuple[float, float] = (0.5, 2.0),
  rotate: float = 10.0,
  order: np.ndarray | None = None,
  host: int = 0,
  hosts: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """The training batches of steps `start` to `stop` - 1.

  A batch depends on the seed and its step alone, as `batches.shuffled` says.
  Scale and place of a crop are drawn here, from the seed, the step and the row
  of the batch, so that only the pixels that it may see, turned or not, go to
  the device, where `augment.sample_pairs` draws the rest. Where an image is
  smaller than the crop, it lies in its middle.

  Of a row's first four draws that is taken which shows a label at stride 8,
  unturned; if none does, the row's weight is 0.

  Args:
    prepared: n pairs.
    batch: B, rows of a batch over all the hosts; at most n.
    seed: of the shuffles and the draws.
    start: the first step.
    stop: the step after the last.
    canvas: S, the side of the windows.
    size: the side of a crop, as `augment.sample_pairs` is given it.
    scale: the range of crop pixels for each pixel of the image, uniform.
    rotate: largest angle in degrees that the device may turn a crop.
    order: [B], the order of a batch's rows, where it is not theirs.
    host: takes rows host * b to (host + 1) * b of each batch, b = B / hosts.
    hosts: how many there are.

  Yields:
    `image` uint8 [b, S, S, 3] and `mask` uint8 [b, S, S], valid in their top
    left corner, 0 and 255 beyond; `extent` int32 [b, 2], `centre` float32 [b,
    2] and `scale` float32 [b], as `augment.sample_pairs` takes them; `weight`
    float32 [b], 1 or 0; `id` int32 [b], the row in `prepared`.

  Raises:
    UserError: B exceeds n or is no multiple of `hosts`; a window that a crop
      may need is larger than the canvas.
  """
  reach = _reach(size, rotate)
  _require_canvas(prepared, canvas, size, scale[0], rotate)

  def take(places, ids):
    rows = [
      _row(prepared, int(i), (seed % 2**32, int(place)), canvas, size, scale,
           reach)
      for place, i in zip(places, ids, strict=True)
    ]  # fmt: skip
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

  return batches.shuffled(
    take, len(prepared.sizes), batch=batch, seed=seed, start=start, stop=stop,
    order=order, host=host, hosts=hosts,
  )  # fmt: skip


def _reach(size: int, rotate: float) -> float:
  """The side of the upright square that holds a crop however it is turned."""
  angle = math.radians(min(rotate, 45.0))
  return size * (math.cos(angle) + math.sin(angle))


def _side(reach: float, scale: float) -> int:
  """Pixels a side that a crop may read, with its neighbours."""
  return math.ceil(reach / scale) + 2


def canvas_of(size: int, scale: float, rotate: float) -> int:
  """Returns the side of a window that holds whatever a crop may see.

  Args:
    size: the side of a crop.
    scale: the least scale, crop pixels for each pixel of the image.
    rotate: largest angle in degrees.

  >>> canvas_of(177, 0.5, 10.0)
  414
  """
  # One more: a window's first row and last row are both rounded outwards.
  return _side(_reach(size, rotate), scale) + 1


def _require_canvas(prepared, canvas, size, least, rotate) -> None:
  needed = min(canvas_of(size, least, rotate), int(prepared.extents.max()))
  if needed > canvas:
    raise UserError(
      f'A crop of {size} pixels at the scale {least:g}, turned as far as '
      f'allowed, may see {needed} pixels a side of the training images; set '
      f'config.data.canvas, now {canvas}, to {needed} or more, or shrink the '
      'images with config.data.resize'
    )


def _row(prepared, i, seeds, canvas, size, scale, reach):
  rng = np.random.default_rng(seeds)
  image, mask = prepared.image(i), prepared.mask(i)
  draws = [_draw(rng, mask.shape, size, scale) for _ in range(_TRIES)]
  valid = (draw for draw in draws if _has_label(mask, *draw, size))
  chosen = next(valid, None)
  factor, corner = chosen or draws[0]
  centre = [(c + size / 2) / factor for c in corner]
  half = _side(reach, factor) / 2
  window = tuple(
    slice(max(math.floor(c - half), 0), min(math.ceil(c + half), whole))
    for c, whole in zip(centre, mask.shape, strict=True)
  )
  h, w = (side.stop - side.start for side in window)
  row = {
    'image': np.zeros((canvas, canvas, 3), np.uint8),
    'mask': np.full((canvas, canvas), IGNORE, np.uint8),
    'extent': np.array((h, w), np.int32),
    'centre': np.float32(
      [c - side.start for c, side in zip(centre, window, strict=True)]
    ),
    'scale': np.float32(factor),
    'weight': np.float32(chosen is not None),
    'id': np.int32(i),
  }
  row['image'][:h, :w] = image[window]
  row['mask'][:h, :w] = mask[window]
  return row


def _draw(rng, extent, size, scale) -> tuple[float, tuple[int, int]]:
  """A scale, and the crop's corner in pixels of the scaled image."""
  factor = float(np.float32(rng.uniform(*scale)))
  scaled = [int(side * factor) for side in extent]
  corner = tuple(
    int(rng.integers(side - size + 1)) if side > size else -((size - side) // 2)
    for side in scaled
  )
  return factor, corner


def _has_label(mask, factor, corner, size) -> bool:
  """Whether the labels of a crop, thinned out as the losses do, hold one."""
  n = (size - 1) // _STRIDE + 1
  thin = np.arange(n) * size // n
  rows, columns = (
    np.floor((c + thin + 0.5) / factor).astype(int) for c in corner
  )
  rows = rows[(rows >= 0) & (rows < mask.shape[0])]
  columns = columns[(columns >= 0) & (columns < mask.shape[1])]
  return bool((mask[rows[:, None], columns] != IGNORE).any())
