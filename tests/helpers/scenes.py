"""Drawn photographs of several leaves on a tinted, unevenly lit ground."""

import functools

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from csdnet_jax.data import leaves

GROUND = (236, 232, 205)


@functools.cache
def leaf(number: int, side: int) -> tuple[np.ndarray, np.ndarray]:
  """A drawn leaf cut to its outline, and where it is: [h, w, 3], [h, w]."""
  drawn = leaves.draw(leaves.cultivar(number, 0), (number,), side)
  # Its shadow stays behind; its pale veins do not.
  there = np.ptp(drawn.astype(int), axis=-1) > 40
  there = np.pad(there, 4)
  there = ndimage.binary_closing(there, iterations=3)[4:-4, 4:-4]
  there = ndimage.binary_fill_holes(there)
  rows, columns = (np.flatnonzero(there.any(axis)) for axis in (1, 0))
  cut = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
  return drawn[cut], there[cut]


def photograph(
  places,
  *,
  size: tuple[int, int] = (600, 800),
  ground: tuple[int, int, int] = GROUND,
  dimmed: float = 0.25,
  shadow: float = 0.0,
  ruler: bool = True,
) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
  """Lays leaves on a ground.

  Args:
    places: (left, top, side) of each, in pixels; the side is of the square that
      the leaf is drawn in.
    size: height and width.
    ground: its colour where it is brightest.
    dimmed: share of the light that is lost from left to right.
    shadow: share of the light that is lost below and right of each leaf.
    ruler: whether a ruler, a label and a dark frame lie there too.

  Returns:
    uint8 [h, w, 3] and the box of each leaf: left, top, right, bottom.
  """
  height, width = size
  rng = np.random.default_rng(0)
  image = np.full((height, width, 3), ground, np.float64)
  boxes = []
  for number, (left, top, side) in enumerate(places):
    drawn, there = leaf(number, side)
    h, w = there.shape
    # What lies beyond the edge is cut off.
    h, w = min(h, height - top), min(w, width - left)
    image[top : top + h, left : left + w][there[:h, :w]] = drawn[:h, :w][
      there[:h, :w]
    ]
    boxes.append((left, top, left + w, top + h))
  if ruler:
    lying = Image.fromarray(image.astype(np.uint8))
    pen = ImageDraw.Draw(lying)
    pen.rectangle((20, height - 40, width - 60, height - 10), '#d8c040')
    for x in range(24, width - 64, 8):
      pen.line((x, height - 40, x, height - 25), 'black')
    pen.rectangle((width - 150, 12, width - 60, 52), '#b8d0e8', 'black')
    pen.text((width - 140, 20), 'No. 17', 'black')
    pen.line((0, 0, 0, height), '#202030', 6)
    image = np.asarray(lying).astype(np.float64)
  image *= 1 - dimmed * np.linspace(0, 1, width)[:, None]
  image += rng.normal(0, 3, image.shape)
  return image.clip(0, 255).astype(np.uint8), boxes
