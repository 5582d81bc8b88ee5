"""Segmentation of whole images by sliding windows, scored pixel by pixel.

The protocol of the PSPNet line of papers and of APD's release: an image is
resized, cut into overlapping windows of the training crop's size, each is
forwarded with its mirror image, probabilities are averaged where windows
overlap, resized back, averaged over scales, and the largest one wins. Masks are
compared at their own resolution.
"""

import csv
import functools
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csdnet_jax.data import augment, batches, decode, resample
from csdnet_jax.data.masks import pairs
from csdnet_jax.evaluation import metrics
from csdnet_jax.runtime import paths, writers
from csdnet_jax.runtime.errors import UserError

_UNDECIDED = 255
# Rows that are resized at once: of 150 classes no map of a whole image is made.
_ROWS = 32


class Windows(NamedTuple):
  """How images are cut into windows, and what is averaged.

  Attributes:
    size: S, of the windows, at every scale.
    scales: that are averaged.
    flip: whether to average over mirror images; the papers do at any scale.
    base_size: the longer side of an image at scale 1; 0 is what the training
      images have, its own unless `resize` shrinks it.
    resize: as `pairs.prepare` was given it for the training images.
  """

  size: int
  scales: Sequence[float] = (1.0,)
  flip: bool = True
  base_size: int = 0
  resize: int = 0


class Result(NamedTuple):
  """What an evaluation found.

  Attributes:
    figures: 'miou', 'miou_present', 'macc', 'pixel_accuracy' in percent (see
      `metrics.segmentation_figures`), and 'n' images.
    confusion: int64 [C, C], pixels by label (row) and prediction.
    rows: int64 [n], the images that were evaluated.
    counts: int64 [n, 3, C], of each of them; sums over any images give their
      figures, which is what a bootstrap over images needs.
    predictions: of the rows to keep, {row: uint8 [h, w]}.
  """

  figures: dict[str, float]
  confusion: np.ndarray
  rows: np.ndarray
  counts: np.ndarray
  predictions: dict[int, np.ndarray]


class _Layout(NamedTuple):
  """Where the windows of an image lie at one scale.

  Attributes:
    extent: height and width of the resized image.
    margin: rows above it and columns left of it, up to the size of a window.
    starts: of the windows, down and across, in the padded image.
  """

  extent: tuple[int, int]
  margin: tuple[int, int]
  starts: tuple[list[int], list[int]]

  def padded(self, size: int) -> tuple[int, int]:
    return tuple(max(side, size) for side in self.extent)


class _Window(NamedTuple):
  pixels: jax.Array  # float32 [S, S, 3]
  scale: int  # Which one.
  corner: tuple[int, int]
  row: int
  last: bool  # Of its image.


def evaluate(
  forward: Callable,
  weights: Any,
  prepared: pairs.Prepared,
  how: Windows,
  *,
  classes: int,
  batch: int,
  rows: Iterable[int] | None = None,
  keep: Iterable[int] = (),
  progress: Callable[[int, int], None] | None = None,
) -> Result:
  """Segments images and compares every labelled pixel.

  Windows of all scales and images are gathered, so that one program of one
  shape serves them all.

  Args:
    forward: `(weights, images [n, S, S, 3] float32 in [0, 1]) -> logits [n, h,
      w, C]`, traceable; smaller ones are enlarged with aligned corners. The
      same function object on each call, else it is compiled anew.
    weights: a pytree for it.
    prepared: the part, masks at the resolution to be scored.
    how: they are cut.
    classes: C, at most 254.
    batch: windows at a time; mirrored, twice as many images are forwarded.
    rows: the images to evaluate; all where None. Of none, the share of one
      process too many, there are no figures but 'n'.
    keep: rows whose predictions are returned.
    progress: called as `(done, total)`, in images.

  Raises:
    UserError: the network's output is not finite, or no pixel has a label.
  """
  n = len(prepared.sizes)
  rows = np.arange(n) if rows is None else np.asarray(list(rows), np.int64)
  keep = set(keep)
  layouts = {
    int(i): [_layout(prepared.extents[i], s, how) for s in how.scales]
    for i in rows
  }
  confusion = np.zeros((classes, classes), np.int64)
  counts, predictions = [], {}
  predict = functools.partial(_probabilities, forward, how.flip, weights)
  segmented = _segment(predict, prepared, layouts, classes, how.size, batch)
  for row, predicted in batches.one_behind(segmented):
    label = prepared.mask(row)
    predicted = np.asarray(predicted)[: label.shape[0], : label.shape[1]]
    if (predicted == _UNDECIDED).any():
      raise UserError(
        f"The network's output for image {row} is not finite; its weights are "
        'of no use. Evaluate an earlier checkpoint, or train with a lower '
        'config.optim.lr.'
      )
    matrix = metrics.segmentation_sums(label, predicted, classes)
    confusion += matrix
    counts.append(metrics.segmentation_counts(matrix))
    if row in keep:
      predictions[row] = predicted
    if progress:
      progress(len(counts), len(rows))
  if len(rows) and not confusion.any():
    raise UserError(
      f'None of the {len(rows)} images to evaluate has a labelled pixel; check '
      'their masks.'
    )
  counts = np.array(counts, np.int64).reshape(-1, 3, classes)
  figures = metrics.segmentation_figures(counts.sum(0)) if len(rows) else {}
  return Result(
    figures | {'n': len(rows)}, confusion, rows, counts, predictions
  )


