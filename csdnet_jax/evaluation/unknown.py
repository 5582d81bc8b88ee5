"""None of these: leaves of classes that were not trained on.

One score says how little a leaf is like the known classes, the cosine distance
to the nearest training leaf; it was chosen among four, once, on grape58 (see
experiments/unknown.py and docs/evidence.md). The held-out leaves of the known
classes say above which threshold a leaf is refused.
"""

import json
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from csdnet_jax.evaluation import neighbours
from csdnet_jax.runtime import paths, writers
from csdnet_jax.runtime.errors import UserError

FILE = 'unknown.json'
SCORE = 'nearest'
# Of the known leaves, so many may be refused.
LEVEL = 0.05
# Held-out leaves: of fewer, the threshold is all but their highest score.
LEAST = 40


class Unknown(NamedTuple):
  """How leaves of no known class are told, as in a workdir's `unknown.json`.

  Attributes:
    score: the name of the score that the threshold is of.
    threshold: a leaf with a higher score is refused; None where there is none.
    how: it was found, or why there is none, in a sentence.
    step: the optimiser steps of the weights.
    n: held-out leaves of known classes that it was found with.
    level: the highest probability with which a known leaf is refused.
    auroc: of leaves of classes left out on purpose, see `auroc`, or None.
    refused: the share of these that is refused, in [0, 1], or None.
    refused_known: likewise, of the held-out leaves of the other classes.
  """

  score: str
  threshold: float | None
  how: str
  step: int
  n: int = 0
  level: float = LEVEL
  auroc: float | None = None
  refused: float | None = None
  refused_known: float | None = None


def score(
  outputs: Mapping[str, np.ndarray], leaves: neighbours.Embeddings
) -> np.ndarray:
  """Returns how little each image is like the known classes, float64 [n].

  It is 1 - cosine to the nearest training embedding, in [0, 2]: Sun et al.,
  Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022, with
  k = 1. It is infinite where a logit or the embedding is not finite: of such an
  image nothing is known, and no class may be named with confidence.

  Args:
    outputs: `logits` [n, classes] and `embedding` [n, C].
    leaves: the training images.
  """
  _, distances = neighbours.distances(outputs['embedding'], leaves)
  finite = [
    np.isfinite(outputs[name]).all(-1) for name in ('logits', 'embedding')
  ]
  return np.where(np.logical_and(*finite), distances, np.inf)


def threshold(scores: np.ndarray, level: float = LEVEL) -> float | None:
  """Returns the score above which a leaf is refused.

  It is the ceil((n + 1) (1 - level))-th smallest of n scores. A further leaf
  like these, exchangeable with them, has a higher one with a probability of at
  most `level`, whatever the distribution: split conformal prediction (Vovk,
  Gammerman and Shafer, Algorithmic Learning in a Random World, 2005).

    >>> threshold(np.arange(1, 100))  # The 95th of 99.
    95.0

  Args:
    scores: [n], of held-out leaves of known classes.
    level: in (0, 1).

  Returns:
    None for n < 40 (our choice), for fewer than 1 / level - 1, and where the
    score of that rank is not finite: nothing could be refused then.
  """
  n = len(scores)
  # 1 - 0.05 is no binary fraction: 19.000000000000004 is the rank 19.
  rank = math.ceil(round((n + 1) * (1 - level), 9))
  if n < LEAST or rank > n:
    return None
  found = float(np.sort(np.where(np.isnan(scores), np.inf, scores))[rank - 1])
  return found if math.isfinite(found) else None


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
  """Returns the probability that an unknown leaf has the higher score.

  The area under the receiver operating characteristic, by ranks (Mann and
  Whitney); ties count half, and not a number is as high as can be.

    >>> auroc(np.array([0.1, 0.2]), np.array([0.2, 0.3]))
    0.875

  Args:
    known: scores of held-out leaves of known classes, [n], n > 0.
    unknown: of leaves of other classes, [m], m > 0.
  """
  from scipy import stats

  both = np.concatenate([known, unknown]).astype(np.float64)
  ranks = stats.rankdata(np.where(np.isnan(both), np.inf, both))
  n, m = len(known), len(unknown)
  return float((ranks[n:].sum() - m * (m + 1) / 2) / (n * m))


def none(why: str, step: int, n: int = 0) -> Unknown:
  """Returns that of weights that have no threshold.

  Args:
    why: there is none; ends the sentence's first half.
    step: the optimiser steps of the weights.
    n: held-out leaves of known classes that there are.
  """
  how = (
    f'No threshold for "none of these", {why} ({n} held-out leaves of known '
    f'classes; {LEAST} are needed): a leaf of another class gets a name too.'
  )
  return Unknown(SCORE, None, how, step, n)


def fit(
  scores: np.ndarray,
  step: int,
  *,
  left_out: Mapping[str, float | None] | None = None,
) -> Unknown:
  """Returns the threshold of weights by held-out leaves of known classes.

  Args:
    scores: `score` of each, [n].
    step: the optimiser steps of the weights.
    left_out: `auroc`, `refused` and `refused_known` of `Unknown`, where classes
      were left out on purpose.
  """
  n, found = len(scores), threshold(scores)
  if found is None:
    few = 'from so few' if n < LEAST else 'whose scores are not finite'
    made = none(few, step, n)
  else:
    how = (
      'A leaf is taken for "none of these" where 1 - cosine to the nearest '
      f'training leaf is above {found:.4f}, by {n} held-out leaves of known '
      f'classes: at most {100 * LEVEL:g} % of the leaves of these classes are '
      'refused.'
    )
    made = Unknown(SCORE, found, how, step, n)
  if not left_out:
    return made._replace(
      how=f'{made.how} How leaves of other classes fare was not measured.'
    )
  measured = 'auroc', 'refused', 'refused_known'
  made = made._replace(**{name: left_out[name] for name in measured})
  also = ''
  if made.threshold is not None:
    also = (
      f'; {100 * made.refused:.0f} % of them were refused, and '
      f'{100 * made.refused_known:.0f} % of the others'
    )
  return made._replace(
    how=f'{made.how} Leaves of classes left out on purpose are told from the '
    f'others with AUROC {made.auroc:.2f} (0.50 is chance){also}.'
  )


def refused(scores: np.ndarray, made: Unknown) -> np.ndarray | None:
  """Returns which leaves are of none of the classes, bool [n].

  Args:
    scores: `score` of each, [n].
    made: how they are told.

  Returns:
    None where there is no threshold.
  """
  return None if made.threshold is None else ~(scores <= made.threshold)


def read(workdir: paths.Path) -> Unknown | None:
  """Returns what a workdir keeps, whatever its step; None if nothing.

  Raises:
    UserError: if the file cannot be read, or is of another score.
  """
  path = workdir / FILE
  if not path.exists():
    return None
  try:
    made = Unknown(**json.loads(paths.read_bytes(path)))
    if made.score != SCORE:
      raise ValueError(f'its score is {made.score!r}, not {SCORE!r}')
    limit = made.threshold
    if limit is not None and not math.isfinite(limit):
      raise ValueError(f'its threshold is {limit}')
  except (OSError, TypeError, ValueError) as error:
    raise UserError(
      f'{path} cannot be read ({error}); remove it, and the same command finds '
      'the threshold again where images were held out.'
    ) from error
  return made


def write(workdir: paths.Path, made: Unknown) -> None:
  """Keeps it in a workdir."""
  writers.write_json(workdir / FILE, made._asdict())
