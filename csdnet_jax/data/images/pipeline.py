"""From files to batches: every image is decoded once, then read by memory.

A prepared part is one memory-mapped file in the cache; see `cache.File`.
"""

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from csdnet_jax.data import batches, cache, decode
from csdnet_jax.data.cache import UnreadableError
from csdnet_jax.data.images import splits


class Prepared(NamedTuple):
  """n images of one size, S x S.

  Attributes:
    images: uint8 [n, S, S, 3], memory-mapped, read-only.
    extents: int32 [n, 2], height and width of the used part, each in 1..S.
    labels: int32 [n].
    sizes: int32 [n, 2], height and width of the original, upright.
  """

  images: np.ndarray
  extents: np.ndarray
  labels: np.ndarray
  sizes: np.ndarray


class Parts(NamedTuple):
  """What a run reads: the canvases to train on, every part in the test view."""

  canvases: Prepared
  train: Prepared
  val: Prepared | None = None
  test: Prepared | None = None


class _View(NamedTuple):
  side: int
  settings: dict[str, Any]  # all that decides the pixels, for the file's name
  render: Callable[[np.ndarray], tuple[np.ndarray, tuple[int, int]]]


def digests(split: splits.Split) -> list[str | decode.ImageError]:
  """The SHA-256 of every image's file, as hex, in the split's order.

  Of one that cannot be read, why, as the error that it raised.
  """
  return list(
    cache.in_order(lambda i: cache.sha256(_read(split, i)), len(split.names))
  )


def prepare(
  dataset: splits.Dataset,
  digests: Mapping[str, Sequence[str]],
  *,
  canvas: int,
  size: int,
  resize: int,
  square: bool,
  cache_dir: pathlib.Path,
  progress: Callable[[int, int], None] | None = None,
) -> Parts:
  """Prepares all that a run reads, or names every image that it cannot.

  Args:
    dataset: the images.
    digests: for each part that `splits.parts_of` names.
    canvas: the side of the training canvases; see `decode.fit_canvas`.
    size: the side of the test views; see `decode.eval_view`.
    resize: the shorter side before their central crop, at least `size`.
    square: whether the aspect is given up instead, in both.
    cache_dir: where the files go.
    progress: called as `(done, total)`, in images, over all the parts.

  Raises:
    UnreadableError: lists the images of all the parts that cannot be used.
    UserError: the cache folder cannot be written, or is too full.
  """
  parts = splits.parts_of(dataset)
  view = _eval_view(size, resize, square)
  views = {part: [view] for part in parts}
  views['train'] = [_canvas_view(canvas, square), view]
  files = {
    part: [_file(cache_dir, digests[part], how) for how in views[part]]
    for part in parts
  }
  cache.require_space(cache_dir, [f for own in files.values() for f in own])
  total = sum(len(split.names) for split in parts.values())
  prepared, problems, before = {}, [], 0
  for part, split in parts.items():
    told = progress and (lambda done, _, o=before: progress(o + done, total))
    try:
      prepared[part] = _prepare(split, views[part], files[part], told)
    except UnreadableError as e:
      problems += e.problems
    before += len(split.names)
  if problems:
    raise UnreadableError(list(dict.fromkeys(problems)))
  canvases, train = prepared.pop('train')
  return Parts(canvases, train, **{n: own for n, (own,) in prepared.items()})


def prepare_test(
  split: splits.Split,
  digests: Sequence[str],
  *,
  size: int,
  resize: int,
  square: bool,
  cache_dir: pathlib.Path,
  progress: Callable[[int, int], None] | None = None,
) -> Prepared:
  """Prepares the test views of one part, of which nothing is trained.

  Args:
    split: the images.
    digests: of their files.
    size: and the others, as for `prepare`.

  Raises:
    UnreadableError: lists the images that cannot be used.
    UserError: the cache folder cannot be written, or is too full.
  """
  view = _eval_view(size, resize, square)
  file = _file(cache_dir, digests, view)
  cache.require_space(cache_dir, [file])
  (prepared,) = _prepare(split, [view], [file], progress)
  return prepared


def _canvas_view(canvas: int, square: bool) -> _View:
  return _View(
    canvas,
    {'view': 'canvas', 'square': square},
    lambda image: decode.fit_canvas(image, canvas, square=square),
  )