def window_starts(length: int, size: int) -> list[int]:
  """Where windows begin on a side at least as long: two thirds apart.

  The stride is ceil(2/3 size), and the last window is shifted to end inside.

  >>> window_starts(1024, 713), window_starts(2048, 713)
  ([0, 311], [0, 476, 952, 1335])
  """
  stride = -(-2 * size // 3)
  n = -(-(length - size) // stride) + 1
  return [min(i * stride, length - size) for i in range(n)]


def _layout(extent, scale: float, how: Windows) -> _Layout:
  height, width = map(int, extent)
  base = how.base_size or max(pairs.shrunk((height, width), how.resize))
  long = round(scale * base)
  ratio = long / max(height, width)
  resized = tuple(
    long if side == max(height, width) else max(round(ratio * side), 1)
    for side in (height, width)
  )
  return _Layout(
    resized,
    tuple(max(how.size - side, 0) // 2 for side in resized),
    tuple(window_starts(max(side, how.size), how.size) for side in resized),
  )


@jax.jit
def _resized(image, rows, columns):
  """An image uint8 [h, w, 3] as float32 [H, W, 3] in [0, 1], or the mean.

  Args:
    image: of the set's largest size, zeros below and right of what is used.
    rows: (below, above, share, inside), each [H]: the two rows that each row of
      the result mixes, by `share`, or the colour of the mean where not inside.
    columns: likewise.
  """
  (y0, y1, fy, in_y), (x0, x1, fx, in_x) = rows, columns
  low, high = (image[y].astype(jnp.float32) for y in (y0, y1))
  mixed = low + fy[:, None, None] * (high - low)
  left, right = (mixed[:, x] for x in (x0, x1))
  pixels = (left + fx[:, None] * (right - left)) / 255
  inside = (in_y[:, None] & in_x)[..., None]
  return jnp.where(inside, pixels, jnp.asarray(augment.MEAN, jnp.float32))


@functools.partial(jax.jit, static_argnums=2)
def _cut(image, corner, size):
  """A window [size, size, 3] of a resized image."""
  return jax.lax.dynamic_slice(image, (*corner, 0), (size, size, 3))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _probabilities(forward, flip, weights, windows):
  """The class probabilities of n windows [S, S, 3]: [n, S, S, C]."""
  windows = jnp.stack(windows)
  n, size = windows.shape[:2]
  if flip:
    windows = jnp.concatenate([windows, windows[:, :, ::-1]])
  logits = forward(weights, windows).astype(jnp.float32)
  if logits.shape[1:3] != (size, size):
    logits = resample.upsample(logits, size, size)
  probabilities = jax.nn.softmax(logits)
  if not flip:
    return probabilities
  return (probabilities[:n] + probabilities[n:, :, ::-1]) / 2


@functools.partial(jax.jit, donate_argnums=0)
def _add(canvas, probabilities, i, corner):
  """Adds the i-th of the windows to a canvas [H, W, C], in place."""
  window = probabilities[i]
  at = (corner[0], corner[1], 0)
  sums = jax.lax.dynamic_slice(canvas, at, window.shape) + window
  return jax.lax.dynamic_update_slice(canvas, sums, at)


@jax.jit
def _decide(canvases, rows, columns):
  """The class of every pixel, uint8; `_UNDECIDED` where one is not finite.

  Args:
    canvases: of each scale, the sums of the windows, [H, W, C].
    rows: of each scale, (below, above, share, count): the two rows that each
      row of the result mixes, by `share`, and the windows over each row [H].
    columns: likewise.
  """

  def resized(canvas, rows, columns):
    (y0, y1, fy, ny), (x0, x1, fx, nx) = rows, columns
    low, high = (canvas[y] / ny[y][:, None, None] for y in (y0, y1))
    mixed = low + fy[:, None, None] * (high - low)
    left, right = (mixed[:, x] / nx[x][:, None] for x in (x0, x1))
    return left + fx[:, None] * (right - left)

  def block(blocks):
    total = sum(
      resized(canvas, (*b, r[3]), c)
      for canvas, b, r, c in zip(canvases, blocks, rows, columns, strict=True)
    )
    best = jnp.argmax(total, axis=-1).astype(jnp.uint8)
    return jnp.where(jnp.isfinite(total.sum(-1)), best, _UNDECIDED)

  blocks = [tuple(x.reshape(-1, _ROWS) for x in r[:3]) for r in rows]
  decided = jax.lax.map(block, blocks)
  return decided.reshape(-1, decided.shape[-1])


def _segment(
  predict, prepared, layouts, classes, size, batch
) -> Iterator[tuple[int, jax.Array]]:
  """Yields each row and the classes of its pixels, on a fixed shape."""
  if not layouts:
    return
  padded = np.array([[x.padded(size) for x in v] for v in layouts.values()])
  shapes = [(*side.tolist(), classes) for side in padded.max(0)]
  largest = prepared.extents[list(layouts)].max(0)
  canvases = None
  windows = _windows(prepared, layouts, shapes, largest, size)
  while chunk := list(itertools.islice(windows, batch)):
    pixels = [window.pixels for window in chunk]
    probabilities = predict(pixels + pixels[-1:] * (batch - len(chunk)))
    for i, window in enumerate(chunk):
      if canvases is None:
        canvases = [jnp.zeros(shape, jnp.float32) for shape in shapes]
      canvases[window.scale] = _add(
        canvases[window.scale], probabilities, i, np.int32(window.corner)
      )
      if window.last:
        axes = [
          [
            _axis(layout, axis, prepared.extents[window.row], shape, largest,
                  size)
            for layout, shape in zip(layouts[window.row], shapes, strict=True)
          ]
          for axis in (0, 1)
        ]  # fmt: skip
        yield window.row, _decide(tuple(canvases), *axes)
        canvases = None


def _windows(prepared, layouts, shapes, largest, size) -> Iterator[_Window]:
  """Yields the windows of every image, at one scale after the other.

  The device gets an image once, as bytes, and resizes it to one shape a scale.
  """
  for row, of_scales in layouts.items():
    image = np.zeros((*largest, 3), np.uint8)
    height, width = prepared.extents[row]
    image[:height, :width] = prepared.image(row)
    image = jnp.asarray(image)
    for scale, layout in enumerate(of_scales):
      axes = [
        _onto(layout, axis, prepared.extents[row], shapes[scale])
        for axis in (0, 1)
      ]
      resized = _resized(image, *axes)
      corners = list(itertools.product(*layout.starts))
      for corner in corners:
        last = scale == len(of_scales) - 1 and corner == corners[-1]
        cut = _cut(resized, np.int32(corner), size)
        yield _Window(cut, scale, corner, row, last)


def _onto(layout: _Layout, axis, extent, shape):
  """How one side of the image becomes one side of a canvas; see `_resized`."""
  before, new = layout.margin[axis], layout.extent[axis]
  taps = decode.taps(int(extent[axis]), new)
  around = before, shape[axis] - before - new
  return [np.pad(x, around) for x in (*taps, np.ones(new, bool))]


def _axis(layout: _Layout, axis, extent, shape, largest, size):
  """How one side of a canvas becomes one side of the image; see `_decide`."""
  below, above, share = decode.taps(layout.extent[axis], int(extent[axis]))
  # One shape for all images, whole blocks of rows.
  n = int(largest[axis])
  n += -n % _ROWS if axis == 0 else 0
  fill = (0, n - len(share))
  count = np.zeros(shape[axis], np.float32)
  for start in layout.starts[axis]:
    count[start : start + size] += 1
  margin = layout.margin[axis]
  return (
    np.pad(below + margin, fill),
    np.pad(above + margin, fill),
    np.pad(share, fill),
    np.maximum(count, 1),
  )


def write_classes(
  path: paths.Path, class_names: Sequence[str], counts: np.ndarray
) -> None:
  """Writes the table of the classes as CSV.

  Args:
    path: of the file, with columns `class,iou,accuracy` (percent),
      `labelled,predicted` (pixels).
    class_names: C of them.
    counts: int64 [3, C], of `metrics.segmentation_counts`.
  """
  text = io.StringIO(newline='')
  table = csv.writer(text)
  table.writerow(['class', 'iou', 'accuracy', 'labelled', 'predicted'])
  iou, accuracy = metrics.segmentation_classes(counts)
  for name, i, a, labelled, predicted in zip(
    class_names, iou, accuracy, counts[1], counts[2], strict=True
  ):
    table.writerow([name, f'{i:.4f}', f'{a:.4f}', labelled, predicted])
  writers.write_text(path, text.getvalue())
