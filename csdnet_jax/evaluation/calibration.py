"""Probabilities that mean what they say: one temperature for all logits."""

import numpy as np

_BOUNDS = 1e-2, 1e2


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


def _log_softmax(logits, temperature):
  from scipy import special

  return special.log_softmax(np.asarray(logits, np.float64) / temperature, -1)
