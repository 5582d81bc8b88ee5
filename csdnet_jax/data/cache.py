"""Files of decoded pixels in the cache: all there or not at all, by digest.

Every image is decoded once, then read by memory. A file is named by the digests
of the images, the settings, the version of Pillow and of our decoder: a changed
image or setting makes another file, and none is ever out of date.
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import PIL
from rich import filesize

from csdnet_jax.data import decode
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import say

_THREADS = min(max(os.cpu_count() or 1, 2), 32)
# Images in flight: bounds the memory that decoded ones take.
_CHUNK = 2 * _THREADS
_DAY = 86_400  # Seconds.
_MUCH = 10**9  # Bytes.
_LISTED = 50  # Unreadable images that a sentence names.


def cache_dir(configured: str) -> pathlib.Path:
  """The folder for prepared files: `config.data.cache`, or the user's cache."""
  if configured:
    return paths.of_disk(
      configured, 'config.data.cache',
      'the decoded images are read through memory maps, each host its own',
    )  # fmt: skip
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(base).expanduser() / 'csdnet_jax'


def cache_error(folder: pathlib.Path, error: OSError) -> UserError:
  """The sentence for a cache folder that cannot be written or is full."""
  return UserError(
    f'Cannot write to the cache folder {folder} ({error.strerror}); free space '
    'there or set --config.data.cache to another folder'
  )


class UnreadableError(UserError):
  """Images that cannot be used, all of them in `problems`.

  Args:
    problems: a sentence for each.
    remedy: another than to replace them or take them out.
  """

  def __init__(self, problems: Sequence[str], remedy: str = ''):
    self.problems = tuple(problems)
    more = len(problems) - _LISTED
    super().__init__(
      f'Images that cannot be used, {len(self.problems)} in all, to be '
      f'replaced or taken out{remedy}: {"; ".join(self.problems[:_LISTED])}'
      + (f'; and {more} more' if more > 0 else '')
    )


class File(NamedTuple):
  """A file in the cache: an ordinary `.npy` of one dimension.

  Attributes:
    path: of the file.
    dtype: of its entries.
    n: how many there are.
    header: its first bytes.
  """

  path: pathlib.Path
  dtype: np.dtype
  n: int
  header: bytes

  @property
  def length(self) -> int:
    """Bytes of the whole file."""
    return len(self.header) + self.n * self.dtype.itemsize


def file(
  folder: pathlib.Path, made_of: Mapping[str, Any], dtype: np.dtype, n: int
) -> File:
  """Names a file by all that decides its bytes; nothing is written yet.

  Args:
    folder: of the cache.
    made_of: digests and settings, as plain data.
    dtype: of its entries.
    n: how many there are.
  """
  key = {
    **made_of,
    'decoder': sha256(pathlib.Path(decode.__file__).read_bytes()),
    'pillow': PIL.__version__,
  }
  name = sha256(json.dumps(key, sort_keys=True).encode())
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    header,
    {
      'descr': np.lib.format.dtype_to_descr(dtype),
      'fortran_order': False,
      'shape': (n,),
    },
  )
  return File(folder / f'{name}.npy', dtype, n, header.getvalue())


def sha256(data: bytes) -> str:
  """The digest, as hex."""
  return hashlib.sha256(data).hexdigest()


def read(read_bytes: Callable[[int], Any], i: int, name: str) -> Any:
  """What `read_bytes(i)` gives.

  Raises:
    decode.ImageError: it cannot be read.
  """
  try:
    return read_bytes(i)
  except OSError as e:
    raise decode.ImageError(
      f'{name}: cannot be read ({e.strerror or e})'
    ) from e


def in_order(f: Callable[[int], Any], n: int) -> Iterator[Any]:
  """Yields f(0) to f(n - 1), made in threads; one bad image hides no other.

  Yields:
    The result, or the `decode.ImageError` that was raised instead.
  """

  def attempt(i):
    try:
      return f(i)
    except decode.ImageError as e:
      return e

  with ThreadPoolExecutor(_THREADS) as pool:
    for start in range(0, n, _CHUNK):
      yield from pool.map(attempt, range(start, min(start + _CHUNK, n)))


