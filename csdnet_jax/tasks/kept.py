"""What a finished classifier keeps, so that it predicts without its images."""

from collections.abc import Mapping

import numpy as np

from csdnet_jax.data.images import splits
from csdnet_jax.evaluation import calibration, neighbours, predictions
from csdnet_jax.runtime import paths, writers
from csdnet_jax.runtime.terminal import say

# What is said of each image at the end of a run.
PREDICTIONS = {'test': 'predictions.csv', 'val': 'predictions_val.csv'}


def write(
  workdir: paths.Path,
  dataset: splits.Dataset,
  found: Mapping[str, Mapping[str, np.ndarray]],
  step: int,
) -> None:
  """Writes what is fitted to the images, and what is made of each.

  Says how the temperature was found, which may not be worth relying on.

  Args:
    workdir: gets the embeddings of the training images, the temperature that is
      fitted to the validation part, and the predictions of each held-out part.
    dataset: with its parts.
    found: of each part, `accuracy.outputs`.
    step: of the weights.
  """
  train = found['train']
  neighbours.write(
    workdir,
    neighbours.Embeddings(
      dataset.train.names, train['label'], train['embedding'], step
    ),
  )
  if val := found.get('val'):
    fitted = calibration.fit(val['logits'], val['label'], step)
    calibration.write(workdir, fitted)
    # Many runs may end in one program.
    say(f'{workdir}: {fitted.how}')
  known = read(workdir, step)
  for part in found.keys() - {'train'}:
    text = table(dataset, part, found[part], *known)
    writers.write_text(workdir / PREDICTIONS[part], text)


def read(
  workdir: paths.Path, step: int
) -> tuple[calibration.Calibration, neighbours.Embeddings | None]:
  """The temperature and the training embeddings of a step, as far as kept."""
  fitted, leaves = calibration.read(workdir), neighbours.read(workdir)
  if fitted is None or fitted.step != step:
    fitted = calibration.none(f'nothing was fitted at step {step}', step)
  return fitted, leaves if leaves and leaves.step == step else None


def table(
  dataset: splits.Dataset,
  part: str,
  found: Mapping[str, np.ndarray],
  fitted: calibration.Calibration,
  leaves: neighbours.Embeddings | None,
) -> str:
  """The table of what a network makes of a part, as CSV."""
  split = splits.parts_of(dataset)[part]
  rows = predictions.rows(
    split.names, split.labels, found, dataset.class_names,
    temperature=fitted.temperature, leaves=leaves,
  )  # fmt: skip
  return predictions.table(rows, dataset.class_names)
