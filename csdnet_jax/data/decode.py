"""From encoded bytes to pixels: every image format a user may hand in."""

import contextlib
import io
import struct
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from csdnet_jax.runtime.errors import UserError

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
# Of masks: others may lose or scale what they store.
MASK_FORMATS = ('PNG', 'BMP')
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
  with _opened(data, name, FORMATS) as image:
    image.load()
    turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION))
    image = _to_rgb(image, name)
    return np.asarray(image if turn is None else image.transpose(turn))


def decode_mask(data: bytes, name: str) -> np.ndarray:
  """Decodes a mask to the numbers that its file stores, upright.

  A palette gives its indices, not its colours; grey of 1, 2 or 4 bits is not
  stretched to 255; 16 bits hold ids up to 255.

  Args:
    data: the encoded file (PNG, BMP), one channel.
    name: how the error names it.

  Returns:
    uint8 [h, w].

  Raises:
    ImageError: as `decode`; in colour, or with numbers above 255.
  """
  with _opened(data, name, MASK_FORMATS) as image:
    # Before it is loaded: Pillow stretches '2' and '4' bits of grey to 255.
    args = image.tile[0].args if image.tile else ''
    raw = args if isinstance(args, str) else args[0]
    image.load()
    wide = image.mode == 'I' or image.mode.startswith('I;16')
    if image.mode not in ('L', 'P', '1') and not wide:
      raise ImageError(
        f'{name}: a mask in colour ({image.mode}); save one channel whose '
        'value is the class id'
      )
    turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION))
    ids = np.asarray(image if turn is None else image.transpose(turn))
    if ids.max() > 255:
      raise ImageError(
        f'{name}: holds the number {ids.max()}; class ids go up to 254, and '
        '255 is left out'
      )
    return ids.astype(np.uint8) // {'L;2': 85, 'L;4': 17}.get(raw, 1)


def size_of(data: bytes, name: str, *, mask: bool = False) -> tuple[int, int]:
  """The upright height and width, read from the head of the file alone.

  Args:
    data: the encoded file.
    name: how the error names it.
    mask: whether it is one.

  Raises:
    ImageError: as `decode`, for what shows without decoding.
  """
  with _opened(data, name, MASK_FORMATS if mask else FORMATS) as image:
    width, height = image.size
    # Of a TIFF Pillow tells the size after the turn.
    turned = image.format != 'TIFF' and (
      image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
    )
    return (width, height) if turned else (height, width)


@contextlib.contextmanager
def _opened(data: bytes, name: str, formats: tuple[str, ...]):
  """An image of a bounded size; whatever goes wrong with it is a sentence."""
  if not data:
    raise ImageError(f'{name}: the file is empty')
  try:
    with Image.open(io.BytesIO(data), formats=formats) as image:
      if max(image.size) > MAX_ASPECT * min(image.size):
        width, height = image.size
        raise ImageError(
          f'{name}: {width} x {height} pixels is a line; cut it to what it '
          'shows'
        )
      yield image
  except (
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # Where warnings are errors.
  ) as e:
    raise ImageError(f'{name}: too large; make it smaller ({e})') from e
  except UnidentifiedImageError as e:
    raise ImageError(
      f'{name}: not an image in a known format ({", ".join(formats)})'
    ) from e
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


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Resizes by its two nearest pixels a side, however much it shrinks.

  Pixels are squares whose edges align: output i lies at (i + 1/2) h / height
  - 1/2, clamped. The segmentation papers resize so; `eval_view` antialiases.

  Args:
    image: [h, w, 3], any dtype.
    height: of the result.
    width: of the result.

  Returns:
    float32 [height, width, 3].
  """
  image = image.astype(np.float32)
  for axis, new in enumerate((height, width)):
    if image.shape[axis] != new:
      below, above, share = taps(image.shape[axis], new)
      share = share.reshape((-1, *(1 for _ in image.shape[axis + 1 :])))
      lower, upper = image.take(below, axis), image.take(above, axis)
      image = lower + share * (upper - lower)
  return image


def taps(size: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The two pixels that each of `new` mixes, and the share of the second.

  >>> taps(2, 3)[2].tolist()
  [0.0, 0.5, 0.0]
  """
  at = np.clip((np.arange(new) + 0.5) * (size / new) - 0.5, 0, size - 1)
  below = at.astype(np.int32)
  above = np.minimum(below + 1, size - 1)
  return below, above, (at - below).astype(np.float32)


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
