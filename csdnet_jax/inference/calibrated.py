"""The temperature of a run: kept in its workdir, else fitted and kept there."""

import json
from typing import NamedTuple

import numpy as np
from absl import logging

from csdnet_jax import methods
from csdnet_jax.evaluation import calibration
from csdnet_jax.runtime import writers
from csdnet_jax.runtime.errors import UserError


class Calibration(NamedTuple):
  """How the probabilities were made, as in a workdir's `calibration.json`.

  Attributes:
    temperature: T > 0, by which the logits are divided.
    how: it was found, or why it is 1, in a sentence.
    step: the optimiser steps of the weights.
    n: validation images that it was fitted on.
    nll_before: their mean negative log-likelihood at T = 1, in nats, or None.
    nll: the same at T.
  """

  temperature: float
  how: str
  step: int
  n: int = 0
  nll_before: float | None = None
  nll: float | None = None


def calibrate(run) -> Calibration:
  """Returns the temperature of a run, from its `calibration.json` or fitted.

  It is fitted on the run's validation part and on nothing else; without one, or
  where its pictures cannot be read, it is 1 and `how` says so.

  Args:
    run: a `TrainedRun`.

  Raises:
    UserError: if the file cannot be read.
  """
  path = run.workdir / 'calibration.json'
  if path.exists():
    try:
      known = Calibration(**json.loads(path.read_text(encoding='utf-8')))
    except (TypeError, ValueError) as error:
      raise UserError(
        f'{path} cannot be read ({error}); remove it, and the temperature is '
        'fitted again.'
      ) from error
    if known.step == run.step:
      return known
  if methods.task(run.config) == 'segmentation':
    return _none('segmentation is not.', run.step)
  if not run.has_part('val'):
    return _none(
      'the run has no validation part (config.data.val_fraction is 0).',
      run.step,
    )
  try:
    val, problems = run.part('val'), []
    logits = [x['logits'] for _, x in run.outputs(val, problems)]
    if problems:
      raise UserError('; '.join(problems))
  except UserError as error:
    how = f'Not calibrated (T = 1), for want of validation images: {error}'
    return Calibration(1.0, how, run.step)
  made = _fit(np.concatenate(logits), val.labels, run.step)
  try:
    writers.write_json(path, made._asdict())
  except OSError as error:
    logging.warning('%s cannot be kept (%s).', path, error.strerror)
  return made


def _none(why: str, step: int) -> Calibration:
  return Calibration(1.0, f'Not calibrated (T = 1): {why}', step)


def _fit(logits, labels, step) -> Calibration:
  n, before = len(labels), calibration.nll(logits, labels, 1.0)
  t = calibration.fit_temperature(logits, labels)
  if t is None:
    how = (
      f'Not calibrated (T = 1): all {n} validation images are right, which '
      'fits no temperature.'
    )
    return Calibration(1.0, how, step, n, before, before)
  after = calibration.nll(logits, labels, t)
  how = (
    f'Temperature {t:.3f}, fitted on {n} validation images (negative '
    f'log-likelihood {before:.3f} -> {after:.3f} nats).'
  )
  return Calibration(t, how, step, n, before, after)
