"""Sliding windows, counts and figures, against slow loops in NumPy."""

import csv
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from csdnet_jax import sharding
from csdnet_jax.data import augment
from csdnet_jax.data.masks import pairs
from csdnet_jax.evaluation import metrics, windows
from csdnet_jax.runtime.errors import UserError

C, S = 4, 17


def part(sizes, seed=0):
  """Noise with random masks, one pair of each size."""
  rng = np.random.default_rng(seed)
  pixels, starts, at = [], [], 0
  for h, w in sizes:
    image = rng.integers(0, 256, (h, w, 3), np.uint8)
    mask = rng.integers(0, C + 1, (h, w), np.uint8)
    mask[mask == C] = 255
    pixels += [image.ravel(), mask.ravel()]
    starts.append(at)
    at += 4 * h * w
  extents = np.array(sizes, np.int32)
  return pairs.Prepared(
    np.concatenate(pixels), np.array(starts), extents, extents, None
  )


def weights(seed=0):
  """Of colours, and of the place in a window: mirroring must be undone."""
  rng = np.random.default_rng(seed)
  return rng.normal(0, 4, (3, C)), rng.normal(0, 1, (S, S, C))


def forward(weights, images):
  colours, places = weights
  return jnp.tanh(images @ jnp.asarray(colours, jnp.float32)) + places


def evaluate(forward, weights, prepared, *, classes=C, size=S, **options):
  how = {k: options.pop(k) for k in windows.Windows._fields if k in options}
  return windows.evaluate(
    forward, weights, prepared, windows.Windows(size, **how), classes=classes,
    **options,
  )  # fmt: skip


def loop_resize(image, height, width):
  """Half-pixel bilinear, pixel by pixel."""
  h, w = image.shape[:2]
  out = np.zeros((height, width, image.shape[2]))
  for i in range(height):
    for j in range(width):
      y = min(max((i + 0.5) * h / height - 0.5, 0), h - 1)
      x = min(max((j + 0.5) * w / width - 0.5, 0), w - 1)
      y0, x0 = int(y), int(x)
      y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
      fy, fx = y - y0, x - x0
      out[i, j] = (1 - fy) * ((1 - fx) * image[y0, x0] + fx * image[y0, x1])
      out[i, j] += fy * ((1 - fx) * image[y1, x0] + fx * image[y1, x1])
  return out


def loop_scale(weights, image, long, flip):
  """The probabilities of an image [h, w, 3] at one scale, [h, w, C]."""
  h, w = image.shape[:2]
  if h > w:
    new_h, new_w = long, round(long / h * w)
  else:
    new_h, new_w = round(long / w * h), long
  resized = loop_resize(image / 255, new_h, new_w)
  pad_h, pad_w = max(S - new_h, 0), max(S - new_w, 0)
  top, left = pad_h // 2, pad_w // 2
  padded = np.tile(np.float64(augment.MEAN), (new_h + pad_h, new_w + pad_w, 1))
  padded[top : top + new_h, left : left + new_w] = resized
  stride = math.ceil(S * 2 / 3)
  sums = np.zeros((*padded.shape[:2], C))
  counts = np.zeros((*padded.shape[:2], 1))
  for i in range(math.ceil((padded.shape[0] - S) / stride) + 1):
    for j in range(math.ceil((padded.shape[1] - S) / stride) + 1):
      end_y = min(i * stride + S, padded.shape[0])
      end_x = min(j * stride + S, padded.shape[1])
      at = (slice(end_y - S, end_y), slice(end_x - S, end_x))
      views = [padded[at], padded[at][:, ::-1]] if flip else [padded[at]]
      for k, view in enumerate(views):
        z = np.tanh(view @ weights[0]) + weights[1]
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        sums[at] += (p[:, ::-1] if k else p) / len(views)
      counts[at] += 1
  assert counts.min() > 0
  mean = (sums / counts)[top : top + new_h, left : left + new_w]
  return loop_resize(mean, h, w)


@pytest.mark.parametrize(
  'sizes,options,longs',
  [
    ([(40, 53)], {}, [53]),
    ([(40, 53)], {'flip': False}, [53]),
    ([(12, 30), (30, 12), (17, 17), (9, 11)], {'base_size': 24}, [24]),
    (
      [(30, 40), (25, 31)],
      {'base_size': 40, 'scales': (0.5, 1.0, 1.75)},
      [20, 40, 70],
    ),
    ([(40, 60)], {'resize': 20}, [30]),
  ],
)
def test_windows_are_those_of_a_slow_loop(sizes, options, longs):
  prepared, w = part(sizes), weights()
  options = {'batch': 3, 'flip': True} | options
  result = evaluate(forward, w, prepared, keep=range(len(sizes)), **options)
  confusion = np.zeros((C, C), int)
  for i in range(len(sizes)):
    image, mask = prepared.image(i), prepared.mask(i)
    p = sum(loop_scale(w, image, long, options['flip']) for long in longs)
    first, second = np.sort(p, -1)[..., -1], np.sort(p, -1)[..., -2]
    clear = first - second > 1e-5  # Not what rounding decides.
    assert clear.mean() > 0.99
    predicted = result.predictions[i]
    assert predicted.dtype == np.uint8 and predicted.shape == mask.shape
    np.testing.assert_array_equal(predicted[clear], p.argmax(-1)[clear])
    own = np.zeros((C, C), int)
    for label, guess in zip(mask.ravel(), predicted.ravel(), strict=True):
      if label != 255:
        own[label, guess] += 1
    confusion += own
    np.testing.assert_array_equal(
      result.counts[i], [own.diagonal(), own.sum(1), own.sum(0)]
    )
  np.testing.assert_array_equal(result.confusion, confusion)
  assert result.confusion.dtype == result.counts.dtype == np.int64
  iou = []
  for c in range(C):
    right = confusion[c, c]
    union = confusion[c].sum() + confusion[:, c].sum() - right
    iou.append(100 * right / (union + 1e-10))
  assert result.figures['miou'] == pytest.approx(np.mean(iou), abs=1e-9)
  assert result.figures['n'] == len(sizes)


