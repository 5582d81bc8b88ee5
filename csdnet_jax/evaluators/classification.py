"""Exact classification accuracy over a whole part of a data set."""

import csv
import io

import jax
import numpy as np

from csdnet_jax import metrics, paths, sharding, writers


def evaluate(step, state, batches) -> tuple[dict[str, float], np.ndarray]:
  """Sums `step(state, batch)` over the batches.

  Args:
    step: the compiled evaluation step.
    state: the train state.
    batches: of the whole part, padded rows masked.

  Returns:
    'top1', 'top5', 'mean_per_class' in percent, 'loss' in nats and 'n' images;
    and the confusion matrix [classes, classes], rows the labels.
  """
  total = None
  for batch in batches:
    # Summed on the host in 64 bits; one fetch a batch keeps memory flat.
    sums = jax.device_get(step(state, batch)[0])
    sums = jax.tree.map(lambda x: np.asarray(x, np.float64), sums)
    total = sums if total is None else jax.tree.map(np.add, total, sums)
  confusion = total['confusion'].astype(np.int64)
  return metrics.classification_figures(total), confusion


def embed(step, state, batches) -> tuple[np.ndarray, np.ndarray]:
  """Returns every row's embedding [n, C] and label [n], padding left out.

  Args:
    step: the compiled evaluation step.
    state: the train state.
    batches: of the whole part, padded rows masked.
  """
  rows = []
  for batch in batches:
    row = step(state, batch)[1], batch['label'], batch['mask']
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
