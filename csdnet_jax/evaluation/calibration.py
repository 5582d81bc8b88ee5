"""Probabilities that mean what they say: one temperature for all logits."""

import json
from typing import NamedTuple

import numpy as np

from csdnet_jax.runtime import paths, writers
from csdnet_jax.runtime.errors import UserError

FILE = 'calibration.json'
_BOUNDS = 1e-2, 1e2


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


def softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
  """Returns softmax(logits / T) over the last axis, float32.

  Args:
    logits: [n, classes].
    temperature: T > 0; above 1 it makes the probabilities more even.
  """
  return np.exp(_log_softmax(logits, temperature)).astype(np.float32)


def nll(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
  """Returns the mean of -log softmax(logits / T)[label], in nats.

  Args:
    logits: [n, classes].
    labels: [n] integer.
    temperature: T > 0.
  """
  rows = np.arange(len(labels))
  return float(-np.mean(_log_softmax(logits, temperature)[rows, labels]))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
  """Returns the T that minimises the negative log-likelihood.

  Temperature scaling: Guo et al., On Calibration of Modern Neural Networks,
  ICML 2017, section 4.2. The minimum over log T is the only one, since the
  likelihood is concave in 1 / T. It changes no prediction.

    >>> logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1]])
    >>> T = fit_temperature(logits, np.array([0, 0, 0, 1]))  # 3 of 4 are right.
    >>> softmax(logits, T)[0].round(3).tolist()
    [0.75, 0.25]

  Args:
    logits: [n, classes].
    labels: [n] integer, not those that the network was trained on.

  Returns:
    T in [0.01, 100], or None if it has no minimum: where every label has the
    highest logit, a lower T is always better.
  """
  from scipy import optimize

  rows = np.arange(len(labels))
  if np.all(logits[rows, labels] >= logits.max(axis=-1)):
    return None
  found = optimize.minimize_scalar(
    lambda x: nll(logits, labels, np.exp(x)),
    bounds=np.log(_BOUNDS),
    method='bounded',
    options={'xatol': 1e-6},
  )
  return float(np.exp(found.x))


class Reliability(NamedTuple):
  """How often the likeliest class is right, by how probable it was said to be.

  Attributes:
    counts: int [bins], images of each bin of confidence; the bins cut [0, 1]
      evenly.
    confidence: float [bins], the mean highest probability, in [0, 1]; NaN in a
      bin without images.
    right: float [bins], the share that is right, likewise.
    error: the expected calibration error, the mean over images of
      |right - confidence| of their bin, in [0, 1]; NaN without images.
  """

  counts: np.ndarray
  confidence: np.ndarray
  right: np.ndarray
  error: float


def reliability(
  probabilities: np.ndarray, labels: np.ndarray, bins: int = 10
) -> Reliability:
  """Compares confidence with accuracy (Guo et al., 2017, section 2).

  They take 15 bins of thousands of images; ten are our choice for hundreds.

    >>> p = np.array([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65]])
    >>> found = reliability(p, np.array([0, 1, 1]))
    >>> found.counts.tolist(), round(found.error, 3)
    ([0, 0, 0, 0, 0, 0, 1, 0, 2, 0], 0.383)

  Args:
    probabilities: [n, classes]; rows with a NaN are left out.
    labels: [n] integer.
    bins: how many.
  """
  known = ~np.isnan(probabilities).any(axis=-1)
  p, labels = np.asarray(probabilities, np.float64)[known], labels[known]
  highest, right = p.max(axis=-1), p.argmax(axis=-1) == labels
  # (a, b] as they have it; rounding can leave 1 by a hair.
  place = np.clip(np.ceil(highest * bins) - 1, 0, bins - 1).astype(int)
  counts, sure, good = (
    np.bincount(place, weights, bins) for weights in (None, highest, right)
  )
  with np.errstate(invalid='ignore'):
    error = np.sum(np.abs(good - sure)) / np.float64(len(labels))
    return Reliability(counts, sure / counts, good / counts, float(error))


def none(why: str, step: int) -> Calibration:
  """Returns that of weights to which nothing is fitted.

  Args:
    why: nothing is; ends the sentence's first half.
    step: the optimiser steps of the weights.
  """
  how = (
    f'Not calibrated (T = 1), {why}: the probabilities may be too sure; train '
    'with --config.data.val_fraction=0.2 to have them calibrated.'
  )
  return Calibration(1.0, how, step)


def fit(
  logits: np.ndarray,
  labels: np.ndarray,
  step: int,
  what: str = 'validation images',
) -> Calibration:
  """Returns the calibration of weights by images that they have not seen.

  Args:
    logits: [n, classes].
    labels: [n] integer.
    step: the optimiser steps of the weights.
    what: the images are.
  """
  n, before = len(labels), nll(logits, labels, 1.0)
  t = fit_temperature(logits, labels)
  if t is None:
    how = (
      f'Not calibrated (T = 1): all {n} {what} are right, which fits no '
      'temperature; more of them may.'
    )
    return Calibration(1.0, how, step, n, before, before)
  after = nll(logits, labels, t)
  how = (
    f'Temperature {t:.3f}, fitted on {n} {what} (negative '
    f'log-likelihood {before:.3f} -> {after:.3f} nats).'
  )
  for bound in _BOUNDS:
    if np.isclose(t, bound, rtol=1e-2):
      how += (
        f' It is at its bound, {bound:g}: the {what} are too few or '
        'too poorly told apart to fit one, so do not rely on the probabilities.'
      )
  return Calibration(t, how, step, n, before, after)


def read(workdir: paths.Path) -> Calibration | None:
  """Returns what a workdir keeps, whatever its step; None if nothing.

  Raises:
    UserError: if the file cannot be read.
  """
  path = workdir / FILE
  if not path.exists():
    return None
  try:
    return Calibration(**json.loads(paths.read_bytes(path)))
  except (OSError, TypeError, ValueError) as error:
    raise UserError(
      f'{path} cannot be read ({error}); remove it, and the temperature is '
      'fitted again.'
    ) from error


def write(workdir: paths.Path, made: Calibration) -> None:
  """Keeps it in a workdir."""
  writers.write_json(workdir / FILE, made._asdict())


def _log_softmax(logits, temperature):
  from scipy import special

  return special.log_softmax(np.asarray(logits, np.float64) / temperature, -1)
