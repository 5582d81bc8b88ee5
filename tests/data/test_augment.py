"""Views on the device: geometry, borders, ranges, and one key per row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax.data import augment
from csdnet_jax.runtime.errors import UserError

# No randomness but in what a test switches on.
STILL = {
  'area': (1.0, 1.0),
  'flip': False,
  'rotate': 0.0,
  'brightness': 0.0,
}
# One shape for most tests, so that few programs are compiled.
N, S = 64, 64

sample_views = jax.jit(
  augment.sample_views,
  static_argnames=['size', 'square', 'flip', 'contrast', 'saturation'],
)
erase = jax.jit(augment.erase)
shuffle_patches = jax.jit(augment.shuffle_patches, static_argnames='grid')


def keys(n, seed=0):
  return jax.random.split(jax.random.key(seed), n)


def noise(n, size, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def views_of(images, extent=None, seed=0, **options):
  """One view of each canvas, of the canvas's size; still unless said."""
  n, size = images.shape[:2]
  extents = np.tile(np.int32(extent or (size, size)), (n, 1))
  options = STILL | {'size': size} | options
  return np.asarray(sample_views(keys(n, seed), images, extents, **options))


def ramps(height, width):
  """N equal canvases; red and green are the row and column as a share.

  Values are those of a continuous ramp at pixel centres.
  """
  canvas = np.full((S, S, 3), 255, np.uint8)
  row = np.round(255 * (np.arange(height) + 0.5) / height)
  column = np.round(255 * (np.arange(width) + 0.5) / width)
  canvas[:height, :width, 0] = row[:, None]
  canvas[:height, :width, 1] = column[None, :]
  return np.tile(canvas, (N, 1, 1, 1))


POSE = {'area': (0.3, 0.9), 'flip': True, 'rotate': 180.0}


def test_a_pose_says_where_each_pixel_of_a_view_lies():
  """A view of the canvas's own coordinates, which a pose must predict."""
  images, size = ramps(S, S), 24
  extents = np.full((N, 2), S, np.int32)
  views = views_of(images, size=size, **POSE)
  poses = augment.view_poses(keys(N), extents, size=size, **POSE)
  line = np.arange(size) - (size - 1) / 2
  grid = np.stack(np.meshgrid(line, line, indexing='ij'), axis=-1)
  at = np.einsum('nij,yxj->nyxi', poses[..., :2], grid)
  at += np.asarray(poses)[:, None, None, :, 2]
  inside = ((at > 0) & (at < S - 1)).all(-1)
  assert inside.mean() > 0.6
  expected = (at + 0.5) / S
  np.testing.assert_allclose(
    views[..., :2][inside], expected[inside], atol=0.005
  )


def test_maps_are_carried_to_where_another_view_shows_the_same():
  images, size = ramps(S, S), 24
  extents = np.full((N, 2), S, np.int32)
  one, two = (views_of(images, seed=i, size=size, **POSE) for i in range(2))
  poses = [
    augment.view_poses(keys(N, i), extents, size=size, **POSE) for i in range(2)
  ]
  for channel in range(2):
    carried = augment.carry(one[..., channel], *poses, size=size)
    # Where the first view shows it: beyond, the nearest edge is repeated.
    line = np.arange(size) - (size - 1) / 2
    grid = np.stack(np.meshgrid(line, line, indexing='ij'), axis=-1)
    canvas = np.einsum('nij,yxj->nyxi', poses[1][..., :2], grid)
    canvas += np.asarray(poses[1])[:, None, None, :, 2]
    back = canvas - np.asarray(poses[0])[:, None, None, :, 2]
    inverse = np.linalg.inv(poses[0][..., :2])
    back = np.einsum('nij,nyxj->nyxi', inverse, back)
    seen = (np.abs(back) < (size - 3) / 2).all(-1)
    seen &= ((canvas > 1) & (canvas < S - 2)).all(-1)
    assert seen.mean() > 0.2
    np.testing.assert_allclose(
      carried[seen], two[..., channel][seen], atol=0.01
    )


def test_a_map_is_carried_to_its_own_view_unchanged():
  values = np.random.default_rng(0).random((N, 24, 24), np.float32)
  poses = augment.view_poses(
    keys(N), np.full((N, 2), S, np.int32), size=24, **POSE
  )
  np.testing.assert_allclose(
    augment.carry(values, poses, poses, size=24), values, atol=1e-4
  )


@pytest.mark.parametrize('size,square', [(S, False), (S, True), (25, False)])
def test_nothing_random_gives_the_image_itself(size, square):
  images = noise(N, size)
  views = views_of(images, square=square)
  assert views.dtype == np.float32
  np.testing.assert_allclose(views, images / np.float32(255), atol=1e-6)


