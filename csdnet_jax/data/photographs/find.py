"""Leaves on a plain ground: where they are in one photograph.

The ground's colour is measured in the photograph, as a smooth surface over it,
so that neither a tint nor uneven light matters. What differs from it by more
than Otsu's threshold is looked at region by region: what is too small, lies
along the edge, or is straight as only a card, a label or a ruler is, is left
out. Everything is found on a reduced copy.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.spatial import ConvexHull
from skimage import color, filters, measure, segmentation

SIDE = 1024  # Longer side of the reduced copy, in pixels.

# Colours are in CIELAB, whose unit is about what an eye can just tell.
_START = 15.0  # From the ground's commonest colour: what its surface is fit to.
_FAR = 50.0  # No ground; a leaf's brightest parts must not lift the threshold.
_LEAST = 10.0  # A threshold below this would cut the ground's own grain.
# Nine tenths of the ground are as close to its surface, in thresholds: on a
# light table within 0.2, on gravel, grass and fur only within 0.8 or more.
_PLAIN = 0.5
_BAND = 0.25  # Of the half width: where the ground's colour is looked for.
_BIN = 6.0

_SMALLEST = 0.005  # Of the photograph.
_SMALLEST_OF_LARGEST = 0.1
_SPECK = 0.0005  # Of the photograph; smaller regions are not even counted.
# Of a region's outline, as a share of the root of its area. The tip of a leaf
# may touch the edge of the photograph; a leaf cut in two lies along it.
_ALONG_EDGE = 0.25
_STRAIGHT = 0.88  # Of its narrowest rectangle; an ellipse fills 0.785.
_CARD = 'straight, like a card or a ruler'
_LINE = 15.0  # Length in widths.
_HOLE = 0.002  # Of the leaf: larger ones show the ground, smaller ones a vein.
_VEIN = 2  # Pixels of the reduced copy: half its width, at most.

# Of the half width of the narrower part; single grape leaves, which are deeply
# lobed, begin at 0.64, and pairs that touch end at 0.32.
_NECK = 0.4
_PERHAPS_NECK = 0.6
_PART = 0.32  # Of the region, so that no leaflet is taken for a leaf.
_PERHAPS_PART = 0.2
_NECK_SIDE = 256  # Longer side of the copy on which necks are looked for.


class Leaf(NamedTuple):
  """A leaf in a photograph.

  Attributes:
    box: left, top, right, bottom in pixels of the photograph, upright.
    mask: bool [h, w], True on the leaf, of the reduced copy as a whole.
    note: what a person should know of it, or ''.
  """

  box: tuple[int, int, int, int]
  mask: np.ndarray
  note: str = ''


class LeftOut(NamedTuple):
  """A region that is no whole leaf: its box as of a `Leaf`, and why."""

  box: tuple[int, int, int, int]
  reason: str


class Found(NamedTuple):
  """What is in a photograph.

  Attributes:
    leaves: from left to right, from the top where equally far left.
    left_out: what else differs from the ground, without specks.
    small: the reduced copy, uint8 [h, w, 3].
    scale: pixels of the photograph for one of the reduced copy, at least 1.
    threshold: the colour distance to the ground from which on a pixel is none.
    plain: whether the ground is; if not, the leaves are guesses.
  """

  leaves: tuple[Leaf, ...]
  left_out: tuple[LeftOut, ...]
  small: np.ndarray
  scale: float
  threshold: float
  plain: bool


def find(photograph: np.ndarray) -> Found:
  """Finds the leaves in a photograph.

  Args:
    photograph: uint8 [h, w, 3], upright.
  """
  small, scale = _reduced(photograph)
  distance = ground_distance(small)
  threshold = max(
    float(filters.threshold_otsu(distance.clip(max=_FAR))), _LEAST
  )
  ground = distance[distance <= threshold]
  labels, _ = ndimage.label(distance > threshold, np.ones((3, 3)))
  regions = [
    r for r in measure.regionprops(labels) if r.area >= _SPECK * labels.size
  ]
  height, width = photograph.shape[:2]

  def box(mask):
    rows, columns = ndimage.find_objects(mask.view(np.uint8))[0]
    return (
      int(columns.start * scale),
      int(rows.start * scale),
      min(int(np.ceil(columns.stop * scale)), width),
      min(int(np.ceil(rows.stop * scale)), height),
    )

  leaves, left_out = [], []
  for region, reason in zip(regions, _reasons(regions, labels), strict=True):
    if reason:
      left_out.append(LeftOut(box(labels == region.label), reason))
      continue
    parts, note = _leaves_of(region, labels.shape)
    for part in parts:
      mask = np.zeros(labels.shape, bool)
      mask[region.slice] = part
      leaves.append(Leaf(box(mask), mask, note))
  return Found(
    _in_columns(leaves, width),
    tuple(left_out),
    small,
    scale,
    threshold,
    plain=bool(np.quantile(ground, 0.9) <= _PLAIN * threshold),
  )


def _reduced(photograph: np.ndarray) -> tuple[np.ndarray, float]:
  height, width = photograph.shape[:2]
  scale = max(max(height, width) / SIDE, 1.0)
  size = (max(round(width / scale), 1), max(round(height / scale), 1))
  image = Image.fromarray(photograph).resize(size, Image.Resampling.BOX)
  return np.asarray(image), scale


def ground_distance(image: np.ndarray) -> np.ndarray:
  """The colour distance of every pixel to the ground behind it.

  The ground is a polynomial of the second degree in x and y for each channel of
  CIELAB, fitted to the pixels that are close to it: first to the colour that is
  commonest near the four edges, where few leaves reach. Our choice.

  Args:
    image: uint8 [h, w, 3].

  Returns:
    float32 [h, w], the distance in CIELAB (CIE 1976), from 0.
  """
  height, width = image.shape[:2]
  lab = color.rgb2lab(image).astype(np.float32)
  y, x = (
    np.broadcast_to(v, (height, width)).astype(np.float32)
    for v in np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
  )
  terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
  # A sample is enough for 18 numbers; an odd step meets every column.
  step = max(lab[..., 0].size // 50_000, 1) | 1
  few, values = terms.reshape(-1, 6)[::step], lab.reshape(-1, 3)[::step]
  near_edge = np.abs(few[:, 1:3]).max(axis=1) > 1 - _BAND
  bins, counts = np.unique(
    np.floor(values[near_edge] / _BIN), axis=0, return_counts=True
  )
  surface = (bins[counts.argmax()] + 0.5) * _BIN
  tolerance = _START
  # A plane first: a curved surface would follow the first leaf that it meets.
  for n in (1, 3, 3, 6, 6, 6):
    close = np.linalg.norm(values - surface, axis=1) < tolerance
    fit, *_ = np.linalg.lstsq(few[close, :n], values[close])
    surface = few[:, :n] @ fit
    tolerance = max(tolerance - 2, 8)
  return np.linalg.norm(lab - terms @ fit, axis=-1)


def _reasons(regions, labels: np.ndarray) -> list[str]:
  """Why each region is no whole leaf, '' if it may be one."""
  reasons = [_why_none(r, labels.shape) for r in regions]
  # What is printed on a card is a part of it, also within its frame.
  cards = np.zeros(labels.shape, bool)
  for region, reason in zip(regions, reasons, strict=True):
    if reason == _CARD:
      cards[region.slice] |= region.image_filled
  reasons = [
    reason or _CARD * bool(cards[tuple(region.coords[0])])
    for region, reason in zip(regions, reasons, strict=True)
  ]
  areas = np.array([region.area for region in regions])
  possible = areas[[not reason for reason in reasons]]
  least = _SMALLEST_OF_LARGEST * possible.max(initial=0)
  return [
    reason or 'small' * bool(area < least)
    for area, reason in zip(areas, reasons, strict=True)
  ]


def _why_none(region, shape: tuple[int, int]) -> str:
  """Why a region is no whole leaf, '' if it may be one."""
  if _along_edge(region, shape) > _ALONG_EDGE * region.area**0.5:
    return 'along the edge'
  length, breadth = _narrowest_rectangle(region.coords)
  if length > _LINE * breadth:
    return 'a line'
  # Filled: what is printed on a label must not hide that it is one.
  if region.area_filled > _STRAIGHT * length * breadth:
    return _CARD
  if region.area < _SMALLEST * shape[0] * shape[1]:
    return 'small'
  return ''


def _leaves_of(region, shape: tuple[int, int]) -> tuple[list, str]:
  """The masks of a region's leaves, as of its image, and the note on them."""
  # A pale vein must not look like a cut, and leaflets whose tips meet are one
  # leaf around a hole.
  closed = ndimage.binary_closing(region.image_filled, iterations=_VEIN)
  parts, perhaps = split(
    ndimage.binary_fill_holes(closed | region.image_filled)
  )
  whole = _without_small_holes(region.image)
  notes = []
  if len(parts) > 1:
    notes.append('touched another leaf and was parted from it')
  if perhaps:
    notes.append('may be two leaves that touch')
  if _along_edge(region, shape):
    notes.append('touches the edge of the photograph')
  return [part & whole for part in parts], '; '.join(notes)