def test_cityscapes_and_ade20k_have_the_windows_of_the_papers():
  starts = windows.window_starts
  assert len(starts(1024, 713)) * len(starts(2048, 713)) == 8
  assert starts(2048, 713)[:2] == [0, 476]
  assert starts(512, 473) == [0, 39]
  assert starts(473, 473) == [0]


def test_the_result_depends_on_no_batch_size_and_on_no_other_image():
  prepared = part([(40, 53), (20, 30), (30, 20)])
  options = {'base_size': 36}
  one, many = (
    evaluate(forward, weights(), prepared, batch=b, keep=range(3), **options)
    for b in (1, 7)
  )
  alone = evaluate(
    forward, weights(), prepared, batch=4, rows=[2], keep=[2], **options
  )
  np.testing.assert_array_equal(one.counts, many.counts)
  np.testing.assert_array_equal(alone.predictions[2], many.predictions[2])
  np.testing.assert_array_equal(alone.counts[0], many.counts[2])
  assert alone.figures['n'] == 1 and alone.rows.tolist() == [2]
  none = evaluate(forward, weights(), prepared, batch=4, rows=[], **options)
  assert none.figures == {'n': 0} and none.counts.shape == (0, 3, C)
  assert none.confusion.sum() == 0


def test_coarse_logits_are_enlarged_with_aligned_corners():
  corners = np.zeros((2, 2, C), np.float32)
  corners[0, 0, 1] = corners[1, 1, 2] = 2.0

  def coarse(weights, images):
    return jnp.tile(jnp.asarray(corners), (len(images), 1, 1, 1))

  prepared = part([(S, S)])
  result = evaluate(coarse, (), prepared, batch=1, flip=False, keep=[0])
  predicted = result.predictions[0]
  middle = (S - 1) // 2
  assert predicted[0, 0] == 1 and predicted[-1, -1] == 2
  assert predicted[middle - 1, middle] == 1
  assert predicted[middle + 1, middle] == 2


def test_a_network_gone_wrong_is_a_sentence():
  def broken(weights, images):
    return forward(weights, images) * jnp.nan

  with pytest.raises(UserError, match='not finite'):
    evaluate(broken, weights(), part([(20, 20)]), batch=2)


def test_masks_without_labels_are_a_sentence():
  prepared = part([(20, 20)])
  prepared.pixels[3 * 400 :] = 255
  with pytest.raises(UserError, match='labelled pixel'):
    evaluate(forward, weights(), prepared, batch=2)


def test_figures_of_a_set_that_lacks_a_class():
  """Class 2 has no pixel, and is predicted once; class 3 has neither."""
  labels = np.array([0, 0, 0, 1, 255])
  guesses = np.array([0, 0, 2, 1, 1])
  confusion = metrics.segmentation_sums(labels, guesses, 4)
  assert confusion.sum() == 4
  counts = metrics.segmentation_counts(confusion)
  figures = metrics.segmentation_figures(counts)
  assert figures['miou'] == pytest.approx(100 * (2 / 3 + 1) / 4)
  assert figures['miou_present'] == pytest.approx(100 * (2 / 3 + 1) / 2)
  assert figures['macc'] == pytest.approx(100 * (2 / 3 + 1) / 4)
  assert figures['pixel_accuracy'] == 75.0


def test_counts_of_images_add_up_to_those_of_the_set():
  rng = np.random.default_rng(0)
  labels, guesses = rng.integers(0, 5, (2, 3, 9, 8))
  each = np.stack(
    [
      metrics.segmentation_sums(a, b, 5)
      for a, b in zip(labels, guesses, strict=True)
    ]
  )
  whole = metrics.segmentation_sums(labels, guesses, 5)
  np.testing.assert_array_equal(each.sum(0), whole)
  np.testing.assert_array_equal(
    metrics.segmentation_counts(each).sum(0), metrics.segmentation_counts(whole)
  )


def test_figures_of_nothing_are_refused():
  with pytest.raises(ValueError, match='No pixel'):
    metrics.segmentation_figures(np.zeros((3, 4), np.int64))


def test_the_table_of_the_classes_is_a_csv_file(tmp_path):
  confusion = np.array([[6, 2], [0, 8]])
  counts = metrics.segmentation_counts(confusion)
  names = ['road, wet', 'sky']
  windows.write_classes(tmp_path / 'classes.csv', names, counts)
  with open(tmp_path / 'classes.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['class'] for row in rows] == names
  assert float(rows[0]['iou']) == 75.0 and float(rows[1]['iou']) == 80.0
  assert float(rows[0]['accuracy']) == 75.0 and rows[0]['labelled'] == '8'
  assert rows[1]['predicted'] == '10'


def test_several_devices_may_share_the_windows():
  mesh = sharding.make_mesh(jax.devices()[:4])
  rows = NamedSharding(mesh, sharding.ROWS)

  def spread_out(weights, images):
    return forward(weights, jax.lax.with_sharding_constraint(images, rows))

  prepared = part([(40, 53), (20, 30)])
  options = {'batch': 4}
  one = evaluate(forward, weights(), prepared, **options)
  placed = jax.device_put(
    jax.tree.map(np.float32, weights()),
    NamedSharding(mesh, sharding.REPLICATED),
  )
  many = evaluate(spread_out, placed, prepared, **options)
  np.testing.assert_array_equal(one.counts, many.counts)
