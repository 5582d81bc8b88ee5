"""On-device views: crops, poses, pairs with masks, erasing and shuffling.

Each function takes one PRNG key per row and draws row i from key i alone, so
that a row's view depends neither on its batch nor on the number of devices.
"""

import math

import jax
import jax.numpy as jnp

from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.fields import is_zero

# Of ImageNet's colours in [0, 1]: what networks that normalise take for zero.
MEAN = (0.485, 0.456, 0.406)
IGNORE = 255  # In a mask: a pixel of no class.


def _between(draw, low, high):
  return low + (high - low) * draw


def _aspect(draw, bounds, area, own):
  """A box's width / height, log-uniform where the box fits.

  A box of the share `area` fits into a frame of the aspect `own` if its aspect
  is within [area * own, own / area]: what drawing until it fits would give.
  """
  low = jnp.log(jnp.clip(area * own, *bounds))
  high = jnp.log(jnp.clip(own / area, *bounds))
  return jnp.exp(_between(draw, low, high))


def _bilinear(image, y, x, extent):
  """Samples [S, S, C] at pixel coordinates, clamped to the extent."""
  height, width = extent[0], extent[1]
  y = jnp.clip(y, 0.0, height - 1.0)
  x = jnp.clip(x, 0.0, width - 1.0)
  top, left = jnp.floor(y), jnp.floor(x)
  fy, fx = (y - top)[..., None], (x - left)[..., None]
  y0, x0 = top.astype(jnp.int32), left.astype(jnp.int32)
  y1, x1 = jnp.minimum(y0 + 1, height - 1), jnp.minimum(x0 + 1, width - 1)
  # Whole pixels from a flat list: one index per gather is what CPUs like.
  pixels = image.reshape(-1, image.shape[2])

  def at(row, column):
    index = row * image.shape[1] + column
    return pixels.at[index].get(mode='promise_in_bounds').astype(jnp.float32)

  upper = at(y0, x0) + fx * (at(y0, x1) - at(y0, x0))
  lower = at(y1, x0) + fx * (at(y1, x1) - at(y1, x0))
  return upper + fy * (lower - upper)


def _grey(view):
  # Luma, ITU-R BT.601; a product of full precision, also on a TPU.
  luma = jnp.array([0.299, 0.587, 0.114])
  return jnp.dot(view, luma, precision='highest')[..., None]


def _jitter(view, draws, brightness, contrast, saturation):
  def factor(draw, strength):
    return _between(draw, 1.0 - strength, 1.0 + strength)

  view = factor(draws[0], brightness) * view
  if not is_zero(contrast):
    mean = jnp.mean(_grey(view))
    view = mean + factor(draws[1], contrast) * (view - mean)
  if not is_zero(saturation):
    grey = _grey(view)
    view = grey + factor(draws[2], saturation) * (view - grey)
  return jnp.clip(view, 0.0, 1.0)


