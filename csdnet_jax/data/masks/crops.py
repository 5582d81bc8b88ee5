"""From prepared pairs to batches of windows, each of which holds a crop."""

import math
from collections.abc import Iterator

import numpy as np

from csdnet_jax.data import batches
from csdnet_jax.data.masks import pairs
from csdnet_jax.data.masks.layouts import IGNORE
from csdnet_jax.runtime.errors import UserError

# Windows that are tried for one with a label, and the stride of the labels.
_TRIES = 4
_STRIDE = 8


def train_batches(
  prepared: pairs.Prepared,
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
      f'--config.data.canvas={needed} or more (it is {canvas}), or shrink the '
      'images with --config.data.resize=PIXELS'
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
