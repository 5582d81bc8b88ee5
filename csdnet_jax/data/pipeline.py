"""From files to batches: every image is decoded once, then read by memory.

A prepared part is one memory-mapped file in the cache, named by the digests of
the images, the sizes, the version of Pillow and of our decoder: a changed
image or setting makes another file, and none is ever out of date.
"""

import hashlib
import io
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grain
import numpy as np
import PIL

from csdnet_jax.data import decode, sources, splits
from csdnet_jax.errors import UserError
from csdnet_jax.terminal import say

_THREADS = max(os.cpu_count() or 1, 2)
# Images in flight: bounds the memory that decoded ones take.
_CHUNK = 8 * _THREADS
_GIB = 2**30


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
  """What a run reads: train on canvases, every part in the test view."""

  train: Prepared
  train_view: Prepared
  val: Prepared | None
  test: Prepared


class UnreadableError(UserError):
  """Images that cannot be used, all of them, each with its reason."""

  def __init__(self, problems: Sequence[str]):
    self.problems = tuple(problems)
    super().__init__(
      f'Images that cannot be used, {len(self.problems)} in all, to be '
      f'replaced or taken out: {"; ".join(self.problems)}'
    )


class _View(NamedTuple):
  side: int
  settings: dict[str, Any]  # all that decides the pixels, for the file's name
  render: Callable[[np.ndarray], tuple[np.ndarray, tuple[int, int]]]


class _File(NamedTuple):
  """A prepared part in the cache: an ordinary `.npy` of n records."""

  path: pathlib.Path
  record: np.dtype
  header: bytes
  n: int

  @property
  def length(self) -> int:
    return len(self.header) + self.n * self.record.itemsize


def digests(split: splits.Split) -> tuple[str, ...]:
  """The SHA-256 of every image's file, as hex, in the split's order.

  Raises:
    UnreadableError: lists all the files that cannot be read.
  """
  found, problems = [], []
  with ThreadPoolExecutor(_THREADS) as pool:
    indices = range(len(split.names))
    for result in pool.map(lambda i: _attempt(_digest, split, i), indices):
      bad = isinstance(result, decode.ImageError)
      (problems if bad else found).append(str(result))
  if problems:
    raise UnreadableError(problems)
  return tuple(found)


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
  jobs = [('train', _canvas_view(canvas, square))]
  jobs += [(part, view) for part in parts]
  files = [_file(cache_dir, digests[part], how) for part, how in jobs]
  _require_space(cache_dir, files)
  total = sum(len(parts[part].names) for part, _ in jobs)
  prepared, problems, before = [], [], 0
  for (part, how), file in zip(jobs, files, strict=True):
    offset = before
    try:
      prepared.append(
        _prepare(
          parts[part],
          how,
          file,
          progress and (lambda done, _, o=offset: progress(o + done, total)),
        )
      )
    except UnreadableError as e:
      problems += e.problems
    before += len(parts[part].names)
  if problems:
    raise UnreadableError(list(dict.fromkeys(problems)))
  train, train_view, *val, test = prepared
  return Parts(train, train_view, val[0] if val else None, test)


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
) -> _File:
  record = np.dtype(
    [
      ('image', np.uint8, (view.side, view.side, 3)),
      ('extent', '<i4', (2,)),
      ('size', '<i4', (2,)),
    ]
  )
  path = cache_dir / f'{_key(digests, view)}.npy'
  return _File(path, record, _npy_header(record, len(digests)), len(digests))


def _require_space(folder: pathlib.Path, files: Sequence[_File]) -> None:
  """Says what is about to be written, if it is much; stops if it cannot fit."""
  # By path: the parts of a data set may be equal.
  absent = {file.path: file.length for file in files if not _is_whole(file)}
  needed = sum(absent.values())
  if not needed:
    return
  try:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
  except OSError as e:
    raise sources.cache_error(folder, e) from e
  if needed > free:
    raise UserError(
      f'The decoded images take {needed / _GIB:.1f} GiB in the cache folder '
      f'{folder}, which has {free / _GIB:.1f} GiB free; free space there or '
      'set config.data.cache to another folder'
    )
  if needed > _GIB:
    say(f'Writing {needed / _GIB:.1f} GiB of decoded images to {folder}.')


def _prepare(split, view, file: _File, progress) -> Prepared:
  n = len(split.names)
  if not _is_whole(file):
    _write(split, view, file, progress)
  elif progress:
    progress(n, n)
  records = np.memmap(
    file.path, file.record, 'r', offset=len(file.header), shape=(n,)
  )
  return Prepared(
    records['image'],
    np.array(records['extent'], np.int32),
    split.labels,
    np.array(records['size'], np.int32),
  )


def _key(digests: Sequence[str], view: _View) -> str:
  made_of = {
    'digests': list(digests),
    'side': view.side,
    'decoder': _sha256(pathlib.Path(decode.__file__).read_bytes()),
    'pillow': PIL.__version__,
    **view.settings,
  }
  return _sha256(json.dumps(made_of, sort_keys=True).encode())


