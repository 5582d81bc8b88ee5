"""Nearest neighbours by cosine."""

import numpy as np

_ROWS = 1024  # Queries at a time: all cosines at once would be n x m.


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
