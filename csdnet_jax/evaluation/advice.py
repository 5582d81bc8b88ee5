"""What would help a classifier most: more pictures, and of which classes."""

import math
from collections.abc import Mapping

import numpy as np

from csdnet_jax.evaluation import probes

_DRAWS = 3
# Points: of a difference that is worth a sentence.
_MUCH, _LITTLE = 10.0, 2.0
_NAMED = 3  # Classes that a sentence names.


def learning_curve(x, labels, folds, *, seed: int = 0) -> dict[int, float]:
  """Returns the top-1 of class means by training pictures of a class.

  Each fold is judged by `probes.prototypes` of at most m pictures of a class
  out of the other folds, drawn three times.

  Args:
    x: float [n, C], embeddings.
    labels: integer [n].
    folds: integer [n], as for `growth_of`.
    seed: of the draws.

  Returns:
    {m: percent of the tested pictures}: m = 1 to 5, doubled from there, and
    the most that half of the tested pictures have of their class in the other
    folds. Beyond, smaller classes would keep all they have, and the curve
    would be flat whatever more pictures bring.
  """
  x, labels, folds = map(np.asarray, (x, labels, folds))
  rng = np.random.default_rng(seed)
  parts = [(folds != f, folds == f) for f in range(folds.max() + 1)]
  most = _most(labels, parts)
  steps = sorted({*range(1, 6), *(5 * 2**i for i in range(1, 30)), most})
  return {
    m: sum(
      probes.prototypes(x[few], labels[few], x[test], labels[test])
      * float(test.sum() / (folds >= 0).sum())
      / _DRAWS
      for train, test in parts
      if train.any()
      for few in (_at_most(rng, labels, train, m) for _ in range(_DRAWS))
    )
    for m in steps
    if 0 < m <= most
  }


def _most(labels: np.ndarray, parts) -> int:
  """The most training pictures of their class that half of the tested have."""
  own = np.concatenate([
    np.bincount(labels[train], minlength=labels.max() + 1)[labels[test]]
    for train, test in parts
  ])  # fmt: skip
  return int(np.sort(own)[::-1][math.ceil(len(own) / 2) - 1])


def _at_most(rng, labels, train, m: int) -> np.ndarray:
  """Rows of a part, m of a class, or all where it has no more."""
  rows = rng.permutation(np.flatnonzero(train))
  rows = rows[np.argsort(labels[rows], kind='stable')]
  ordered = labels[rows]
  return rows[np.arange(len(rows)) - np.searchsorted(ordered, ordered) < m]


def advice(
  right, labels, class_names, curve: Mapping[int, float], *, pictures=None,
  undecided: bool = False,
) -> str:  # fmt: skip
  """Returns what would help most, in a sentence.

  Args:
    right: bool [n], of the chosen candidate.
    labels: integer [n].
    class_names: by label.
    curve: of `learning_curve`.
    pictures: integer [classes], of each class in the folder; those of `labels`
      where None.
    undecided: of `comparison.undecided`, of the chosen candidate.
  """
  right, labels = np.asarray(right, np.float64), np.asarray(labels)
  classes = len(class_names)
  tested = np.bincount(labels, minlength=classes)
  hits = np.bincount(labels, weights=right, minlength=classes)
  pictures = tested if pictures is None else np.asarray(pictures)
  if undecided:
    return 'More pictures of every class are needed to tell.'
  if right.all():
    return 'Every picture is named right; more would only narrow the interval.'
  if said := _of_few(hits, tested, pictures, class_names):
    return said
  if not curve:
    return 'More pictures of every class are needed to say more.'
  reached = ', '.join(f'{value:.0f}' for value in curve.values())
  counts = ', '.join(map(str, curve))
  figures = (
    f'class means of frozen features name {reached} % right with {counts} '
    f'training picture{"s" if max(curve) > 1 else ""} a class.'
  )
  if len(curve) < 2:
    return f'More pictures of every class would tell most: {figures}'
  if _last_doubling(curve) >= _LITTLE:
    return f'More pictures of every class would help most: {figures}'
  return f'More pictures of the same kind would help little: {figures}'


def _of_few(hits, tested, pictures, class_names) -> str:
  """The advice on classes of few pictures, '' if they do no worse."""
  known = pictures[tested > 0]
  # The third of the classes with the fewest pictures, and that with the most.
  few_at, many_at = np.quantile(known, (1 / 3, 2 / 3), method='nearest')
  few_at = min(few_at, known.max() - 1)
  few = (pictures <= few_at) & (tested > 0)
  many = (pictures >= max(many_at, few_at + 1)) & (tested > 0)
  if not few.any():
    return ''
  few_right, many_right = (
    100 * hits[part].sum() / tested[part].sum() for part in (few, many)
  )
  if many_right - few_right < _MUCH:
    return ''
  worst = np.flatnonzero(few)
  worst = worst[
    np.argsort((hits / np.maximum(tested, 1))[worst], kind='stable')
  ]
  names = ', '.join(str(class_names[i]) for i in worst[:_NAMED])
  names += ', ...' if len(worst) > _NAMED else ''
  fewest, top = int(pictures[few].min()), int(pictures[few].max())
  spread = f'{fewest} to {top} pictures' if fewest < top else _count(top)
  of = (
    'this class' if len(worst) == 1 else f'each of these {len(worst)} classes'
  )
  return (
    f'More pictures of {of} would help most ({names}): classes with {spread} '
    f'are named right in {few_right:.0f} %, those with {pictures[many].min()} '
    f'or more in {many_right:.0f} %.'
  )


def _count(n: int) -> str:
  return '1 picture' if n == 1 else f'{n} pictures'


def _last_doubling(curve: Mapping[int, float]) -> float:
  """What the curve gains where the pictures were doubled last, in points."""
  last = max(curve)
  before = max((m for m in curve if 2 * m <= last), default=min(curve))
  return (curve[last] - curve[before]) / math.log2(last / before)
