"""Nearest neighbours by cosine, and what a run keeps to find them."""

from typing import NamedTuple

import numpy as np

from csdnet_jax.runtime import archives, paths

FILE = 'embeddings.npz'
_ROWS = 1024  # Queries at a time: all cosines at once would be n x m.


class Embeddings(NamedTuple):
  """Of the n training images of a run, as in a workdir's `embeddings.npz`.

  Attributes:
    names: the path of each in its data set.
    labels: int32 [n].
    vectors: float32 [n, C], before the head.
    step: the optimiser steps of the weights.
  """

  names: tuple[str, ...]
  labels: np.ndarray
  vectors: np.ndarray
  step: int


def nearest(
  queries: np.ndarray,
  keys: np.ndarray,
  k: int,
  *,
  leave_out: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """The k keys with the highest cosine to each query.

    >>> keys = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    >>> rows, cosine = nearest(np.array([[3.0, 0.0]]), keys, 2)
    >>> rows.tolist(), cosine.round(3).tolist()
    ([[0, 2]], [[1.0, 0.707]])

  Args:
    queries: [n, C].
    keys: [m, C], m >= k.
    k: how many.
    leave_out: [n] integer, the key that each query may not find (itself).

  Returns:
    Rows of `keys`, [n, k] integer, and cosines in [-1, 1], [n, k] float64, in
    descending order; of equal ones the earlier key first. A zero vector has the
    cosine 0 to all.
  """
  from sklearn.preprocessing import normalize

  keys = normalize(np.asarray(keys, np.float64))
  found = [(np.zeros((0, k), int), np.zeros((0, k)))]
  for start in range(0, len(queries), _ROWS):
    part = slice(start, start + _ROWS)
    cosine = normalize(np.asarray(queries[part], np.float64)) @ keys.T
    if leave_out is not None:
      cosine[np.arange(len(cosine)), leave_out[part]] = -np.inf
    # NearestNeighbors of scikit-learn selects by argpartition: which of equal
    # keys it finds, and in which order, is undefined there.
    rows = np.argsort(-cosine, axis=1, kind='stable')[:, :k]
    found.append((rows, np.take_along_axis(cosine, rows, axis=1)))
  rows, cosines = zip(*found, strict=True)
  return np.concatenate(rows), np.concatenate(cosines)


def distances(
  vectors: np.ndarray, known: Embeddings
) -> tuple[list[str], np.ndarray]:
  """The nearest training image of each vector.

  Args:
    vectors: [m, C].
    known: the training images.

  Returns:
    Its name, and 1 - cosine, in [0, 2], [m] float64.
  """
  # What is not finite is near to nothing.
  finite = map(np.nan_to_num, (vectors, known.vectors))
  rows, cosines = nearest(*finite, 1)
  names = [known.names[row] for row in rows[:, 0]]
  return names, np.clip(1 - cosines[:, 0], 0, 2)


def read(workdir: paths.Path) -> Embeddings | None:
  """Returns what a workdir keeps, whatever its step; None if nothing.

  Raises:
    UserError: if the file cannot be read.
  """
  path = workdir / FILE
  if not path.exists():
    return None
  return archives.read(
    path,
    lambda file: Embeddings(
      tuple(file['names'].tolist()), file['labels'], file['vectors'],
      int(file['step']),
    ),
    'remove it, and the training images are embedded again.',
  )  # fmt: skip


def write(workdir: paths.Path, made: Embeddings) -> None:
  """Keeps them in a workdir."""
  arrays = made._asdict() | {'names': np.array(made.names)}
  archives.write(workdir / FILE, arrays)