def _sha256(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()


def _npy_header(record: np.dtype, n: int) -> bytes:
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    header,
    {
      'descr': np.lib.format.dtype_to_descr(record),
      'fortran_order': False,
      'shape': (n,),
    },
  )
  return header.getvalue()


def _is_whole(file: _File) -> bool:
  try:
    with file.path.open('rb') as f:
      return os.fstat(f.fileno()).st_size == file.length and (
        f.read(len(file.header)) == file.header
      )
  except FileNotFoundError:
    return False
  except OSError as e:
    raise sources.cache_error(file.path.parent, e) from e


def _write(split, view, file: _File, progress) -> None:
  """Writes beside `path` and renames, so that a reader sees all or nothing."""
  path = file.path
  # Plain writes, not a writable map: on a full disk a map kills the process.
  scratch = path.with_name(f'.{path.stem}.{uuid.uuid4().hex}.tmp')
  problems = []
  try:
    try:
      with scratch.open('xb') as f:
        f.write(file.header)
        for done, item in enumerate(_render_all(split, file.record, view), 1):
          if isinstance(item, decode.ImageError):
            problems.append(str(item))
          elif not problems:
            f.write(item)
          if progress:
            progress(done, len(split.names))
      if not problems:
        scratch.replace(path)
    finally:
      scratch.unlink(missing_ok=True)
  except OSError as e:
    raise sources.cache_error(path.parent, e) from e
  if problems:
    raise UnreadableError(problems)


def _render_all(split, record, view) -> Iterator[bytes | decode.ImageError]:
  def render(split, i):
    image = decode.decode(_read(split, i), split.names[i])
    pixels, extent = view.render(image)
    return np.array((pixels, extent, image.shape[:2]), record).tobytes()

  with ThreadPoolExecutor(_THREADS) as pool:
    for start in range(0, len(split.names), _CHUNK):
      indices = range(start, min(start + _CHUNK, len(split.names)))
      yield from pool.map(lambda i: _attempt(render, split, i), indices)


def _digest(split: splits.Split, i: int) -> str:
  return _sha256(_read(split, i))


def _read(split: splits.Split, i: int) -> bytes:
  try:
    return split.read(i)
  except OSError as e:
    raise decode.ImageError(
      f'{split.names[i]}: cannot be read ({e.strerror or e})'
    ) from e


def _attempt(f, split, i):
  """The result, or the error, so that one bad image hides no other."""
  try:
    return f(split, i)
  except decode.ImageError as e:
    return e


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

  A batch depends on the seed and its step alone: images are shuffled anew in
  every epoch, the epochs joined end to end and cut into batches, so that a run
  resumed at any step, on any number of hosts, sees what an unbroken one saw.

  Args:
    prepared: n images.
    batch: B, rows of a batch over all the hosts; at most n.
    seed: of the shuffles.
    start: the first step.
    stop: the step after the last.
    order: [B], the order of a batch's rows, where it is not theirs.
    host: takes rows host * b to (host + 1) * b of each batch, b = B / hosts.
    hosts: how many there are.

  Yields:
    `image` uint8 [b, S, S, 3], `extent` int32 [b, 2], `label` int32 [b] and
    `id` int32 [b], the row in `prepared`.

  Raises:
    UserError: B exceeds n or is no multiple of `hosts`.
  """
  n = len(prepared.labels)
  if batch > n:
    raise UserError(
      f'The batch of {batch} is larger than the training set of {n} images; '
      'lower the batch size'
    )
  order = np.arange(batch) if order is None else order
  rows = order[_host_rows(batch, host, hosts)]
  steps = (
    grain.MapDataset.range(n)
    .seed(seed % 2**32)
    .shuffle()
    .repeat()
    .batch(batch)
    .slice(slice(start, stop))
    .map(lambda ids: _take(prepared, np.asarray(ids)[rows]))
  )
  # Threads, not processes: all that is left to do is copying memory.
  return iter(
    steps.to_iter_dataset(
      grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    )
  )


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
  rows = _host_rows(batch, host, hosts)
  n = len(prepared.labels)

  def batches():
    for first in range(0, n, batch):
      ids = np.arange(first, first + batch)[rows]
      mask = ids < n
      taken = _take(prepared, ids[mask])
      fill = len(ids) - mask.sum()
      padded = {
        name: np.pad(x, [(0, fill)] + [(0, 0)] * (x.ndim - 1))
        for name, x in taken.items()
      }
      padded['id'][~mask] = -1
      yield {**padded, 'mask': mask}

  return batches()


def _host_rows(batch: int, host: int, hosts: int) -> slice:
  if batch % hosts:
    raise UserError(
      f'The batch of {batch} cannot be shared evenly by {hosts} hosts; make it '
      'a multiple'
    )
  rows = batch // hosts
  return slice(host * rows, (host + 1) * rows)


def _take(prepared: Prepared, ids: np.ndarray) -> dict[str, np.ndarray]:
  return {
    'image': np.asarray(prepared.images[ids]),
    'extent': prepared.extents[ids],
    'label': prepared.labels[ids],
    'id': ids.astype(np.int32),
  }