def _along_edge(region, shape: tuple[int, int]) -> int:
  """How many of a region's pixels lie on the edge of the photograph."""
  last = np.array(shape) - 1
  return int(((region.coords == 0) | (region.coords == last)).any(1).sum())


def _narrowest_rectangle(coords: np.ndarray) -> tuple[float, float]:
  """Length and breadth of the rectangle of least area around pixels [n, 2].

  One of its sides lies along a side of the convex hull (Freeman and Shapira,
  1975).
  """
  corners = (coords[:, None] + [[0, 0], [0, 1], [1, 0], [1, 1]]).reshape(-1, 2)
  # Only the first and the last of each row can be on the hull.
  rows = corners[np.lexsort((corners[:, 1], corners[:, 0]))]
  new = np.flatnonzero(np.diff(rows[:, 0]))
  ends = rows[np.unique(np.r_[0, new, new + 1, len(rows) - 1])]
  hull = ends[ConvexHull(ends).vertices].astype(np.float64)
  sides = np.roll(hull, -1, axis=0) - hull
  sides = sides / np.linalg.norm(sides, axis=1, keepdims=True)
  across = np.stack([-sides[:, 1], sides[:, 0]], axis=1)
  a, b = np.ptp(hull @ sides.T, axis=0), np.ptp(hull @ across.T, axis=0)
  best = (a * b).argmin()
  return float(max(a[best], b[best])), float(min(a[best], b[best]))


