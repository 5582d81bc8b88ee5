"""What a finished run keeps beside its weights, else made from its images."""

import numpy as np
from absl import logging

from csdnet_jax import methods
from csdnet_jax.evaluation import calibration, neighbours, unknown
from csdnet_jax.evaluation.calibration import Calibration
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import say


def calibrate(run) -> Calibration:
  """Returns the temperature of a run, from its `calibration.json` or fitted.

  It is fitted when training ends, on the run's validation part and on nothing
  else. Of other weights than those of the end, and of a run that has not ended,
  it is fitted here, where the pictures are there; else it is 1 and `how` says
  so.

  Args:
    run: a `TrainedRun`.

  Raises:
    UserError: if the file cannot be read.
  """
  known = calibration.read(run.workdir)
  if known and known.step == run.step:
    return known
  if methods.task(run.config) == 'segmentation':
    how = 'Not calibrated (T = 1): segmentation is not.'
    return Calibration(1.0, how, run.step)
  if not run.has_part('val'):
    return calibration.none('without a validation part', run.step)
  try:
    outputs, labels = run.validation
  except UserError as error:
    how = (
      'Not calibrated (T = 1), for want of validation images, so the '
      f'probabilities may be too sure: {error}'
    )
    return Calibration(1.0, how, run.step)
  made = calibration.fit(outputs['logits'], labels, run.step)
  # What was fitted at the end is not lost for an earlier state.
  if known is None or known.step < run.step:
    _keep(calibration, run, made)
  return made


def refusal(run) -> unknown.Unknown:
  """Returns how a run tells leaves of no known class, kept or found.

  Found as `calibrate` does, on the run's validation part and on nothing else,
  where it has enough images; else there is no threshold and `how` says so.

  Args:
    run: a `TrainedRun`.

  Raises:
    UserError: if the file cannot be read.
  """
  known = unknown.read(run.workdir)
  if known and known.step == run.step:
    if known.threshold is None or run.leaves is not None:
      return known
    return unknown.none('for want of the training embeddings', run.step)
  if methods.task(run.config) == 'segmentation':
    return unknown.none('which segmentation has not', run.step)
  if not run.has_part('val'):
    why = 'without a validation part (--config.data.val_fraction=0.2 makes one)'
    return unknown.none(why, run.step)
  try:
    outputs, labels = run.validation
  except UserError as error:
    return unknown.none(f'for want of validation images, {error}', run.step)
  n = len(labels)
  if n < unknown.LEAST:
    return unknown.none('from so few', run.step, n)
  if run.leaves is None:
    return unknown.none('for want of the training embeddings', run.step, n)
  made = unknown.fit(unknown.score(outputs, run.leaves), run.step)
  if known is None or known.step < run.step:
    _keep(unknown, run, made)
  return made


def validation(run) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """What a run makes of its validation part, and the labels of that.

  Raises:
    UserError: if not all of it can be read.
  """
  val, problems = run.part('val'), []
  parts = [x for _, x in run.outputs(val, problems)]
  if problems:
    raise UserError('; '.join(problems))
  names = ('logits', 'embedding')
  return {k: np.concatenate([x[k] for x in parts]) for k in names}, val.labels


def without_paths(made: Calibration) -> str:
  """Returns how it was found, for whom the paths of this machine are not."""
  if made.n:
    return made.how
  return 'Not calibrated (T = 1): the probabilities may be too sure.'


def training_embeddings(run) -> neighbours.Embeddings | None:
  """Returns the embeddings of a run's training images, kept or made; says so.

  None, and said, where they are not kept and the images are not there.

  Args:
    run: a `TrainedRun`.

  Raises:
    UserError: if the file cannot be read.
  """
  known = neighbours.read(run.workdir)
  if known and known.step == run.step:
    return known
  why = f'The run keeps no embeddings of its training images at step {run.step}'
  try:
    train, problems = run.part('train'), []
    say(f'{why}: they are made now.')
    found = list(run.outputs(train, problems))
  except UserError as error:
    say(f'{why}, so no distances to them are given: {error}')
    return None
  rows = np.concatenate([rows for rows, _ in found])
  made = neighbours.Embeddings(
    tuple(train.names[i] for i in rows), train.labels[rows],
    np.concatenate([x['embedding'] for _, x in found]), run.step,
  )  # fmt: skip
  if not problems and (known is None or known.step < run.step):
    _keep(neighbours, run, made)
  return made


def _keep(file, run, made) -> None:
  try:
    file.write(run.workdir, made)
  except OSError as error:
    logging.warning(
      '%s cannot be kept (%s).', run.workdir / file.FILE, error.strerror
    )
