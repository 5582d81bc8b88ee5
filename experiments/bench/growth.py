r"""How often the interval of a verdict holds, on folders of frozen features.

  python -m experiments.bench.growth DIR [DIR ...] --folders=200

Each DIR is a folder of class folders. Its pictures are embedded once by the
network of configs/folder.py as it comes. Then folders are drawn from them: 5 to
58 classes, of each 2 to 8 pictures but not all that there are; the rest is held
out. Class means and a linear probe are cross-validated on the folder as a
verdict does it, one is chosen, fitted to all of the folder, and asked for the
held-out pictures. Every picture is a unit of its own.

It prints, for the interval of `comparison.accuracy` with and without the growth
of the training pictures, in how many folders it holds the held-out figure and
how wide it is; to which power of the growth the odds of a right name grew; and
how often the chosen one is the best on the held-out pictures or within one
standard error of it, beside the one that the rule of one standard error would
have chosen: the simplest that is so near the best of the folds (Breiman et al.,
Classification and Regression Trees, 1984, section 3.4.3).
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from csdnet_jax.evaluation import comparison, probes
from csdnet_jax.runtime import commands
from experiments.folders import load, near_best

_CLASSES, _PICTURES = (5, 58), (2, 8)
_MOST_FOLDS = 5
_FITS = {'prototypes': probes.fit_prototypes, 'probe': probes.fit_probe}
# So many held-out pictures tell an interval's fault from their own chance.
_MANY = 100


class Judged(NamedTuple):
  """What one folder showed.

  Attributes:
    folds: top-1 of the chosen one over the folds, in percent.
    held_out: its top-1 on the held-out pictures.
    n: held-out pictures.
    growth: of the training pictures, see `comparison.growth_of`.
    grown: the interval that allows for it.
    plain: the one that does not.
    good: whether the chosen one is the best on the held-out pictures, or within
      one standard error of it.
    simple_good: whether the one of the rule of one standard error is.
  """

  folds: float
  held_out: float
  n: int
  growth: float
  grown: comparison.Accuracy
  plain: comparison.Accuracy
  good: bool
  simple_good: bool


def draw(labels, rng) -> tuple[np.ndarray, np.ndarray]:
  """Draws classes, and the rows of their pictures that are given and held out.

  Args:
    labels: integer [n], each class of two pictures or more.
    rng: a NumPy generator.
  """
  known = np.unique(labels)
  low, high = (min(n, len(known)) for n in _CLASSES)
  most = rng.integers(_PICTURES[0], _PICTURES[1] + 1)
  given, held_out = [], []
  for label in rng.choice(known, rng.integers(low, high + 1), replace=False):
    rows = rng.permutation(np.flatnonzero(labels == label))
    n = min(rng.integers(_PICTURES[0], most + 1), len(rows) - 1)
    given.append(rows[:n])
    held_out.append(rows[n:])
  return np.concatenate(given), np.concatenate(held_out)


def deal(labels, rng) -> np.ndarray:
  """Deals pictures over folds, class by class; int [n]."""
  sizes = np.bincount(labels)
  rows = rng.permutation(len(labels))
  rows = rows[np.argsort(labels[rows], kind='stable')]
  folds = np.empty(len(labels), int)
  folds[rows] = np.arange(len(rows)) % min(_MOST_FOLDS, sizes.max())
  return folds


def judge(x, labels, rng) -> Judged:
  """Draws a folder, and compares its verdict with the held-out pictures.

  Args:
    x: float [n, C], embeddings.
    labels: integer [n].
    rng: a NumPy generator.
  """
  given, held_out = draw(labels, rng)
  _, y = np.unique(
    labels[np.concatenate([given, held_out])], return_inverse=True
  )
  y, y_held = y[: len(given)], y[len(given) :]
  folds, units = deal(y, rng), np.arange(len(y))
  rights, asked = {}, {}
  for name, fit in _FITS.items():
    right = np.zeros(len(y), bool)
    for fold in np.unique(folds):
      train, test = folds != fold, folds == fold
      named = _named(fit, x[given[train]], y[train], x[given[test]])
      right[test] = named == y[test]
    rights[name] = right
    asked[name] = _named(fit, x[given], y, x[held_out]) == y_held

  figures = {name: right.mean() for name, right in rights.items()}
  chosen = comparison.choose(figures)
  simple = next(name for name in rights if near_best(rights, name))
  growth = comparison.growth_of(y, folds)
  return Judged(
    100 * float(rights[chosen].mean()), 100 * float(asked[chosen].mean()),
    len(y_held), growth, comparison.accuracy(rights[chosen], units, growth),
    comparison.accuracy(rights[chosen], units),
    near_best(asked, chosen), near_best(asked, simple),
  )  # fmt: skip


def _named(fit, x, y, x_test) -> np.ndarray:
  """The classes that a head of these pictures names, of those it has seen."""
  known, y = np.unique(y, return_inverse=True)
  # A head lies in the span of its rows, which is far smaller. What a test row
  # has beside it adds to no logit, and its length scales those of all classes.
  basis, _ = np.linalg.qr(np.asarray(x, np.float64).T)
  head = fit((x @ basis).astype(np.float32), y)
  return known[probes.logits(head, x_test @ basis).argmax(-1)]


def describe(name: str, judged: Sequence[Judged]) -> str:
  """Returns in words what the folders of a data set showed."""
  lines = [f'{name}: {len(judged)} folders']
  figures = np.array([j.held_out for j in judged])
  folds = np.array([j.folds for j in judged]) / 100
  growth = np.mean([j.growth for j in judged])
  p, q = folds.mean(), figures.mean() / 100
  power = np.log(q / (1 - q) * (1 - p) / p) / np.log(growth)
  lines.append(
    f'  top-1 {100 * p:.1f} over the folds, {100 * q:.1f} held out; pictures '
    f'grow {growth:.2f} times, odds by its power {power:.2f}'
  )
  many = np.array([j.n for j in judged]) >= _MANY
  for what in ('plain', 'grown'):
    ends = np.array([getattr(j, what)[1:] for j in judged])
    held = (ends[:, 0] <= figures) & (figures <= ends[:, 1])
    also = f', {100 * held[many].mean():.1f} %' if many.any() else ''
    lines.append(
      f'  {what} interval: holds {100 * held.mean():.1f} % of all{also} of '
      f'{many.sum()} with {_MANY} held-out pictures or more; '
      f'{np.diff(ends).mean():.1f} points wide'
    )
  good, simple = (
    100 * np.mean([getattr(j, field) for j in judged])
    for field in ('good', 'simple_good')
  )
  lines.append(
    f'  the chosen one is the best or within an error of it in {good:.0f} %, '
    f'that of the rule of one standard error in {simple:.0f} %'
  )
  return '\n'.join(lines)


def embed(root: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Returns the embeddings [n, C] and labels [n] of a folder's pictures."""
  from csdnet_jax.training.fit import fit
  from csdnet_jax.training.together import pool
  from csdnet_jax.training.verdict import candidates

  config, dataset = load(root)
  config, _ = fit(config, len(dataset.train.names))
  forward = candidates.forward_of(config, dataset)
  prepared = pool.prepare(config, [dataset])
  rows = pool.rows(prepared, [dataset.train])[0]
  return forward(prepared.images.views[rows]), dataset.train.labels


def main(argv: Sequence[str]) -> int:
  """Draws and judges folders, and prints; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.bench.growth',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('roots', nargs='+', type=pathlib.Path, metavar='DIR')
  parser.add_argument('--folders', type=int, default=200, metavar='N')
  args = parser.parse_args(argv)
  for root in args.roots:
    x, labels = embed(root)
    rng = np.random.default_rng(0)
    judged = [judge(x, labels, rng) for _ in range(args.folders)]
    print(describe(str(root), judged))
  return 0


if __name__ == '__main__':
  commands.end(lambda: main(sys.argv[1:]))
