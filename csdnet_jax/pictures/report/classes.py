"""The classes of a report: their order, their mistakes, their pictures."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Optimal leaf ordering takes the cube of the classes.
_ORDERED = 400


class Class(NamedTuple):
  """One class, as its held-out pictures show it.

  Attributes:
    label: of it.
    n: its pictures.
    right: rows of those that are named right, the surest first.
    wrong: rows of the others, the surest mistakes first.
    taken_for: (label, times), what they were taken for, the most often first.
  """

  label: int
  n: int
  right: list[int]
  wrong: list[int]
  taken_for: list[tuple[int, int]]


def predicted(scores: np.ndarray) -> np.ndarray:
  """Returns the likeliest class [n] of scores [n, classes]; -1 where NaN is."""
  undecided = np.isnan(scores).any(axis=1)
  return np.where(undecided, -1, np.argmax(scores, axis=1))


def confusion(labels: np.ndarray, guesses: np.ndarray, n: int) -> np.ndarray:
  """Returns int [n, n], rows the labels; -1 among the guesses is left out."""
  matrix = np.zeros((n, n), int)
  decided = guesses >= 0
  np.add.at(matrix, (labels[decided], guesses[decided]), 1)
  return matrix


def order(matrix: np.ndarray) -> np.ndarray:
  """An order of the classes in which those that are confused lie together.

  Average linkage of the classes that are in any mistake, two being as near as
  the mean share of their pictures that is taken for the other, its leaves in
  the optimal order (Bar-Joseph et al., 2001); then the other classes.

    >>> matrix = np.diag([4, 4, 4, 4])
    >>> matrix[0, 3] = matrix[3, 0] = 2
    >>> order(matrix).tolist()
    [0, 3, 1, 2]

  Args:
    matrix: integer [n, n], rows the labels.

  Returns:
    The labels, each once, [n].
  """
  from scipy.cluster import hierarchy
  from scipy.spatial import distance

  share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
  alike = (share + share.T) / 2
  np.fill_diagonal(alike, 0)
  mixed = alike.any(axis=1)
  first, rest = np.flatnonzero(mixed), np.flatnonzero(~mixed)
  if len(first) > 2:
    apart = 1 - alike[np.ix_(first, first)]
    np.fill_diagonal(apart, 0)
    tree = hierarchy.linkage(
      distance.squareform(apart, checks=False), 'average',
      optimal_ordering=len(first) <= _ORDERED,
    )  # fmt: skip
    first = first[hierarchy.leaves_list(tree)]
  return np.concatenate([first, rest])


def of(
  labels: np.ndarray, probabilities: np.ndarray, ordered: Sequence[int]
) -> list[Class]:
  """Returns the classes in an order; one may have no picture.

  Args:
    labels: int [n].
    probabilities: float [n, classes].
    ordered: labels.
  """
  guesses, highest = predicted(probabilities), probabilities.max(axis=1)
  found = []
  for label in ordered:
    rows = np.flatnonzero(labels == label)
    rows = rows[np.argsort(-highest[rows], kind='stable')]
    good = guesses[rows] == label
    others, times = np.unique(guesses[rows[~good]], return_counts=True)
    most = np.argsort(-times, kind='stable')
    taken_for = [(int(others[i]), int(times[i])) for i in most]
    found.append(
      Class(
        int(label), len(rows), rows[good].tolist(), rows[~good].tolist(),
        taken_for,
      )
    )  # fmt: skip
  return found