def _without_small_holes(mask: np.ndarray) -> np.ndarray:
  """Fills pale veins and glints; where the ground shows, it stays ground."""
  holes, n = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
  areas = np.bincount(holes.ravel(), minlength=n + 1)
  small = areas <= _HOLE * mask.sum()
  small[0] = False
  return mask | small[holes]


def split(mask: np.ndarray) -> tuple[list[np.ndarray], bool]:
  """Parts leaves that touch, where a clear neck lies between them.

  The mask is worn away from its outline until it falls into pieces; the depth
  at which it does, against the half width of the narrower piece, is the neck.
  Two leaves that touch have a narrow one between two large pieces. The parts of
  a compound leaf hang together as narrowly, but are smaller. Our choice.

  Args:
    mask: bool [h, w], one region.

  Returns:
    The masks of the parts, of the same shape, and whether the region, left
    whole, may still be two leaves.
  """
  neck, pieces = _narrowest_neck(mask)
  if neck > _PERHAPS_NECK:
    return [mask], False
  share = (pieces == 2).sum() / mask.sum()
  if neck > _NECK or min(share, 1 - share) < _PART:
    return [mask], True
  found = [split(mask & (pieces == i)) for i in (1, 2)]
  return [m for parts, _ in found for m in parts], any(p for _, p in found)


def _narrowest_neck(mask: np.ndarray) -> tuple[float, np.ndarray]:
  """The neck, see `split`, and the pieces beside it as labels 1 and 2.

  The neck is infinite where the mask does not fall into large pieces.
  """
  step = -(-max(mask.shape) // _NECK_SIDE)
  coarse = np.pad(mask[::step, ::step], 1)
  depth = ndimage.distance_transform_edt(coarse)
  for level in np.arange(0.02, _PERHAPS_NECK, 0.03) * depth.max():
    cores, n = ndimage.label(depth > level)
    if n < 2:
      continue
    parts = segmentation.watershed(-depth, cores, mask=coarse)
    areas = np.bincount(parts.ravel(), minlength=n + 1)[1:]
    first, second = areas.argsort()[::-1][:2] + 1
    if areas[second - 1] < _PERHAPS_PART * coarse.sum():
      continue
    half = min(depth[parts == i].max() for i in (first, second))
    # Crumbs join the piece that they hang on.
    seeds = 1 * (cores == first) + 2 * (cores == second)
    seeds = seeds[1:-1, 1:-1].repeat(step, 0).repeat(step, 1)
    seeds = seeds[: mask.shape[0], : mask.shape[1]] * mask
    inside = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return level / half, segmentation.watershed(-inside, seeds, mask=mask)
  return math.inf, mask


def _in_columns(leaves: list[Leaf], width: int) -> tuple[Leaf, ...]:
  """From left to right; those whose left edges nearly agree from the top."""
  leaves = sorted(leaves, key=lambda leaf: leaf.box[0])
  starts = [0] + [
    i
    for i, (a, b) in enumerate(itertools.pairwise(leaves), 1)
    if b.box[0] - a.box[0] > 0.005 * width
  ]
  columns = itertools.pairwise([*starts, len(leaves)])
  return tuple(
    leaf
    for a, b in columns
    for leaf in sorted(leaves[a:b], key=lambda leaf: leaf.box[1])
  )