def test_flip_mirrors_some_views_and_leaves_the_others():
  images = noise(N, S)
  views = views_of(images, flip=True)
  plain = images / np.float32(255)
  mirrored = plain[:, :, ::-1]
  is_plain = np.abs(views - plain).max((1, 2, 3)) < 1e-6
  is_mirrored = np.abs(views - mirrored).max((1, 2, 3)) < 1e-6
  assert np.all(is_plain ^ is_mirrored)
  assert N / 4 < is_mirrored.sum() < 3 * N / 4


def test_a_quarter_turn_is_rot90(monkeypatch):
  images, extents = noise(2, 12), np.full((2, 2), 12)
  monkeypatch.setattr(jax.random, 'uniform', lambda _, shape: jnp.ones(shape))
  options = STILL | {'rotate': 90.0}
  views = jax.jit(
    lambda k: augment.sample_views(k, images, extents, size=12, **options)
  )(keys(2))
  plain = images / np.float32(255)
  turns = [np.rot90(plain, k, axes=(1, 2)) for k in (1, 3)]
  assert min(np.abs(views - turn).max() for turn in turns) < 1e-4


def test_turns_reach_both_ways_and_no_further_than_asked():
  """The angle is read off the gradient of a ramp at the view's centre."""
  views = views_of(ramps(S, S), rotate=30.0)
  down = views[:, 42, 32] - views[:, 22, 32]
  angle = np.rad2deg(np.arctan2(down[:, 1], down[:, 0]))
  assert angle.min() < -24 and angle.max() > 24
  assert np.abs(angle).max() < 31


@pytest.mark.parametrize('square', [False, True])
@pytest.mark.parametrize('extent', [(20, 64), (64, 11), (1, 64), (7, 7)])
def test_samples_never_leave_the_extent(extent, square):
  images = np.full((N, S, S, 3), 255, np.uint8)
  images[:, : extent[0], : extent[1]] = (10, 20, 30)
  views = views_of(images, extent, square=square, area=(0.5, 1.0), rotate=180.0)
  inside = np.broadcast_to(np.array([10, 20, 30]) / 255, views.shape)
  np.testing.assert_allclose(views, inside, atol=1e-6)


def test_views_stay_in_range_under_every_jitter():
  views = views_of(
    noise(N, S),
    flip=True,
    rotate=180.0,
    brightness=0.9,
    contrast=0.9,
    saturation=0.9,
  )
  assert views.shape == (N, S, S, 3)
  assert views.min() >= 0.0 and views.max() <= 1.0
  assert len(np.unique(views.mean((1, 2, 3)))) == N


def test_brightness_multiplies_by_one_factor_per_view():
  images = np.full((N, S, S, 3), (40, 80, 120), np.uint8)
  factor = views_of(images, brightness=0.3) * 255 / np.array([40, 80, 120])
  assert np.ptp(factor, axis=(1, 2, 3)).max() < 1e-5
  factor = factor[:, 0, 0, 0]
  assert 0.7 <= factor.min() < 0.75 and 1.25 < factor.max() <= 1.3


