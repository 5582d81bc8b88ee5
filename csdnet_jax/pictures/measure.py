"""What the pictures show, computed from plain arrays."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from csdnet_jax.data.batches import spread


class Pair(NamedTuple):
  """Two classes that are taken for each other.

  Attributes:
    first: the label whose images are mistaken more often.
    second: the other label.
    there: images of `first` taken for `second`.
    back: images of `second` taken for `first`.
  """

  first: int
  second: int
  there: int
  back: int


def most_confused(confusion: np.ndarray, n: int) -> list[Pair]:
  """The pairs of classes with most images taken for the other, most first.

    >>> most_confused(np.array([[5, 1, 0], [3, 4, 0], [0, 1, 7]]), 2)
    [Pair(first=1, second=0, there=3, back=1), \
Pair(first=2, second=1, there=1, back=0)]

  Args:
    confusion: integer [classes, classes], rows the labels.
    n: pairs at most; those without any such image are left out.

  Returns:
    The pairs; equal ones in the order of their smaller label, then the other.
  """
  both = np.triu(confusion + confusion.T, 1)
  a, b = np.nonzero(both)
  order = np.argsort(-both[a, b], kind='stable')[:n]
  pairs = []
  for i, j in zip(a[order].tolist(), b[order].tolist(), strict=True):
    there, back = int(confusion[i, j]), int(confusion[j, i])
    pairs.append(
      Pair(i, j, there, back) if there >= back else Pair(j, i, back, there)
    )
  return pairs


def confused_leaves(
  pairs: Sequence[Pair], labels: np.ndarray, predicted: np.ndarray
) -> list[list[int]]:
  """Which leaves to put side by side for each pair.

  Args:
    pairs: of classes.
    labels: integer [n].
    predicted: integer [n].

  Returns:
    For each pair up to four rows of `labels`, up to two of the first class and
    then up to two of the second; those taken for the other come first.
  """

  def leaves(own, other):
    rows = np.flatnonzero(labels == own)
    mistaken = predicted[rows] == other
    return rows[np.argsort(~mistaken, kind='stable')][:2].tolist()

  return [leaves(p.first, p.second) + leaves(p.second, p.first) for p in pairs]


def key_ages(ptr: int, count: int, size: int, per_step: int) -> np.ndarray:
  """How many steps ago each key of a ring buffer was pushed.

  The last step wrote the `per_step` slots before `ptr`, the one before it
  those before them: slot s holds a key of ((ptr - 1 - s) mod K) // per_step
  steps ago.

    >>> key_ages(ptr=1, count=5, size=5, per_step=2)
    array([0, 2, 1, 1, 0])

  Args:
    ptr: the slot that is written next.
    count: filled slots, the first ones.
    size: K, of the buffer.
    per_step: keys pushed at each step, at most K.

  Returns:
    int [count]; 0 are the keys of the last step.
  """
  return (ptr - 1 - np.arange(count)) % size // per_step


def choose_rows(
  labels: np.ndarray, classes: Sequence[int], n: int
) -> np.ndarray:
  """Up to n rows, spread evenly: of the named classes first, then of the rest.

  Args:
    labels: integer [m].
    classes: labels whose rows matter most; they get half of n at least.
    n: rows at most.

  Returns:
    Sorted rows, int [min(n, m)].
  """
  wanted = np.isin(labels, classes)
  first, rest = np.flatnonzero(wanted), np.flatnonzero(~wanted)
  first = first[spread(len(first), max(n // 2, n - len(rest)))]
  rest = rest[spread(len(rest), n - len(first))]
  return np.sort(np.concatenate([first, rest]))


def tsne(embeddings: np.ndarray) -> np.ndarray | None:
  """Places embeddings in the plane by t-SNE (van der Maaten and Hinton, 2008).

  Distances are Euclidean between directions x / |x|, which order pairs as the
  cosine does; perplexity 30, or a third of the rows where those are fewer.

  Args:
    embeddings: float [n, C].

  Returns:
    float [n, 2], the same at every call; None where there are fewer than five
    rows or they are all in one place.
  """
  from sklearn.manifold import TSNE
  from sklearn.preprocessing import normalize

  x = normalize(np.asarray(embeddings, np.float64))
  n = len(x)
  if n < 5 or np.allclose(x, x[0]):
    return None
  # Of a few hundred rows the exact method is quick, and one thread suffices.
  return TSNE(
    perplexity=min(30.0, (n - 1) / 3), method='exact', random_state=0
  ).fit_transform(x)
