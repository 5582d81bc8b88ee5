"""The table of what a run makes of images: `predictions.csv`.

path                     of the image
label                    its class, by name, where it is known
none_of_these            whether it is of none of the classes, 'yes' or 'no';
                         empty where the run has no threshold
class_1, probability_1   the likeliest class, and so on to the fifth
nearest, distance        the training image whose embedding is nearest, and
                         1 - cosine; empty where the run has none
"""

from collections.abc import Iterable, Sequence

import numpy as np

from csdnet_jax.evaluation import calibration, neighbours
from csdnet_jax.runtime import writers

_TOP = 5


def top(scores: np.ndarray, k: int) -> np.ndarray:
  """Returns the k highest classes [n, k], descending; ties to the lower.

  Args:
    scores: [n, classes], logits or probabilities.
    k: at most the number of classes.
  """
  return np.argsort(-scores, axis=-1, kind='stable')[:, :k]


def rows(
  names: Sequence[str],
  labels: np.ndarray,
  outputs: dict[str, np.ndarray],
  class_names: Sequence[str],
  *,
  temperature: float = 1.0,
  leaves: neighbours.Embeddings | None = None,
  refused: np.ndarray | None = None,
) -> list[list[str]]:
  """Returns a row for each image; without a class where a logit is NaN.

  Args:
    names: of n images.
    labels: [n] integer, -1 where unknown.
    outputs: `logits` [n, classes] and `embedding` [n, C].
    class_names: of each class.
    temperature: T of the probabilities, softmax(logits / T).
    leaves: the training images.
    refused: bool [n], which are of none of the classes, or None.
  """
  logits, k, found = outputs['logits'], min(_TOP, len(class_names)), []
  near, far, none = ([''] * len(names) for _ in range(3))
  if refused is not None:
    none = ['yes' if x else 'no' for x in refused]
  if leaves is not None:
    near, distances = neighbours.distances(outputs['embedding'], leaves)
    far = [f'{distance:.6f}' for distance in distances]
  # Ranked by the logits, since probabilities may be equal where these are not.
  ranked, p = top(logits, k), calibration.softmax(logits, temperature)
  for i, name in enumerate(names):
    label = class_names[labels[i]] if labels[i] >= 0 else ''
    pairs = [(class_names[c], f'{p[i, c]:.6f}') for c in ranked[i]]
    if np.isnan(logits[i]).any():
      pairs = [('', '')] * k
    found.append([name, label, none[i], *sum(pairs, ()), near[i], far[i]])
  return found


def table(rows: Iterable[list[str]], class_names: Sequence[str]) -> str:
  """Returns the table of `rows` as CSV.

  Args:
    rows: of all images.
    class_names: of each class.
  """
  k = min(_TOP, len(class_names))
  pairs = [(f'class_{i}', f'probability_{i}') for i in range(1, k + 1)]
  first, last = ['path', 'label', 'none_of_these'], ['nearest', 'distance']
  return writers.csv_text([[*first, *sum(pairs, ()), *last], *rows])
