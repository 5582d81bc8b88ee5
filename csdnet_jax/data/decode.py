"""From encoded bytes to pixels: every image format a user may hand in."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from csdnet_jax.errors import UserError

# What Pillow's readers raise on damaged files.
_DAMAGE = (
  OSError,
  SyntaxError,
  ValueError,
  TypeError,
  EOFError,
  KeyError,
  IndexError,
  OverflowError,
  struct.error,
  zlib.error,
)

# Pillow knows others, some of which start programs.
FORMATS = ('JPEG', 'PNG', 'TIFF', 'BMP', 'GIF', 'WEBP')
# A line of pixels would be enlarged without bound.
MAX_ASPECT = 100

_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}


class ImageError(UserError):
  """An image that cannot be used; the message starts with its name."""


def decode(data: bytes, name: str) -> np.ndarray:
  """Decodes an image to RGB, upright, as a person would see it on white.

  EXIF rotation is applied; 16-bit grey is scaled to 8 bits; grey, palette and
  CMYK are converted; transparency is laid over white; an animation gives its
  first frame.

  Args:
    data: the encoded file (JPEG, PNG, TIFF, BMP, GIF, WebP).
    name: how the error names it.

  Returns:
    uint8 [h, w, 3].

  Raises:
    ImageError: empty, not an image, damaged, over twice Pillow's
      `MAX_IMAGE_PIXELS` (179 million; from half of that on Pillow warns), or of
      a pixel type that has no known range (32-bit integer or floating point).
  """
  if not data:
    raise ImageError(f'{name}: the file is empty')
  try:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
      if max(image.size) > MAX_ASPECT * min(image.size):
        width, height = image.size
        raise ImageError(
          f'{name}: {width} x {height} pixels is a line; cut it to what it '
          'shows'
        )
      image.load()
      turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION))
      image = _to_rgb(image, name)
      return np.asarray(image if turn is None else image.transpose(turn))
  except (
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # Where warnings are errors.
  ) as e:
    raise ImageError(f'{name}: too large; make it smaller ({e})') from e
  except UnidentifiedImageError as e:
    raise ImageError(f'{name}: not an image in a known format') from e
  except _DAMAGE as e:
    raise ImageError(f'{name}: damaged or cut short ({e})') from e


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
  if image.mode.startswith('I;16') or image.mode == 'I':
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
      raise ImageError(f'{name}: 32-bit pixels; save it with 8 or 16 bits')
    grey = ((values + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257
    return Image.fromarray(grey).convert('RGB')
  if image.mode == 'F':
    raise ImageError(
      f'{name}: floating-point pixels; save it with 8 or 16 bits'
    )
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    return Image.alpha_composite(white, image).convert('RGB')
  return image.convert('RGB')


def fit_canvas(
  image: np.ndarray, size: int, *, square: bool = False
) -> tuple[np.ndarray, tuple[int, int]]:
  """Places an image in the top left corner of a square canvas.

  Keeping the aspect, the longer side becomes `size`; an image that is already
  smaller keeps its pixels, since the augmentation's resample enlarges it just
  as well. The unused part repeats the image's last row and column.

  Args:
    image: uint8 [h, w, 3].
    size: S, the side of the canvas.
    square: fill the canvas whatever the aspect.

  Returns:
    The canvas, uint8 [S, S, 3], and its used extent (height, width), each in
    1..S.
  """
  height, width = image.shape[:2]
  if square:
    return _resize(image, size, size), (size, size)
  scale = min(1.0, size / max(height, width))
  h = max(1, round(height * scale))
  w = max(1, round(width * scale))
  fitted = _resize(image, h, w)
  padding = ((0, size - h), (0, size - w), (0, 0))
  return np.pad(fitted, padding, mode='edge'), (h, w)


def eval_view(
  image: np.ndarray, *, size: int, resize: int, square: bool
) -> np.ndarray:
  """The deterministic view that evaluation sees.

  Args:
    image: uint8 [h, w, 3].
    size: the side of the view.
    resize: the shorter side before the central crop, at least `size`; unused
      if `square`.
    square: resize to `size` x `size` whatever the aspect, without a crop.

  Returns:
    uint8 [size, size, 3].
  """
  if square:
    return _resize(image, size, size)
  height, width = image.shape[:2]
  short = min(height, width)
  # The long side is cut, not rounded, and the crop's corner rounded half to
  # even, as in the peers' published pipelines.
  image = _resize(image, resize * height // short, resize * width // short)
  top, left = (round((side - size) / 2) for side in image.shape[:2])
  return np.ascontiguousarray(image[top : top + size, left : left + size])


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
  if image.shape[:2] == (height, width):
    return image
  # Pillow's bicubic widens its kernel when it shrinks: antialiased.
  resized = Image.fromarray(image).resize(
    (width, height), Image.Resampling.BICUBIC
  )
  return np.asarray(resized)
