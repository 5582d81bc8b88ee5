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
    confusion: int64 [classes, classes], rows the labels; without images that
      have a NaN for a logit.
  """

  figures: dict[str, float]
  confusion: np.ndarray


def evaluate(step, state, batches) -> Result:
  """Sums `step(state, batch)` over the batches.

  Args:
    step: the compiled evaluation step.
    state: the train state.
    batches: of the whole part, padded rows masked.
  """

  def found():
    for batch in batches:
      # One fetch a batch keeps memory flat.
      sums, outputs = step(state, batch)
      row = outputs['logits'], batch['label'], batch['mask']
      yield jax.device_get(sums), *map(sharding.fetch_rows, row)

  return collect(found())


def collect(batches) -> Result:
  """Adds up what was found of each batch of a whole part.

  Args:
    batches: of `(sums, logits, label, mask)` on the host, as of
      `metrics.classification_sums`.
  """
  total, rows = None, []
  for sums, *row in batches:
    rows.append(_decided(*row))
    # In 64 bits.
    sums = jax.tree.map(lambda x: np.asarray(x, np.float64), sums)
    total = sums if total is None else jax.tree.map(np.add, total, sums)
  # Here, since a matrix of thousands of classes is too much for each batch.
  confusion = np.zeros((len(total['images']),) * 2, np.int64)
  np.add.at(confusion, tuple(np.concatenate(rows, axis=1)), 1)
  return Result(metrics.classification_figures(total), confusion)


def _decided(logits, labels, mask) -> np.ndarray:
  """Labels and predictions [2, n]; ties rank as in `metrics`."""
  mask = mask & ~np.isnan(logits).any(-1)
  return np.stack([labels[mask], logits[mask].argmax(-1)])


def outputs(step, state, batches) -> dict[str, np.ndarray]:
  """Returns what the network makes of every image, padding left out.

  Args:
    step: the compiled evaluation step.
    state: the train state.
    batches: of the whole part, padded rows masked.

  Returns:
    `logits` [n, classes], `embedding` [n, C] and `label` [n].
  """
  rows = []
  for batch in batches:
    found = step(state, batch)[1]
    row = {name: found[name] for name in ('logits', 'embedding')}
    row = jax.tree.map(sharding.fetch_rows, row | {'label': batch['label']})
    mask = sharding.fetch_rows(batch['mask'])
    rows.append({name: x[mask] for name, x in row.items()})
  return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


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
