"""Images from a browser: small enough, and of the common formats alone."""

import numpy as np

from csdnet_jax.data import decode

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000


def open_upload(data: bytes) -> np.ndarray:
  """Decodes an upload as `decode.decode` does, in memory.

  The header alone decides whether any pixel is read.

  Args:
    data: the encoded file, at most `MAX_BYTES`.

  Returns:
    uint8 [h, w, 3].

  Raises:
    decode.ImageError: too large or too narrow, of another format, or damaged.
  """
  if len(data) > MAX_BYTES:
    raise decode.ImageError(
      f'This file has over {MAX_BYTES >> 20} MiB; choose a smaller one.'
    )
  height, width = decode.size_of(data, 'This image')
  if width * height > MAX_PIXELS:
    raise decode.ImageError(
      f'This image has {width} x {height} pixels, over the limit of '
      f'{MAX_PIXELS:,}; make it smaller.'
    )
  return decode.decode(data, 'This image')
