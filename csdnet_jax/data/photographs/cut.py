"""One leaf of a photograph, alone on white."""

import numpy as np
from PIL import Image
from scipy import ndimage

from csdnet_jax.data.photographs.find import Leaf

MARGIN = 0.04  # Of the leaf's longer side, on each of the four.
# The outline is known to a pixel of the reduced copy; a blade's own soft edge
# is as wide.
_GROWN = 1.5  # Pixels of the reduced copy.


def cut(photograph: np.ndarray, leaf: Leaf, scale: float) -> np.ndarray:
  """Cuts a leaf out with a margin, and whitens all that it is not.

  White is also what lies beyond the photograph, and the ground that shows
  through the leaf: neither tint nor neighbour may give the photograph away.

  Args:
    photograph: uint8 [h, w, 3], upright.
    leaf: found in it.
    scale: as of `find.Found`.

  Returns:
    uint8 [h, w, 3], at the photograph's own resolution.
  """
  left, top, right, bottom = leaf.box
  margin = max(round(MARGIN * max(right - left, bottom - top)), 1)
  width, height = right - left + 2 * margin, bottom - top + 2 * margin
  out = np.full((height, width, 3), 255, np.uint8)
  # What of the cut lies in the photograph.
  x0, y0 = max(left - margin, 0), max(top - margin, 0)
  x1 = min(right + margin, photograph.shape[1])
  y1 = min(bottom + margin, photograph.shape[0])
  inside = _inside(leaf.mask, (x0, y0, x1, y1), scale)
  place = out[
    y0 - top + margin : y1 - top + margin,
    x0 - left + margin : x1 - left + margin,
  ]
  place[inside] = photograph[y0:y1, x0:x1][inside]
  return out


def _inside(mask: np.ndarray, box, scale: float) -> np.ndarray:
  """The slightly grown leaf within a box of the photograph, bool [h, w]."""
  x0, y0, x1, y1 = box
  # Of the reduced copy: the box, and room for the distance to reach over.
  room = 4
  a, b = max(int(x0 / scale) - room, 0), max(int(y0 / scale) - room, 0)
  c, d = int(x1 / scale) + room, int(y1 / scale) + room
  near = mask[b:d, a:c]
  distance = ndimage.distance_transform_edt(~near).astype(np.float32)
  distance -= ndimage.distance_transform_edt(near).astype(np.float32)
  h, w = near.shape
  part = (
    max(x0 / scale - a, 0),
    max(y0 / scale - b, 0),
    min(x1 / scale - a, w),
    min(y1 / scale - b, h),
  )
  fine = Image.fromarray(distance).resize(
    (x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=part
  )
  return np.asarray(fine) <= _GROWN