def sample_views(
  keys: jax.Array,
  images: jax.Array,
  extents: jax.Array,
  *,
  size: int,
  area: tuple[float, float] = (0.67, 1.0),
  aspect: tuple[float, float] = (3 / 4, 4 / 3),
  square: bool = False,
  flip: bool = True,
  rotate: float = 15.0,
  brightness: float = 0.3,
  contrast: float = 0.0,
  saturation: float = 0.0,
) -> jax.Array:
  """Draws one view of each image by a single bilinear resample.

  An output pixel at p in [-1/2, 1/2]^2 shows the image at c + D R f(p): f
  mirrors, R turns in the output's frame, and D = diag(width, height) and c are
  the size and centre of a crop box. The box has a share `area` of the image
  and the proportions `aspect`, is placed uniformly and lies inside; should no
  box of both fit (a very long image), it keeps its aspect and is the largest
  that fits. Turned corners that leave the image repeat its border.

  The defaults are the training view of CLE-ViT's release.

  Args:
    keys: [B] PRNG keys.
    images: [B, S, S, 3] uint8 canvases, valid in their top left corner.
    extents: [B, 2] int32, each image's valid height and width, in 1..S.
    size: side of a view in pixels.
    area: the range, in (0, 1], of the box's share of the image, uniform.
    aspect: the range of the box's width / height, log-uniform.
    square: measures the aspect relative to the image's own: the whole image is
      squeezed into the square output. Otherwise shapes keep their proportions
      up to `aspect`.
    flip: mirrors every other view, left to right.
    rotate: largest angle in degrees, either way; 180 is a full turn.
    brightness: b in [0, 1]; colours are multiplied by U(1 - b, 1 + b).
    contrast: likewise, around the view's mean grey.
    saturation: likewise, around each pixel's own grey.

  Returns:
    [B, size, size, 3] float32 in [0, 1].
  """

  def one(key, image, extent):
    draws = jax.random.uniform(key, (9,))
    centre, step, mirror, sine, cosine = _pose(
      draws, extent, size, area, aspect, square, flip, rotate
    )
    # In pixels of the output, half-integers: exact, so that the identity is.
    line = jnp.arange(size) - (size - 1) / 2
    v, u = line[:, None], mirror * line[None, :]
    y = centre[0] - 0.5 + step[0] * (cosine * v + sine * u)
    x = centre[1] - 0.5 + step[1] * (cosine * u - sine * v)
    view = _bilinear(image, y, x, extent) / 255.0
    return _jitter(view, draws[6:], brightness, contrast, saturation)

  return jax.vmap(one)(keys, images, extents)


def _pose(draws, extent, size, area, aspect, square, flip, rotate):
  """Where a view lies: centre and step [2] in pixels, mirror, sine, cosine."""
  whole = extent.astype(jnp.float32)
  own = 1.0 if square else whole[1] / whole[0]
  share = _between(draws[0], *area)
  ratio = _aspect(draws[1], aspect, share, own)
  box = jnp.sqrt(share * jnp.stack([own / ratio, ratio / own]))
  box = whole * box / jnp.maximum(jnp.max(box), 1.0)
  centre = box / 2 + (whole - box) * draws[2:4]
  mirror = jnp.where(draws[4] < 0.5, -1.0, 1.0) if flip else 1.0
  angle = math.pi / 180 * rotate * _between(draws[5], -1.0, 1.0)
  return centre, box / size, mirror, jnp.sin(angle), jnp.cos(angle)


