"""Exact figures of a classification, from sums over batches and devices.

>>> import jax.numpy as jnp
>>> logits = jnp.array([[2.0, 1.0], [0.0, 3.0], [9.0, 0.0]])
>>> labels, mask = jnp.array([0, 0, 0]), jnp.array([True, True, False])
>>> sums = classification_sums(logits, labels, mask, 2)
>>> figures = classification_figures(sums)
>>> figures['n'], figures['top1'], figures['mean_per_class']
(2, 50.0, 50.0)
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def classification_sums(
  logits: jax.Array, labels: jax.Array, mask: jax.Array, classes: int
) -> dict[str, jax.Array]:
  """Counts of one batch; those of several batches or devices add up.

  Equal logits rank by class index, the lower first, as `argmax` does. A row
  with a NaN among its logits predicts nothing: it counts as an image and is
  never correct.

  Args:
    logits: [B, classes] floating.
    labels: [B] int32 in [0, classes) where `mask` is set, anything elsewhere.
    mask: [B] bool, False for the rows that only fill the batch.
    classes: the number of classes.

  Returns:
    top1, top5: [] int32, images whose label ranks first, and among the first
      min(5, classes).
    loss: [] float32, the sum of cross-entropies in nats.
    weight: [] int32, images.
    images, correct: [classes] int32, images of each label, and those of them
      whose label ranks first.

  Raises:
    ValueError: if the logits have another number of classes, when traced.
  """
  if logits.shape[-1] != classes:
    raise ValueError(
      f'The logits have {logits.shape[-1]} columns for {classes} classes.'
    )
  logits = logits.astype(jnp.float32)
  labels = jnp.where(mask, labels, 0)
  decided = mask & ~jnp.any(jnp.isnan(logits), axis=-1)
  own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
  earlier = jnp.arange(classes) < labels[:, None]
  ahead = (logits > own) | ((logits == own) & earlier)
  rank = jnp.sum(ahead, axis=-1)
  loss = jax.nn.logsumexp(logits, axis=-1) - own[:, 0]
  first = decided & (rank == 0)

  def count(rows):
    return jnp.sum(rows, dtype=jnp.int32)

  def of_labels(rows):
    return jnp.zeros((classes,), jnp.int32).at[labels].add(rows)

  return {
    'top1': count(first),
    'top5': count(decided & (rank < 5)),
    'loss': jnp.sum(jnp.where(mask, loss, 0.0)),
    'weight': count(mask),
    'images': of_labels(mask),
    'correct': of_labels(first),
  }


def classification_figures(sums: dict[str, Any]) -> dict[str, float]:
  """What is reported of the sums over a whole test set, on the host.

  Args:
    sums: what `classification_sums` returns, added over all batches.

  Returns:
    top1, top5: percent of the images.
    mean_per_class: percent correct of each class, averaged over the classes
      that have images (balanced accuracy).
    loss: mean cross-entropy in nats.
    n: number of images.

  Raises:
    ValueError: if there is no image.
  """
  n = int(sums['weight'])
  if n == 0:
    raise ValueError('No image was counted, so there is nothing to report.')
  images = np.asarray(sums['images'], np.int64)
  correct = np.asarray(sums['correct'], np.int64)
  present = images > 0
  return {
    'top1': 100.0 * int(sums['top1']) / n,
    'top5': 100.0 * int(sums['top5']) / n,
    'mean_per_class': 100.0
    * float(np.mean(correct[present] / images[present])),
    'loss': float(sums['loss']) / n,
    'n': n,
  }


def segmentation_sums(
  labels: np.ndarray, predictions: np.ndarray, classes: int
) -> np.ndarray:
  """Counts the pixels of one image or more, on the host; sums add up exactly.

  Args:
    labels: integers of any shape; pixels outside [0, classes), such as 255,
      are left out.
    predictions: integers in [0, classes), of the same shape.
    classes: C.

  Returns:
    int64 [C, C], pixels by label (row) and prediction.

  >>> segmentation_sums(np.array([0, 1, 255]), np.array([1, 1, 0]), 2)
  array([[0, 1],
         [0, 1]])
  """
  labels = np.asarray(labels, np.int64).ravel()
  predictions = np.asarray(predictions, np.int64).ravel()
  valid = (labels >= 0) & (labels < classes)
  pairs = classes * labels[valid] + predictions[valid]
  return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def segmentation_counts(confusion: np.ndarray) -> np.ndarray:
  """All that the figures need of a confusion matrix, and no more.

  Args:
    confusion: int64 [..., C, C], of `segmentation_sums`.

  Returns:
    int64 [..., 3, C]: of each class the pixels that are right, that have its
    label, and that are predicted.
  """
  right = np.diagonal(confusion, axis1=-2, axis2=-1)
  return np.stack([right, confusion.sum(-1), confusion.sum(-2)], axis=-2)


def segmentation_classes(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Intersection over union and accuracy of each class, in percent.

  Args:
    counts: int64 [..., 3, C], of `segmentation_counts`.

  Returns:
    float64 [..., C] each: right / (labelled + predicted - right + 1e-10), and
    right / (labelled + 1e-10), so that a class that never occurs has 0.
  """
  right, labelled, predicted = np.moveaxis(counts, -2, 0)
  union = labelled + predicted - right
  return 100 * right / (union + 1e-10), 100 * right / (labelled + 1e-10)


def segmentation_figures(counts: np.ndarray) -> dict[str, float]:
  """What is reported of the counts over a whole set, in percent.

  Args:
    counts: int64 [3, C], of `segmentation_counts`, added over the images.

  Returns:
    miou: the mean intersection over union of all C classes, the papers' figure:
      a class that the set lacks counts as 0.
    miou_present: the same over the classes that have a labelled pixel.
    macc: the mean accuracy of all C classes, likewise.
    pixel_accuracy: of all labelled pixels.

  Raises:
    ValueError: if no pixel is labelled.
  """
  right, labelled, _ = counts
  if not labelled.sum():
    raise ValueError('No pixel has a label, so there is nothing to report.')
  iou, accuracy = segmentation_classes(counts)
  return {
    'miou': float(iou.mean()),
    'miou_present': float(iou[labelled > 0].mean()),
    'macc': float(accuracy.mean()),
    'pixel_accuracy': 100.0 * int(right.sum()) / int(labelled.sum()),
  }
