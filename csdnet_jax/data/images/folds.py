"""Folds of a cross-validation over all images, whole groups at a time."""

import collections

import numpy as np

from csdnet_jax.data.images import draw, splits
from csdnet_jax.runtime.errors import UserError

# Five folds train on four fifths of the images; more of them cost more and
# tell little more.
MOST = 5


def deal(dataset: splits.Dataset, units: np.ndarray, seed: int) -> np.ndarray:
  """Deals the training images over folds, class by class, like cards.

  There are min(5, the most units that a class has) folds. The units of each
  class, in the order of the hash of the seed and their names, go to the fold
  that has the fewest of the class, and of those to the fold with the fewest
  images; one that spans classes is dealt with the first of them. A fold must
  leave an image of each class to learn from: what has a single unit is in none.

  Args:
    dataset: of whose train part each image is dealt.
    units: int [n], of one number what stays together (`draw.units_of`).
    seed: of the order.

  Returns:
    int32 [n]: the fold that each image is tested in, from 0; -1 for none, it is
    always trained on.

  Raises:
    UserError: no class has two units.
  """
  labels = dataset.train.labels
  places = [draw.place(f'folds/{seed}', name) for name in dataset.train.names]
  rows = collections.defaultdict(list)
  of_class = collections.defaultdict(dict)
  for i in sorted(range(len(places)), key=places.__getitem__):
    rows[units[i]].append(i)
    of_class[labels[i]].setdefault(units[i])
  k = min(MOST, max(map(len, of_class.values())))
  fold_of, sizes = {}, np.zeros(k, int)
  for label in sorted(of_class):
    for unit in of_class[label]:
      if unit in fold_of:
        continue
      own = [fold_of[u] for u in of_class[label] if u in fold_of]
      held = np.bincount(own, minlength=k)
      fold = min(range(k), key=lambda f: (held[f], sizes[f], f))
      fold_of[unit] = fold
      sizes[fold] += len(rows[unit])
  for label in sorted(of_class):
    own = list(of_class[label])
    # One unit, or several that came with other classes to a single fold.
    if len({fold_of[unit] for unit in own}) == 1:
      fold_of[own[0]] = -1
  dealt = sorted({fold for fold in fold_of.values() if fold >= 0})
  if not dealt:
    raise UserError(
      f'No class of {dataset.name} has two images'
      f'{" of different groups" if dataset.groups else ""}, one to learn from '
      'and one to be tested on, so nothing can tell how good a model is; add '
      'images'
    )
  number = {-1: -1} | {fold: i for i, fold in enumerate(dealt)}
  return np.array([number[fold_of[unit]] for unit in units], np.int32)


def parts(dataset: splits.Dataset, folds: np.ndarray, k: int) -> splits.Dataset:
  """Returns the data set of fold k: that is its test part, the rest its train.

  Args:
    dataset: whose train part was dealt; other parts are left out.
    folds: of `deal`.
    k: of the fold.
  """
  train = dataset.train

  def gather(rows):
    return splits.gather([(train, int(i)) for i in np.flatnonzero(rows)])

  return dataset._replace(
    train=gather(folds != k), val=None, test=gather(folds == k)
  )
