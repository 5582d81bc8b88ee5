"""Exact classification accuracy over a whole part of a data set."""

import csv
import io
from typing import NamedTuple

import jax
import numpy as np

from csdnet_jax import sharding
from csdnet_jax.evaluation import metrics
from csdnet_jax.runtime import paths, writers


class Result(NamedTuple):
  """What an evaluation found.

  Attributes:
    figures: 'top1', 'top5', 'mean_per_class' in percent, 'loss' in nats and
      'n' images.
    confusion: int64 [classes, classes], rows the labels.
    predictions: of each of the n images, in order, 'label' and 'prediction'
      int32 [n] (-1 where a logit is NaN) and 'top5' bool [n], whether the label
      is among the first five.
  """

  figures: dict[str, float]
  confusion: np.ndarray
  predictions: dict[str, np.ndarray]


def evaluate(step, state, batches) -> Result:
  """Sums `step(state, batch)` over the batches.

  Args:
    step: the compiled evaluation step.
    state: the train state.
    batches: of the whole part, padded rows masked.
  """
  total, rows = None, []
  for batch in batches:
    # Summed on the host in 64 bits; one fetch a batch keeps memory flat.
    sums, outputs = step(state, batch)
    row = outputs['logits'], batch['label'], batch['mask']
    rows.append(_predictions(*map(sharding.fetch_rows, row)))
    sums = jax.device_get(sums)
    sums = jax.tree.map(lambda x: np.asarray(x, np.float64), sums)
    total = sums if total is None else jax.tree.map(np.add, total, sums)
  predictions = {
    name: np.concatenate([row[name] for row in rows]) for name in rows[0]
  }
  # Here, since a matrix of thousands of classes is too much for each batch.
  confusion = np.zeros((len(total['images']),) * 2, np.int64)
  label, predicted = predictions['label'], predictions['prediction']
  decided = predicted >= 0
  np.add.at(confusion, (label[decided], predicted[decided]), 1)
  return Result(metrics.classification_figures(total), confusion, predictions)


def _predictions(logits, labels, mask) -> dict[str, np.ndarray]:
  """What `evaluate` says of each image; ties rank as in `metrics`."""
  logits, labels = logits[mask].astype(np.float32), labels[mask]
  decided = ~np.isnan(logits).any(-1)
  first = np.argsort(-logits, axis=-1, kind='stable')[:, :5]
  hit = (first == labels[:, None]).any(-1)
  return {
    'label': labels.astype(np.int32),
    'prediction': np.where(decided, first[:, 0], -1).astype(np.int32),
    'top5': decided & hit,
  }


def embed(step, state, batches) -> tuple[np.ndarray, np.ndarray]:
  """Returns every row's embedding [n, C] and label [n], padding left out.

  Args:
    step: the compiled evaluation step.
    state: the train state.
    batches: of the whole part, padded rows masked.
  """
  rows = []
  for batch in batches:
    outputs = step(state, batch)[1]
    row = outputs['embedding'], batch['label'], batch['mask']
    x, y, mask = map(sharding.fetch_rows, row)
    rows.append((x[mask], y[mask]))
  x, y = zip(*rows, strict=True)
  return np.concatenate(x), np.concatenate(y)


def write_confusion(
  path: paths.Path, confusion: np.ndarray, class_names
) -> None:
  """Writes the confusion matrix as CSV with the names on both sides."""
  text = io.StringIO(newline='')
  rows = csv.writer(text)
  rows.writerow(['label \\ predicted', *class_names])
  for name, row in zip(class_names, confusion, strict=True):
    rows.writerow([name, *row.tolist()])
  writers.write_text(path, text.getvalue())


def read_confusion(path: paths.Path) -> np.ndarray:
  """Returns the matrix that `write_confusion` wrote, int [classes, classes]."""
  _, *rows = csv.reader(io.StringIO(path.read_text(encoding='utf-8')))
  return np.array([[int(x) for x in row[1:]] for row in rows])


def write_predictions(
  path: paths.Path, names, predictions: dict[str, np.ndarray]
) -> None:
  """Writes a row for each image: its name, label, prediction, top-5 hit.

  Args:
    path: of the CSV file, with columns `image,label,prediction,top5`.
    names: of the n images, in the order of the predictions.
    predictions: of `evaluate`.
  """
  text = io.StringIO(newline='')
  rows = csv.writer(text)
  rows.writerow(['image', 'label', 'prediction', 'top5'])
  columns = (predictions[name] for name in ('label', 'prediction', 'top5'))
  for name, label, prediction, top5 in zip(names, *columns, strict=True):
    rows.writerow([name, label, prediction, int(top5)])
  writers.write_text(path, text.getvalue())
