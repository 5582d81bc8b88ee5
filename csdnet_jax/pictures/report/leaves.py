"""Class evidence over a few leaves: a right one, and the surest mistakes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from csdnet_jax.evaluation import evidence
from csdnet_jax.pictures.report import classes
from csdnet_jax.pictures.report.content import Leaf, Predictions

_MISTAKES = 4  # Of classes of their own.
_PASSES = evidence.CELLS**2 + 1  # Forward, of a leaf.
_SECONDS = 120.0  # Of all leaves.


def choose(found: Predictions) -> list[tuple[int, int, int]]:
  """Returns (row, chosen, rival) of a few leaves.

  Of the leaf that is most surely right, its class against the second; of the
  most sure mistakes, of different classes, what they were taken for against
  what they are.

  Args:
    found: n leaves of two classes or more.
  """
  guesses = classes.predicted(found.probabilities)
  sure = np.argsort(-found.probabilities.max(axis=1), kind='stable')
  sure = sure[guesses[sure] >= 0]
  right = guesses == found.labels
  shown = []
  for row in sure[right[sure]][:1].tolist():
    first, second = np.argsort(-found.logits[row], kind='stable')[:2].tolist()
    shown.append((row, first, second))
  mistaken = {}
  for row in sure[~right[sure]].tolist():
    mistaken.setdefault(int(found.labels[row]), row)
  for label, row in list(mistaken.items())[:_MISTAKES]:
    shown.append((row, int(guesses[row]), label))
  return shown


def too_many(records: Sequence[Mapping[str, Any]]) -> str:
  """Returns why a network is too large here for evidence, '' if it is not.

  A leaf takes 65 forward passes, and a training image about as long as three
  or more: five leaves may take two minutes by that.

  Args:
    records: of `metrics.jsonl`; without training the features were made of
      every image, which took about as long.
  """
  rates = [r['images_per_s'] for r in records if r.get('images_per_s')]
  seconds = _PASSES / (3 * rates[-1]) if rates else 0.0
  if seconds * (_MISTAKES + 1) <= _SECONDS:
    return ''
  return (
    'Not drawn, since with this network on this device a leaf would take about '
    f'{seconds:.0f} seconds; csdnet app draws it of single leaves.'
  )


def drawn(
  records: Sequence[Mapping[str, Any]],
  predict: Callable,
  weights: Any,
  found: Predictions,
  view: Callable,
  note: str | None = None,
) -> dict[str, Any]:
  """Returns `leaves` and `evidence` of a report's `Content`.

  Args:
    records: as for `too_many`.
    predict: and the next three, as for `of`.
    weights: likewise.
    found: likewise.
    view: likewise.
    note: what is said of the leaves, where they are drawn.
  """
  if why := too_many(records):
    return {'leaves': None, 'evidence': why}
  return {'leaves': of(predict, weights, found, view), 'evidence': note}


def of(
  predict: Callable, weights: Any, found: Predictions, view: Callable
) -> list[Leaf]:
  """Returns the leaves of `choose` with their evidence.

  Args:
    predict: a method's.
    weights: its (params, model_state).
    found: what it makes of n leaves.
    view: `row -> uint8 [S, S, 3]`, what the network sees of a leaf.
  """
  if found.logits.shape[1] < 2:
    return []  # There is no rival.
  places = jax.jit(evidence.places, static_argnums=0)
  leaves = []
  for row, chosen, rival in choose(found):
    image = np.asarray(view(row))
    # One at a time: it fits wherever the network can be trained.
    pair = np.array([chosen]), np.array([rival])
    (speaks,) = jax.device_get(places(predict, *weights, image[None], *pair))
    label = int(found.labels[row])
    leaves.append(Leaf(found.names[row], label, chosen, rival, image, speaks))
  return leaves