def _eval_view(size: int, resize: int, square: bool) -> _View:
  return _View(
    size,
    {'view': 'test', 'square': square, 'resize': None if square else resize},
    lambda image: (
      decode.eval_view(image, size=size, resize=resize, square=square),
      (size, size),
    ),
  )


def _file(
  cache_dir: pathlib.Path, digests: Sequence[str], view: _View
) -> cache.File:
  record = np.dtype(
    [
      ('image', np.uint8, (view.side, view.side, 3)),
      ('extent', '<i4', (2,)),
      ('size', '<i4', (2,)),
    ]
  )
  made_of = {'digests': list(digests), 'side': view.side, **view.settings}
  return cache.file(cache_dir, made_of, record, len(digests))


def _prepare(split, views, files, progress) -> list[Prepared]:
  """A part in each of its views; an image is decoded once for all of them."""
  n = len(split.names)
  absent = {
    file: view
    for file, view in zip(files, views, strict=True)
    if not cache.is_whole(file)
  }

  def render(i):
    image = decode.decode(_read(split, i), split.names[i])
    return [
      np.array((*view.render(image), image.shape[:2]), file.dtype).tobytes()
      for file, view in absent.items()
    ]

  if absent:
    told = progress and (lambda done: progress(done, n))
    cache.write_all(list(absent), cache.in_order(render, n), told)
  elif progress:
    progress(n, n)
  prepared = []
  for records in map(cache.open_map, files):
    extents = np.array(records['extent'], np.int32)
    sizes = np.array(records['size'], np.int32)
    prepared.append(Prepared(records['image'], extents, split.labels, sizes))
  return prepared


def _read(split: splits.Split, i: int) -> bytes:
  return cache.read(split.read, i, split.names[i])


def train_batches(
  prepared: Prepared,
  *,
  batch: int,
  seed: int,
  start: int,
  stop: int,
  order: np.ndarray | None = None,
  host: int = 0,
  hosts: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """The training batches of steps `start` to `stop` - 1.

  A batch depends on the seed and its step alone, as `batches.shuffled` says.

  Args:
    prepared: n images.
    batch: B, and the other arguments, as for `batches.shuffled`.

  Yields:
    `image` uint8 [b, S, S, 3], `extent` int32 [b, 2], `label` int32 [b] and
    `id` int32 [b], the row in `prepared`.

  Raises:
    UserError: B exceeds n or is no multiple of `hosts`.
  """
  return batches.shuffled(
    lambda places, ids: _take(prepared, ids), len(prepared.labels),
    batch=batch, seed=seed, start=start, stop=stop, order=order, host=host,
    hosts=hosts,
  )  # fmt: skip


def eval_batches(
  prepared: Prepared, *, batch: int, host: int = 0, hosts: int = 1
) -> Iterator[dict[str, np.ndarray]]:
  """Every image once over all the hosts, in order, in full batches.

  Args:
    prepared: n images.
    batch: B, rows of a batch over all the hosts.
    host: takes rows host * b to (host + 1) * b of each batch, b = B / hosts.
    hosts: how many there are; all get ceil(n / B) batches.

  Yields:
    What `train_batches` does and `mask` bool [b], False in the rows that fill
    up the last batch: zeros, of label 0 and id -1.

  Raises:
    UserError: B is no multiple of `hosts`.
  """
  rows = batches.host_rows(batch, host, hosts)
  n = len(prepared.labels)

  def taken():
    for first in range(0, n, batch):
      ids = np.arange(first, first + batch)[rows]
      mask = ids < n
      found = _take(prepared, ids[mask])
      fill = len(ids) - mask.sum()
      padded = {
        name: np.pad(x, [(0, fill)] + [(0, 0)] * (x.ndim - 1))
        for name, x in found.items()
      }
      padded['id'][~mask] = -1
      yield {**padded, 'mask': mask}

  return taken()


def _take(prepared: Prepared, ids: np.ndarray) -> dict[str, np.ndarray]:
  return {
    'image': np.asarray(prepared.images[ids]),
    'extent': prepared.extents[ids],
    'label': prepared.labels[ids],
    'id': ids.astype(np.int32),
  }
