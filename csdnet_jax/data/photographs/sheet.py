"""Contact sheets: what was found in each photograph, to check by eye."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from csdnet_jax.data.photographs.find import Found

COLUMNS, ROWS = 3, 4
_WIDTH, _HEIGHT = 480, 360  # Of a photograph on the sheet, at most.
_LEAF, _LEFT_OUT = (214, 0, 122), (0, 110, 220)


def panel(found: Found, title: str) -> np.ndarray:
  """One photograph with the outlines and numbers of its leaves.

  Leaves have red outlines and their numbers; what was left out has a blue box
  and the reason.

  Args:
    found: in the photograph.
    title: its name, and what is to be said.

  Returns:
    uint8 [360 + 18, 480, 3].
  """
  height, width = found.small.shape[:2]
  shrink = min(_WIDTH / width, _HEIGHT / height)
  size = (max(round(width * shrink), 1), max(round(height * shrink), 1))
  image = np.array(
    Image.fromarray(found.small).resize(size, Image.Resampling.BOX)
  )
  for leaf in found.leaves:
    mask = np.asarray(Image.fromarray(leaf.mask).resize(size))
    grown = ndimage.binary_dilation(mask, iterations=2)
    image[grown & ~mask] = _LEAF
  sheet = Image.new('RGB', (_WIDTH, _HEIGHT + 18), 'white')
  sheet.paste(Image.fromarray(image), (0, 18))
  pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
  pen.text((2, 0), title, 'black', font)
  scale = shrink / found.scale

  def on_sheet(box):
    left, top, right, bottom = (v * scale for v in box)
    return left, top + 18, right, bottom + 18

  for box, reason in found.left_out:
    left, top, right, bottom = on_sheet(box)
    pen.rectangle((left, top, max(right - 1, left), bottom), outline=_LEFT_OUT)
    if (right - left) * (bottom - top) > 2000:
      pen.text((left + 2, top), reason, _LEFT_OUT, font)
  for k, leaf in enumerate(found.leaves):
    left, top, right, bottom = on_sheet(leaf.box)
    pen.text(
      ((left + right) / 2, (top + bottom) / 2), str(k), 'white',
      ImageFont.load_default(28), 'mm', stroke_width=3, stroke_fill=_LEAF,
    )  # fmt: skip
  return np.asarray(sheet)


def sheet(panels: Sequence[np.ndarray]) -> Image.Image:
  """Lays at most COLUMNS * ROWS panels out on a page."""
  page = Image.new('RGB', (COLUMNS * (_WIDTH + 6), ROWS * (_HEIGHT + 24)))
  page.paste('white', (0, 0, *page.size))
  for i, one in enumerate(panels):
    row, column = divmod(i, COLUMNS)
    page.paste(
      Image.fromarray(one), (column * (_WIDTH + 6), row * (_HEIGHT + 24))
    )
  rows = -(-len(panels) // COLUMNS)
  return page.crop((0, 0, page.width, rows * (_HEIGHT + 24)))