def sample_pairs(
  keys: jax.Array,
  images: jax.Array,
  masks: jax.Array,
  extents: jax.Array,
  centres: jax.Array,
  scales: jax.Array,
  *,
  size: int,
  rotate: float = 10.0,
  flip: bool = True,
  blur: float = 0.5,
) -> tuple[jax.Array, jax.Array]:
  """Draws one crop of each image and of its mask, by a single resample.

  An output pixel p, counted from the centre of the crop, shows the image at
  c + R f(p) / s: f mirrors every other crop, R turns every other one (by U(-a,
  a), in the output's frame), and s and c are given. Image pixels are mixed from
  their four neighbours, mask pixels taken from the nearest; what lies beyond
  the image is `MEAN` and 255. A part of the crops is then smoothed by the
  binomial 5 x 5 kernel [1, 4, 6, 4, 1] / 16 (OpenCV's Gaussian of that size),
  mirrored at the border.

  The probabilities and the order of scale, turn, mirror are those of APD's
  release; that it smooths last and turns about the crop's centre, not the
  image's, is our choice.

  Args:
    keys: [B] PRNG keys.
    images: [B, S, S, 3] uint8 canvases, valid in their top left corner.
    masks: [B, S, S] uint8, classes or 255.
    extents: [B, 2] int32, each image's valid height and width, in 1..S.
    centres: [B, 2] float32, where the crop's centre lies on the canvas: y and
      x in pixels from its top left corner, half-integers at pixel centres.
    scales: [B] float32, crop pixels for each canvas pixel.
    size: side of a crop in pixels.
    rotate: a, the largest angle in degrees.
    flip: mirrors every other crop, left to right.
    blur: the share of crops that are smoothed, in [0, 1].

  Returns:
    The crops, [B, size, size, 3] float32 in [0, 1], and their labels, [B,
    size, size] int32.
  """

  def one(key, image, mask, extent, centre, scale):
    draws = jax.random.uniform(key, (4,))
    angle = math.pi / 180 * rotate * _between(draws[1], -1.0, 1.0)
    angle = jnp.where(draws[0] < 0.5, angle, 0.0)
    mirror = jnp.where(draws[2] < 0.5, -1.0, 1.0) if flip else 1.0
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    line = jnp.arange(size) - (size - 1) / 2
    v, u = line[:, None], mirror * line[None, :]
    y = centre[0] - 0.5 + (cosine * v + sine * u) / scale
    x = centre[1] - 0.5 + (cosine * u - sine * v) / scale
    row, column = jnp.floor(y + 0.5), jnp.floor(x + 0.5)
    inside = (row >= 0) & (row < extent[0]) & (column >= 0)
    inside &= column < extent[1]
    view = _bilinear(image, y, x, extent) / 255.0
    view = jnp.where(inside[..., None], view, jnp.array(MEAN))
    index = row.astype(jnp.int32) * mask.shape[1] + column.astype(jnp.int32)
    index = jnp.where(inside, index, 0)
    label = mask.reshape(-1).at[index].get(mode='promise_in_bounds')
    label = jnp.where(inside, label.astype(jnp.int32), IGNORE)
    return jnp.where(draws[3] < blur, _smooth(view), view), label

  return jax.vmap(one)(keys, images, masks, extents, centres, scales)


def _smooth(view):
  """The binomial kernel of five, down and across, on [H, W, 3]."""
  for axis in (0, 1):
    n = view.shape[axis]
    margin = [(2, 2) if i == axis else (0, 0) for i in range(3)]
    wide = jnp.pad(view, margin, mode='reflect')
    taps = [
      weight / 16 * jax.lax.slice_in_dim(wide, i, i + n, axis=axis)
      for i, weight in enumerate((1, 4, 6, 4, 1))
    ]
    view = sum(taps[1:], taps[0])
  return view


def view_poses(
  keys: jax.Array,
  extents: jax.Array,
  *,
  size: int,
  area: tuple[float, float] = (0.67, 1.0),
  aspect: tuple[float, float] = (3 / 4, 4 / 3),
  square: bool = False,
  flip: bool = True,
  rotate: float = 15.0,
) -> jax.Array:
  """Where the views lie that `sample_views` draws from the same keys.

  Args:
    keys: [B] PRNG keys.
    extents: [B, 2] int32.
    size: and the other arguments, as `sample_views` was given them.

  Returns:
    [B, 2, 3] float32: the pixel (v, u) of a view, counted from its centre,
    shows the canvas at (y, x) = P[:, :2] (v, u) + P[:, 2].
  """

  def one(key, extent):
    centre, step, mirror, sine, cosine = _pose(
      jax.random.uniform(key, (9,)), extent, size, area, aspect, square,
      flip, rotate,
    )  # fmt: skip
    turn = jnp.array([[cosine, mirror * sine], [-sine, mirror * cosine]])
    return jnp.column_stack([step[:, None] * turn, centre - 0.5])

  return jax.vmap(one)(keys, extents)


