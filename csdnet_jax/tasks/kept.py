"""What a finished classifier keeps, so that it predicts without its images."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from csdnet_jax.data.images import splits
from csdnet_jax.evaluation import (
  calibration,
  neighbours,
  predictions,
  unknown,
)
from csdnet_jax.runtime import paths, writers
from csdnet_jax.runtime.terminal import say

# What is said of each image at the end of a run.
PREDICTIONS = {'test': 'predictions.csv', 'val': 'predictions_val.csv'}


class Kept(NamedTuple):
  """What weights are used with.

  Attributes:
    fitted: the temperature of their probabilities.
    leaves: the embeddings of the training images, or None.
    refusal: how leaves of none of the classes are told.
  """

  fitted: calibration.Calibration
  leaves: neighbours.Embeddings | None
  refusal: unknown.Unknown


def write(
  workdir: paths.Path,
  dataset: splits.Dataset,
  found: Mapping[str, Mapping[str, np.ndarray]],
  step: int,
) -> None:
  """Writes what is fitted to the images, and what is made of each.

  Says how the temperature and the threshold of "none of these" were found,
  which may not be worth relying on.

  Args:
    workdir: gets the embeddings of the training images, the temperature and the
      threshold that are fitted to the validation part, and the predictions of
      each held-out part.
    dataset: with its parts.
    found: of each part, `accuracy.outputs`.
    step: of the weights.
  """
  train = found['train']
  leaves = neighbours.Embeddings(
    dataset.train.names, train['label'], train['embedding'], step
  )
  neighbours.write(workdir, leaves)
  if val := found.get('val'):
    fitted = calibration.fit(val['logits'], val['label'], step)
    calibration.write(workdir, fitted)
    refusal = unknown.fit(unknown.score(val, leaves), step)
    unknown.write(workdir, refusal)
    # Many runs may end in one program.
    say(f'{workdir}: {fitted.how} {refusal.how}')
  known = read(workdir, step)
  for part in found.keys() - {'train'}:
    text = table(dataset, part, found[part], known)
    writers.write_text(workdir / PREDICTIONS[part], text)


def read(workdir: paths.Path, step: int) -> Kept:
  """What a workdir keeps of the weights of a step, as far as it does.

  Raises:
    UserError: if a file cannot be read.
  """
  fitted, leaves = calibration.read(workdir), neighbours.read(workdir)
  if fitted is None or fitted.step != step:
    fitted = calibration.none(f'nothing was fitted at step {step}', step)
  if leaves and leaves.step != step:
    leaves = None
  refusal = unknown.read(workdir)
  if refusal is None or refusal.step != step:
    refusal = unknown.none(f'since none was found at step {step}', step)
  elif leaves is None and refusal.threshold is not None:
    refusal = unknown.none('for want of the training embeddings', step)
  return Kept(fitted, leaves, refusal)


def table(
  dataset: splits.Dataset,
  part: str,
  found: Mapping[str, np.ndarray],
  known: Kept,
) -> str:
  """The table of what a network makes of a part, as CSV."""
  split = splits.parts_of(dataset)[part]
  refused = None
  if known.refusal.threshold is not None:
    refused = unknown.refused(unknown.score(found, known.leaves), known.refusal)
  rows = predictions.rows(
    split.names, split.labels, found, dataset.class_names,
    temperature=known.fitted.temperature, leaves=known.leaves, refused=refused,
  )  # fmt: skip
  return predictions.table(rows, dataset.class_names)
