"""How well a leaf of a class that was never seen is told: measured, not hoped.

A fifth of the classes is left out of the training, and their images are shown
beside held-out images of the others.
"""

import pathlib

import numpy as np

from csdnet_jax.data.images import draw, splits
from csdnet_jax.evaluation import comparison, unknown
from csdnet_jax.runtime import archives
from csdnet_jax.runtime.terminal import say
from csdnet_jax.training.verdict import candidates
from csdnet_jax.training.verdict.plan import Plan

_PARTS = 5


def measure(
  plan: Plan, name: str, x: np.ndarray, score, folder: pathlib.Path
) -> dict | None:
  """Measures the chosen candidate on classes that it has not seen.

  A head on frozen features is fitted anew in each fold, and each fold leaves
  out other classes; of a candidate that is trained there is one training more,
  on the images of the first fold.

  Args:
    plan: of the verdict.
    name: of the candidate.
    x: frozen embeddings [n, C] of the images of the folds.
    score: [m] of all that the folds held out, by which the final model's
      threshold is set.
    folder: for the training.

  Returns:
    {'auroc', 'refused' and 'refused_known' the shares of images of unknown and
    of known classes above the threshold, None where there is none, 'known' and
    'unknown' images, 'classes' left out}; {} where there are too few classes or
    images to leave some out; None if it was told to stop.
  """
  if len(plan.dataset.class_names) < 3:
    return {}
  if name in comparison.FROZEN:
    parts = [_of_head(plan, name, x, k) for k in range(plan.k)]
    known, others = (np.concatenate(part) for part in zip(*parts, strict=True))
    left = len(set().union(*(_left_out(plan, k) for k in range(plan.k))))
  else:
    scores = _of_training(plan, name, folder / 'unknown')
    if scores is None:
      return None
    (known, others), left = scores, len(_left_out(plan, 0))
  if not (len(known) and len(others)):
    return {}
  limit = unknown.threshold(score)
  return {
    'auroc': unknown.auroc(known, others),
    'refused': None if limit is None else float(np.mean(others > limit)),
    'refused_known': None if limit is None else float(np.mean(known > limit)),
    'known': len(known),
    'unknown': len(others),
    'classes': left,
  }


def _left_out(plan: Plan, k: int) -> list[int]:
  """The labels that fold k leaves out: a fifth, others in each fold."""
  names, labels = plan.dataset.class_names, plan.dataset.train.labels
  tested = np.unique(labels[plan.folds >= 0]).tolist()
  ranked = sorted(tested, key=lambda c: draw.place('unknown', names[c]))
  # At least one, and two to be told apart.
  return ranked[k::_PARTS] if len(ranked) > _PARTS else ranked[k : k + 1]


def _of_head(plan: Plan, name: str, x, k: int):
  """The scores of fold k: of images of known classes, and of unknown ones."""
  y = plan.dataset.train.labels
  left = np.isin(y, _left_out(plan, k))
  train, test = (plan.folds != k) & ~left, plan.folds == k
  _, known = np.unique(y[train], return_inverse=True)
  logits = candidates.HEADS[name](x[train], known, x[test])
  score = candidates.score_of(logits, x[test], x[train], known)
  return score[~left[test]], score[left[test]]


def _of_training(plan: Plan, name: str, folder: pathlib.Path):
  """The scores of a training on the first fold's images of known classes."""
  path = folder / 'scores.npz'
  if not path.exists():
    say(
      'Unknown classes: one training without a fifth of the classes. Their '
      'images are its val part, in which no name is right.'
    )

    def keep(run, found, steps):
      del run, steps
      train = found['train']
      known, others = (
        candidates.score_of(
          found[part]['logits'], found[part]['embedding'], train['embedding'],
          train['label'],
        )
        for part in ('test', 'val')
      )  # fmt: skip
      archives.write(path, {'known': known, 'others': others})

    dataset = _dataset(plan)
    if not dataset.test.names:
      return np.zeros(0), np.zeros(0)
    run = candidates.run_of(plan, name, dataset, folder / 'run')
    title = 'the training without a fifth of the classes'
    if not candidates.train_runs([run], folder, keep, title):
      return None
  return archives.read(
    path,
    lambda file: (file['known'], file['others']),
    'remove the folder that it is in, and the same command makes it again.',
  )


def _dataset(plan: Plan) -> splits.Dataset:
  """Of the first fold without a fifth of the classes.

  Their images are its validation part, by which nothing is chosen; they have no
  label there, and 0 stands for it.
  """
  left, train = _left_out(plan, 0), plan.dataset.train
  kept = [c for c in range(len(plan.dataset.class_names)) if c not in left]
  number = {label: i for i, label in enumerate(kept)}

  def gather(rows) -> splits.Split:
    part = splits.gather([(train, int(i)) for i in np.flatnonzero(rows)])
    labels = [number.get(label, 0) for label in part.labels.tolist()]
    return part._replace(labels=np.array(labels, np.int32))

  others, test = np.isin(train.labels, left), plan.folds == 0
  return plan.dataset._replace(
    class_names=tuple(plan.dataset.class_names[c] for c in kept),
    train=gather(~test & ~others), test=gather(test & ~others),
    val=gather(others),
  )  # fmt: skip