def test_contrast_keeps_the_mean_grey_and_saturation_each_grey():
  luma = np.array([0.299, 0.587, 0.114])
  # Mid greys, so that nothing is clipped.
  images = np.uint8(96 + noise(N, S) // 4)
  plain = images / 255.0

  views = views_of(images, contrast=0.5)
  before, after = (plain @ luma).mean((1, 2)), (views @ luma).mean((1, 2))
  np.testing.assert_allclose(after, before, atol=1e-5)
  factor = (views @ luma).std((1, 2)) / (plain @ luma).std((1, 2))
  assert 0.5 <= factor.min() < 0.6 and 1.4 < factor.max() <= 1.5

  views = views_of(images, saturation=0.5)
  np.testing.assert_allclose(views @ luma, plain @ luma, atol=1e-5)
  chroma = (views - (views @ luma)[..., None]).std((1, 2, 3))
  chroma /= (plain - (plain @ luma)[..., None]).std((1, 2, 3))
  assert 0.5 <= chroma.min() < 0.6 and 1.4 < chroma.max() <= 1.5


def box_of(view):
  """The crop box, as shares of the extent, from a ramp's slopes: h, w, y, x."""
  red, green = view[..., 0], view[..., 1]
  n = view.shape[0]
  # Away from the border, where a ramp is flat for half a pixel.
  a, b = n // 4, 3 * n // 4
  height = (red[b, n // 2] - red[a, n // 2]) * n / (b - a)
  width = (green[n // 2, b] - green[n // 2, a]) * n / (b - a)
  middle = view[n // 2 - 1 : n // 2 + 1, n // 2 - 1 : n // 2 + 1].mean((0, 1))
  return height, width, middle[0], middle[1]


@pytest.mark.parametrize('square', [False, True])
@pytest.mark.parametrize('height,width', [(64, 64), (48, 64), (64, 48)])
def test_boxes_have_the_asked_area_and_aspect_and_fill_the_image(
  height, width, square
):
  views = np.concatenate(
    [
      views_of(
        ramps(height, width),
        (height, width),
        seed,
        square=square,
        area=(0.3, 0.8),
      )
      for seed in range(4)
    ]
  )
  h, w, y, x = np.array([box_of(view) for view in views]).T
  ratio = w / h * (1 if square else width / height)
  assert np.all((h * w > 0.28) & (h * w < 0.83))
  assert np.ptp(h * w) > 0.4
  assert np.all((ratio > 0.72) & (ratio < 1.38)) and np.ptp(ratio) > 0.4
  for centre, side in ((y, h), (x, w)):
    assert np.all(centre - side / 2 > -0.02)
    assert np.all(centre + side / 2 < 1.02)
    assert (centre - side / 2).min() < 0.05
    assert (centre + side / 2).max() > 0.95


def test_squares_squeeze_the_whole_image_where_crops_keep_its_proportions():
  images, extent = ramps(16, 64), (16, 64)
  h, w, _, _ = box_of(views_of(images, extent, square=True)[0])
  np.testing.assert_allclose((h, w), (1.0, 1.0), atol=0.03)
  h, w, _, _ = box_of(views_of(images, extent, square=False)[0])
  # The largest box of 4:3, the widest that is allowed, in an image of 4:1.
  np.testing.assert_allclose((h, w), (1.0, 1 / 3), atol=0.03)


def test_a_view_depends_on_its_own_key_alone():
  images, k = noise(6, 16), keys(6)

  @jax.jit
  def draw(k, x):
    views = augment.sample_views(k, x, jnp.full((len(x), 2), 16), size=16)
    views = augment.erase(k, views, jnp.ones(3))
    return augment.shuffle_patches(k, views)

  views = draw(k, images)
  order = np.array([4, 0, 5, 1, 1, 1])
  np.testing.assert_array_equal(draw(k[order], images[order]), views[order])
  np.testing.assert_array_equal(draw(k, images), views)
  assert not np.array_equal(draw(keys(6, seed=1), images), views)
  one = draw(k[2:3], images[2:3])
  np.testing.assert_allclose(one, views[2:3], atol=1e-6)


@pytest.mark.parametrize('shape', [(32, 32), (24, 40)])
def test_erase_paints_one_rectangle_of_the_asked_share(shape):
  n = 200
  images = jnp.zeros((n, *shape, 3))
  fill = jnp.array([0.2, 0.4, 0.6])
  erased = np.asarray(erase(keys(n), images, fill))
  painted = erased[..., 0] > 0
  np.testing.assert_allclose(erased[painted], np.tile(fill, (painted.sum(), 1)))
  np.testing.assert_array_equal(erased[~painted], 0.0)
  share = painted.mean((1, 2))
  # A side is rounded to whole pixels: half a pixel of the other side.
  slack = 0.5 / min(shape) + 1e-6
  assert np.all((share > 0.15 - slack) & (share < 0.45 + slack))
  assert share.min() < 0.18 and share.max() > 0.42
  h = painted.any(2).sum(1)
  w = painted.any(1).sum(1)
  np.testing.assert_array_equal(h * w, painted.sum((1, 2)))
  assert np.all((w / h > 0.25) & (w / h < 4.0))
  # Every row and column can be hit, those of the border included.
  assert painted.any((0, 1)).all() and painted.any((0, 2)).all()


def test_erase_leaves_the_rest_as_it_was():
  images = noise(4, 16) / np.float32(255)
  fill = np.array([2.0, 2.0, 2.0], np.float32)
  erased = np.asarray(erase(keys(4), images, fill))
  kept = erased[..., 0] != 2.0
  np.testing.assert_array_equal(erased[kept], images[kept])


@pytest.mark.parametrize('grid', [2, 3])
def test_shuffle_is_a_permutation_of_the_patches(grid):
  n, side = 60, 4 * grid
  images = np.random.default_rng(0).random((n, side, side, 3), np.float32)
  shuffled = np.asarray(shuffle_patches(keys(n), images, grid=grid))

  def patches(image):
    return [
      image[i : i + 4, j : j + 4]
      for i in range(0, side, 4)
      for j in range(0, side, 4)
    ]

  moves = []
  for image, result in zip(images, shuffled, strict=True):
    old = patches(image)
    move = [
      next(k for k, patch in enumerate(old) if np.array_equal(patch, new))
      for new in patches(result)
    ]
    assert sorted(move) == list(range(grid * grid))
    moves.append(tuple(move))
  assert len(set(moves)) > 15


def test_an_odd_view_cannot_be_shuffled_in_halves():
  with pytest.raises(UserError, match='25 x 25 .* divisible by 2'):
    shuffle_patches(keys(1), jnp.zeros((1, 25, 25, 3)))