def all_of(f: Callable[[int], Any], n: int) -> list[Any]:
  """Returns f(0) to f(n - 1), made in threads.

  Raises:
    UnreadableError: lists every image that f refuses.
  """
  results = list(in_order(f, n))
  problems = [str(r) for r in results if isinstance(r, decode.ImageError)]
  if problems:
    raise UnreadableError(problems)
  return results


def require_space(folder: pathlib.Path, files: Sequence[File]) -> None:
  """Says what is about to be written, if it is much; stops if it cannot fit.

  Raises:
    UserError: the folder cannot be made, or is too full.
  """
  # By path: the parts of a data set may be equal.
  absent = {file.path: file.length for file in files if not is_whole(file)}
  needed = sum(absent.values())
  if not needed:
    return
  try:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
  except OSError as e:
    raise cache_error(folder, e) from e
  if needed > free:
    raise UserError(
      f'The decoded images take {filesize.decimal(needed)} in the cache folder '
      f'{folder}, which has {filesize.decimal(free)} free; free space there or '
      'set --config.data.cache to another folder'
    )
  if needed > _MUCH:
    say(f'Writing {filesize.decimal(needed)} of decoded images to {folder}.')


def is_whole(file: File) -> bool:
  """Whether the file is there, of the right length and header.

  Raises:
    UserError: the folder cannot be read.
  """
  try:
    with file.path.open('rb') as f:
      return os.fstat(f.fileno()).st_size == file.length and (
        f.read(len(file.header)) == file.header
      )
  except FileNotFoundError:
    return False
  except OSError as e:
    raise cache_error(file.path.parent, e) from e


def write(
  file: File,
  items: Iterable[bytes | decode.ImageError],
  progress: Callable[[int], None] | None = None,
) -> None:
  """Writes one file, see `write_all`.

  Args:
    file: to be written.
    items: its bytes after the header, in pieces.
    progress: called with the number of pieces so far.
  """
  alone = (x if isinstance(x, decode.ImageError) else (x,) for x in items)
  write_all([file], alone, progress)


def write_all(
  files: Sequence[File],
  items: Iterable[Sequence[bytes] | decode.ImageError],
  progress: Callable[[int], None] | None = None,
) -> None:
  """Writes beside the paths and renames: a reader sees all or nothing.

  Args:
    files: of one folder, to be written side by side.
    items: of each piece after the header the bytes for each file.
    progress: called with the number of pieces so far.

  Raises:
    UnreadableError: lists the errors among the items.
    UserError: the folder cannot be written.
  """
  # Plain writes, not a writable map: on a full disk a map kills the process.
  scratches = [
    file.path.with_name(f'.{file.path.stem}.{uuid.uuid4().hex}.tmp')
    for file in files
  ]
  for file in files:
    _remove_leftovers(file.path)
  problems = []
  try:
    try:
      with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(s.open('xb')) for s in scratches]
        for f, file in zip(opened, files, strict=True):
          f.write(file.header)
        for done, item in enumerate(items, 1):
          if isinstance(item, decode.ImageError):
            problems.append(str(item))
          elif not problems:
            for f, data in zip(opened, item, strict=True):
              f.write(data)
          if progress:
            progress(done)
      if not problems:
        for scratch, file in zip(scratches, files, strict=True):
          scratch.replace(file.path)
    finally:
      for scratch in scratches:
        scratch.unlink(missing_ok=True)
  except OSError as e:
    raise cache_error(files[0].path.parent, e) from e
  if problems:
    raise UnreadableError(problems)


def _remove_leftovers(path: pathlib.Path) -> None:
  """Removes what a killed start has left of a file; no write takes a day."""
  for old in path.parent.glob(f'.{path.stem}.*.tmp'):
    with contextlib.suppress(FileNotFoundError):  # Another was faster.
      if time.time() - old.stat().st_mtime > _DAY:
        old.unlink()


def open_map(file: File) -> np.ndarray:
  """The entries [n] of a file that is whole, memory-mapped, read-only."""
  return np.memmap(
    file.path, file.dtype, 'r', offset=len(file.header), shape=(file.n,)
  )
