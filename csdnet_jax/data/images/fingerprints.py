"""What an image shows, in 80 bytes: to find equal ones, alike ones, bad ones.

Every image is decoded once for it; the figures are kept in the cache.
"""

import hashlib
import pathlib
from collections.abc import Callable, Iterable, Sequence

import imagehash
import numpy as np
from PIL import Image

from csdnet_jax.data import cache, decode
from csdnet_jax.data.images import splits

_SIDE = 16  # Of the perceptual hash: 256 bits.
# Bits in which two images may differ that count as alike. Of 258 grape leaves
# and 495 silhouettes no two differ in less than 20; the same one compressed
# again, shrunk to a third, or 15 % brighter, in 14 at most.
_ALIKE = 16
# Grey levels: less than that and a hash is of noise.
_CONTRAST = 16
# Rows of hashes that are compared at a time: bounds the memory.
_ROWS = 2048

# Runs keep its bytes in `split.json`: a changed one goes there by another name.
DTYPE = np.dtype(
  [
    ('pixels', np.uint8, (32,)),  # Their SHA-256, with the size.
    ('hash', np.uint8, (_SIDE * _SIDE // 8,)),  # Perceptual, in bits.
    ('size', '<i4', (2,)),  # Upright height and width; 0 if unreadable.
    # Grey that all but a thousandth of the pixels reach, or stay under.
    ('darkest', np.uint8),
    ('brightest', np.uint8),
  ]
)


def of(
  split: splits.Split,
  digests: Sequence[str],
  cache_dir: pathlib.Path,
  progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, dict[int, str]]:
  """Decodes every image once, or finds in the cache what it gave.

  Args:
    split: n images.
    digests: the SHA-256 of each file, as hex.
    cache_dir: where the figures are kept.
    progress: called as `(done, total)`, in images.

  Returns:
    The fingerprints, `DTYPE` [n]; and why, in a sentence, for the row of each
    image that cannot be read.

  Raises:
    UserError: the cache folder cannot be written.
  """
  # By content: another order, or a copy, needs no decoding.
  unique, first, row = np.unique(
    np.array(digests, 'S64'), return_index=True, return_inverse=True
  )
  n = len(unique)

  def attempt(k):
    try:
      return _of_image(_decoded(split, first[k])).tobytes()
    except decode.ImageError:
      # Kept as well; tried again below, where the reason is needed.
      return np.zeros((), DTYPE).tobytes()

  made_of = {
    'fingerprints': cache.sha256(pathlib.Path(__file__).read_bytes()),
    'digests': unique.astype(str).tolist(),
  }
  file = cache.file(cache_dir, made_of, DTYPE, n)
  if not cache.is_whole(file):
    cache.require_space(cache_dir, [file])
    told = progress and (lambda done: progress(done, n))
    cache.write(file, cache.in_order(attempt, n), told)
  found, problems = np.array(cache.open_map(file)), {}
  for k in np.flatnonzero(found['size'][:, 0] == 0).tolist():
    for i in np.flatnonzero(row == k).tolist():
      try:
        found[k] = _of_image(_decoded(split, i))
      except decode.ImageError as error:
        problems[i] = str(error)
  return found[row], dict(sorted(problems.items()))


def _decoded(split: splits.Split, i: int) -> np.ndarray:
  name = split.names[i]
  return decode.decode(cache.read(split.read, i, name), name)


def _of_image(image: np.ndarray) -> np.ndarray:
  """The fingerprint, `DTYPE` [], of uint8 [h, w, 3]."""
  picture = Image.fromarray(image)
  shape = np.array(image.shape[:2], '<i4')
  counts = np.cumsum(picture.convert('L').histogram())
  limits = np.array([0.001, 0.999]) * counts[-1]
  darkest, brightest = np.searchsorted(counts, limits)
  bits = imagehash.phash(picture, hash_size=_SIDE).hash
  pixels = hashlib.sha256(shape.tobytes() + image.tobytes()).digest()
  return np.array(
    (
      np.frombuffer(pixels, np.uint8), np.packbits(bits), shape, darkest,
      brightest,
    ),
    DTYPE,
  )  # fmt: skip


def of_bytes(prints: Iterable[bytes]) -> np.ndarray:
  """The fingerprints, `DTYPE` [n], of which each was kept as its bytes."""
  return np.frombuffer(b''.join(prints), DTYPE)


def equal(fingerprints: np.ndarray) -> np.ndarray:
  """Numbers images by their pixels, int [n]: equal ones have one number."""
  pixels = np.ascontiguousarray(fingerprints['pixels'])
  _, numbers = np.unique(pixels, axis=0, return_inverse=True)
  return numbers.reshape(-1)


def alike(fingerprints: np.ndarray) -> np.ndarray:
  """Finds near-duplicates, which differ in few bits of a perceptual hash.

  Args:
    fingerprints: `DTYPE` [n].

  Returns:
    Rows i < j of each pair, int [m, 2]; equal images are not among them, nor
    those of hardly any contrast.
  """
  numbers, signs = equal(fingerprints), _signs(fingerprints)
  pairs = [np.zeros((0, 2), int)]
  for start in range(0, len(signs), _ROWS):
    differ = _differ(signs[start : start + _ROWS], signs[start:])
    i, j = np.nonzero(differ <= _ALIKE)
    keep = (i < j) & (numbers[start + i] != numbers[start + j])
    pairs.append(start + np.stack([i[keep], j[keep]], 1))
  return np.concatenate(pairs)


def alike_to(fingerprints: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Finds for each image its nearest near-duplicate among others.

  Args:
    fingerprints: `DTYPE` [n].
    others: `DTYPE` [m], m > 0.

  Returns:
    The row in `others` of the one that differs in the fewest bits, int [n]; -1
    where none is as near as `alike` asks. An equal one counts as well.
  """
  signs, theirs = _signs(fingerprints), _signs(others)
  rows = np.full(len(signs), -1)
  for start in range(0, len(signs), _ROWS):
    differ = _differ(signs[start : start + _ROWS], theirs)
    near = differ.min(1) <= _ALIKE
    rows[start : start + _ROWS][near] = differ.argmin(1)[near]
  return rows


def _signs(fingerprints: np.ndarray) -> np.ndarray:
  """The hashes as float32 [n, bits] of 1 and -1, or 0 without contrast."""
  signs = 2 * np.unpackbits(fingerprints['hash'], axis=1).astype(np.float32) - 1
  contrast = fingerprints['brightest'].astype(int) - fingerprints['darkest']
  signs[contrast < _CONTRAST] = 0  # At half of all bits from everything.
  return signs


def _differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """In how many bits each of n `_signs` differs from each of m: [n, m]."""
  return (_SIDE**2 - a @ b.T) / 2
