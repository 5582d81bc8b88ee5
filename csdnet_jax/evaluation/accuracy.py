"""Exact classification accuracy over a whole part of a data set."""

import csv
import io
from typing import NamedTuple

import jax
import numpy as np

from csdnet_jax import sharding
from csdnet_jax.data.batches import one_behind
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


def evaluate(step, state, batches, labels: np.ndarray) -> Result:
  """Sums `step(state, batch)` over the batches.

  Args:
    step: the compiled evaluation step.
    state: the train state.
    batches: of the whole part in order, rows that fill up the last masked.
    labels: of the part, int32 [n], which need not come back from the devices.
  """

  def found():
    first = 0
    # One fetch a batch keeps memory flat.
    for sums, outputs in one_behind(step(state, batch) for batch in batches):
      logits = sharding.fetch_rows(outputs['logits'])
      own = labels[first : first + len(logits)]
      first += len(own)
      mask = np.ones(len(own), bool)
      yield jax.device_get(sums), logits[: len(own)], own, mask

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


def outputs(step, state, batches, labels) -> dict[str, np.ndarray]:
  """Returns what the network makes of every image, padding left out.

  Args:
    step: and the others, as for `evaluate`.

  Returns:
    `logits` [n, classes], `embedding` [n, C] and `label` [n].
  """
  names = 'logits', 'embedding'
  rows = [
    [sharding.fetch_rows(found[name]) for name in names]
    for _, found in one_behind(step(state, batch) for batch in batches)
  ]
  columns = zip(names, zip(*rows, strict=True), strict=True)
  found = {name: np.concatenate(x)[: len(labels)] for name, x in columns}
  return found | {'label': labels}


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