def carry(
  maps: jax.Array, poses: jax.Array, others: jax.Array, *, size: int
) -> jax.Array:
  """Resamples maps over some views for other views of the same images.

  Args:
    maps: [B, S, S], over the whole of a view.
    poses: [B, 2, 3] of these views, from `view_poses`.
    others: [B, 2, 3] of the other views.
    size: pixels a side of the views, as `view_poses` was given it.

  Returns:
    [B, S, S], bilinear; what the first view does not show takes the value of
    its nearest edge.
  """
  side = maps.shape[1]
  line = (jnp.arange(side) - (side - 1) / 2) * (size / side)
  grid = jnp.stack(jnp.meshgrid(line, line, indexing='ij'), axis=-1)

  def one(values, pose, other):
    # Two products of full precision: TF32 would be off by a tenth of a pixel.
    (a, b), (c, d) = pose[:, :2]
    # Written out: a GPU calls a solver for each matrix of a batch.
    inverse = jnp.array([[d, -b], [-c, a]]) / (a * d - b * c)
    matrix = jnp.matmul(inverse, other[:, :2], precision='highest')
    shift = jnp.matmul(inverse, other[:, 2] - pose[:, 2], precision='highest')
    at = jnp.matmul(grid, matrix.T, precision='highest') + shift
    at = at * (side / size) + (side - 1) / 2
    whole = jnp.array([side, side])
    return _bilinear(values[..., None], at[..., 0], at[..., 1], whole)[..., 0]

  return jax.vmap(one)(maps, poses, others)


def erase(
  keys: jax.Array,
  images: jax.Array,
  fill: jax.Array,
  *,
  area: tuple[float, float] = (0.15, 0.45),
  aspect: tuple[float, float] = (0.3, 3.3),
) -> jax.Array:
  """Paints one random rectangle of each image in one colour.

  Random erasing (Zhong et al., arXiv 1708.04896), always on; the defaults are
  those of CLE-ViT's second view.

  Args:
    keys: [B] PRNG keys.
    images: [B, H, W, 3] float32.
    fill: [3], the colour.
    area: the range of the rectangle's share of the image, uniform, held up to
      rounding to whole pixels.
    aspect: the range of its width / height, log-uniform where it fits.

  Returns:
    [B, H, W, 3], of the images' dtype.
  """
  height, width = images.shape[1:3]

  def one(key, image):
    draws = jax.random.uniform(key, (4,))
    share = _between(draws[0], *area)
    ratio = _aspect(draws[1], aspect, share, width / height)
    pixels = share * height * width
    h = jnp.clip(jnp.round(jnp.sqrt(pixels / ratio)), 1, height)
    w = jnp.clip(jnp.round(pixels / h), 1, width)
    top = jnp.floor(draws[2] * (height - h + 1))
    left = jnp.floor(draws[3] * (width - w + 1))
    y, x = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    inside = (y >= top) & (y < top + h) & (x >= left) & (x < left + w)
    return jnp.where(inside[..., None], jnp.asarray(fill, image.dtype), image)

  return jax.vmap(one)(keys, images)


def shuffle_patches(
  keys: jax.Array, images: jax.Array, *, grid: int = 2
) -> jax.Array:
  """Permutes the grid x grid patches of each image at random.

  Args:
    keys: [B] PRNG keys.
    images: [B, H, W, C].
    grid: patches along each side.

  Returns:
    [B, H, W, C], of the images' dtype.

  Raises:
    UserError: if `grid` does not divide H and W, when traced.
  """
  height, width, channels = images.shape[1:]
  if height % grid or width % grid:
    raise UserError(
      f'Views of {height} x {width} pixels cannot be cut into {grid} x {grid} '
      f'equal patches: choose an image size divisible by {grid}.'
    )
  h, w = height // grid, width // grid

  def one(key, image):
    patches = image.reshape(grid, h, grid, w, channels).swapaxes(1, 2)
    patches = patches.reshape(grid * grid, h, w, channels)
    patches = patches[jax.random.permutation(key, grid * grid)]
    patches = patches.reshape(grid, grid, h, w, channels).swapaxes(1, 2)
    return patches.reshape(height, width, channels)

  return jax.vmap(one)(keys, images)
