"""From encoded bytes to pixels: every image format a user may hand in."""

import contextlib
import io
import struct
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from csdnet_jax.data import formats, tiff
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
  RuntimeError,
  struct.error,
  zlib.error,
)

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

  EXIF rotation is applied; grey of 12 and 16 bits is scaled to 8 bits, of
  colours of 16 bits the upper 8 are taken; a TIFF whose white is zero is
  inverted; grey, palette and CMYK are converted; transparency is laid over
  white; an animation gives its first frame.

  Args:
    data: the encoded file, of a kind that `formats.known` names; its content
      says which, not its name.
    name: how the error names it.

  Returns:
    uint8 [h, w, 3].

  Raises:
    ImageError: empty, not an image, damaged, over twice Pillow's
      `MAX_IMAGE_PIXELS` (179 million; from half of that on Pillow warns), or of
      a pixel type that has no known range (32-bit or signed integers, floating
      point), whatever its values.
  """
  with _opened(data, name, tuple(formats.known())) as image:
    _require_range(image, name)
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
  with _opened(
    data, name, MASK_FORMATS if mask else tuple(formats.known())
  ) as image:
    width, height = image.size
    # Of a TIFF Pillow tells the size after the turn.
    turned = image.format != 'TIFF' and (
      image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
    )
    return (width, height) if turned else (height, width)


@contextlib.contextmanager
def _opened(data: bytes, name: str, kinds: tuple[str, ...]):
  """An image of a bounded size; whatever goes wrong with it is a sentence."""
  if not data:
    raise ImageError(f'{name}: the file is empty')
  try:
    with _identified(data, kinds) as image:
      if not min(image.size):
        raise ImageError(f'{name}: has no pixels')
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
    if 'TIFF' in kinds and (kind := tiff.described(data)):
      raise ImageError(
        f'{name}: a TIFF of pixels that are not read ({kind}); save it as PNG, '
        'or as another TIFF of 8 or 16 bits without a sign'
      ) from e
    remedy = formats.remedy_of(data)
    raise ImageError(
      f'{name}: not an image in a known format ({", ".join(kinds)})'
      f'{remedy and f"; to read it, {remedy}"}'
    ) from e
  except _DAMAGE as e:
    raise ImageError(f'{name}: damaged or cut short ({e})') from e


def _identified(data: bytes, kinds: tuple[str, ...]) -> Image.Image:
  """Opens an image, also wide grey whose white is zero.

  Of it Pillow knows only little-endian 16 bits; with black as zero it knows
  more.
  """
  try:
    return Image.open(io.BytesIO(data), formats=kinds)
  except UnidentifiedImageError:
    turned = tiff.black_as_zero(data) if 'TIFF' in kinds else b''
    if not turned:
      raise
    image = Image.open(io.BytesIO(turned), formats=('TIFF',))
    # What `_from_wide` turns round, and what is refused in better words.
    if not image.mode.startswith(('I', 'F')):
      image.close()
      raise
    image.tag_v2[tiff.PHOTOMETRIC] = tiff.WHITE_IS_ZERO
    return image


def _tag(image: Image.Image, tag: int) -> tuple:
  """What a tag of a TIFF holds; () of another format or without the tag."""
  value = image.tag_v2.get(tag, ()) if image.format == 'TIFF' else ()
  return value if isinstance(value, tuple) else (value,)


def _require_range(image: Image.Image, name: str) -> None:
  """Refuses pixels whose black and white nobody could tell."""
  advice = 'save it with 8 or 16 bits, without a sign'
  if image.mode == 'F':
    raise ImageError(f'{name}: floating-point pixels; {advice}')
  if max(_tag(image, tiff.BITS), default=0) > 16:
    raise ImageError(
      f'{name}: {_tag(image, tiff.BITS)[0]}-bit pixels; {advice}'
    )
  if tiff.SIGNED in _tag(image, tiff.SAMPLE_FORMAT):
    raise ImageError(f'{name}: pixels with a sign; {advice}')
  if image.mode in ('LAB', 'HSV'):
    raise ImageError(f'{name}: {image.mode} pixels; save it as RGB')


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
  if image.mode.startswith('I;16') or image.mode == 'I':
    return _from_wide(image, name)
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    return Image.alpha_composite(white, image).convert('RGB')
  return image.convert('RGB')


def _from_wide(image: Image.Image, name: str) -> Image.Image:
  """Grey of over 8 bits, scaled by the range that its file declares."""
  values = np.asarray(image).astype(np.int64)
  most = 2 ** max(_tag(image, tiff.BITS), default=16) - 1
  if values.min() < 0 or values.max() > most:
    raise ImageError(f'{name}: 32-bit pixels; save it with 8 or 16 bits')
  # Up to 8 bits Pillow has turned them round already.
  if tiff.WHITE_IS_ZERO in _tag(image, tiff.PHOTOMETRIC):
    values = most - values
  grey = ((510 * values + most) // (2 * most)).astype(np.uint8)
  hole = image.info.get('transparency')
  if isinstance(hole, int):
    grey[np.asarray(image) == hole] = 255
  return Image.fromarray(grey).convert('RGB')


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
