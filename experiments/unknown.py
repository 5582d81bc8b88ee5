r"""Which score tells leaves of no known class: four, measured on two sets.

  python -m experiments.unknown grape58=DIR leaf99=DIR --workdir=runs/unknown

A fifth of the classes is left out, drawn anew with each seed, and is what a
model that has never seen it should refuse. Two kinds of models, EfficientNet-
Lite0 from ImageNet weights at 128 px both times:

  frozen   a linear probe, and prototypes, on features that are not trained,
           in 5 folds that cut no group; 5 seeds of grape58 and 3 of leaf99.
  trained  cross-entropy, 300 steps of batches of 8 on a half of the images
           that cuts no group; seeds 0 to 2 of grape58 and 0 of leaf99.

Held-out images of known classes, and all images of the classes left out, are
scored; a higher score is less like the known classes. Each model's AUROC says
how often a score is higher for the unknown of a pair. For the shares that are
refused, the threshold of a fold is that of the known images of the other folds
(`evaluation.unknown.threshold`, 5 %), whose models are the same or nearly so.

The rule by which the package's one score is chosen: the highest mean of two
figures of grape58, the AUROC on trained features and that on frozen features
(the mean of both heads), each a mean over seeds. leaf99 decides nothing.
"""

import argparse
import collections
import json
import pathlib
import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from csdnet_jax import load_run, sharding
from csdnet_jax.configs import folder
from csdnet_jax.data import sources
from csdnet_jax.data.images import splits
from csdnet_jax.evaluation import neighbours, probes, unknown
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.code import of_code
from csdnet_jax.runtime.terminal import say
from csdnet_jax.tasks import classification
from csdnet_jax.training import train as training
from csdnet_jax.training.initial import initial_weights
from csdnet_jax.training.prepare import prepare
from experiments import results

# Not the lines of a grid, which `results.read` reads.
RESULTS = results.RESULTS / 'unknown' / 'scores.json'
# What shows one thing; the names of leaf99 say nothing of it.
_GROUPS = {'grape58': 'stem', 'leaf99': ''}
_FOLDS, _STEPS = 5, 300
_SEEDS = {'grape58': 5, 'leaf99': 3}
_TRAININGS = {'grape58': 3, 'leaf99': 1}
HEADS = {'probe': 'fit_probe', 'prototypes': 'fit_prototypes'}


class Known(NamedTuple):
  """What a model was fitted to: vectors [n, C] and labels [n] from 0."""

  vectors: np.ndarray
  labels: np.ndarray


class Scored(NamedTuple):
  """What one model gives.

  Attributes:
    known: scores [n] of held-out images of the known classes.
    unknown: scores [m] of all images of the classes left out.
  """

  known: np.ndarray
  unknown: np.ndarray


def max_probability(outputs, known: Known) -> np.ndarray:
  """1 - max softmax (Hendrycks and Gimpel, ICLR 2017), float64 [n]."""
  from scipy import special

  del known
  return 1 - special.softmax(np.float64(outputs['logits']), -1).max(-1)


def energy(outputs, known: Known) -> np.ndarray:
  """-log sum exp of the logits (Liu et al., NeurIPS 2020), float64 [n]."""
  from scipy import special

  del known
  return -special.logsumexp(np.float64(outputs['logits']), -1)


def mahalanobis(outputs, known: Known) -> np.ndarray:
  """The squared distance to the nearest class mean, float64 [n].

  In the metric of one covariance of all classes (Lee et al., NeurIPS 2018),
  shrunk to a multiple of the unit matrix by Ledoit and Wolf's rule, since there
  are fewer images than channels.
  """
  from sklearn.covariance import LedoitWolf

  x = np.float64(known.vectors)
  classes, rows = np.unique(known.labels, return_inverse=True)
  means = np.stack([x[rows == i].mean(0) for i in range(len(classes))])
  shared = LedoitWolf(assume_centered=True).fit(x - means[rows])
  # |L' (x - mean)|^2, without a difference of every image and mean.
  whiten = np.linalg.cholesky(shared.precision_)
  a, b = np.float64(outputs['embedding']) @ whiten, means @ whiten
  squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
  return squares.min(1)


def nearest(outputs, known: Known) -> np.ndarray:
  """1 - cosine to the nearest training embedding, float64 [n].

  Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, ICML
  2022, with k = 1.
  """
  _, cosines = neighbours.nearest(outputs['embedding'], known.vectors, 1)
  return 1 - cosines[:, 0]


SCORES = {
  score.__name__: score
  for score in (max_probability, energy, mahalanobis, nearest)
}


def folds_of(labels, groups, k: int, seed: int) -> Iterator:
  """Yields (train, held-out) rows of k folds that cut no group.

  A held-out image whose class has none to train on is left out: its class has
  one group only, and is unknown to that fold.
  """
  from sklearn.model_selection import StratifiedGroupKFold

  # A class with fewer groups than folds is expected, of which it warns.
  folds = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', UserWarning)
    found = list(folds.split(labels, labels, groups))
  for train, held in found:
    yield train, held[np.isin(labels[held], labels[train])]


def left_out(classes: int, seed: int) -> np.ndarray:
  """Returns the labels of a fifth of the classes."""
  return np.random.default_rng(seed).permutation(classes)[: classes // 5]


def shares(folds: list[Scored]) -> tuple[float | None, float | None]:
  """The percentages of known and of unknown images that are refused.

  Each fold by the threshold of the known images of the others; None where
  these are too few for one.
  """
  known, foreign = [], []
  for i, fold in enumerate(folds):
    others = [x.known for j, x in enumerate(folds) if j != i]
    limit = unknown.threshold(np.concatenate(others))
    if limit is None:
      return None, None
    known.append(fold.known > limit)
    foreign.append(fold.unknown > limit)
  return tuple(
    100 * float(np.mean(np.concatenate(x))) for x in (known, foreign)
  )


def frozen(config, dataset: splits.Dataset) -> np.ndarray:
  """Returns the embeddings [n, C] of all images before any training."""
  whole = dataset._replace(
    train=splits.whole(dataset), val=None, test=splits.EMPTY
  )
  experiment = prepare(config, whole, None, writes=False).experiment
  program = experiment.program
  params, model_state, _ = initial_weights(
    experiment.config, program.model, whole.class_names
  )
  state = sharding.replicate(program.init(params, model_state), program.mesh)
  return classification.outputs(experiment, state, 'train')['embedding']


def of_frozen(x, labels, groups, seed: int) -> Iterator[dict[str, Any]]:
  """Yields the figures of every head and score on frozen features."""
  foreign = np.isin(labels, left_out(labels.max() + 1, seed))
  away = x[foreign]
  x, labels, groups = x[~foreign], labels[~foreign], groups[~foreign]
  found = collections.defaultdict(list)
  right = collections.defaultdict(list)
  for train, held in folds_of(labels, groups, _FOLDS, seed):
    classes, y = np.unique(labels[train], return_inverse=True)
    known = Known(x[train], y)
    # Neither depends on the head.
    both = {
      name: Scored(
        *(SCORES[name]({'embedding': part}, known) for part in (x[held], away))
      )
      for name in ('mahalanobis', 'nearest')
    }
    for head, fit in HEADS.items():
      fitted = getattr(probes, fit)(*known)
      outputs = [{'logits': probes.logits(fitted, p)} for p in (x[held], away)]
      predicted = classes[outputs[0]['logits'].argmax(1)]
      right[head].append(predicted == labels[held])
      for name, score in SCORES.items():
        made = both.get(name) or Scored(*(score(o, known) for o in outputs))
        found[head, name].append(made)
  for (head, name), folds in found.items():
    aurocs = [unknown.auroc(*fold) for fold in folds]
    top1 = 100 * float(np.mean(np.concatenate(right[head])))
    yield _figures('frozen', head, name, aurocs, folds, top1)


def of_trained(
  config, dataset: splits.Dataset, groups, seed: int, workdir: paths.Path
) -> Iterator[dict[str, Any]]:
  """Trains on a half of the known images; yields the figures of every score."""
  images = splits.whole(dataset)
  foreign = np.isin(images.labels, left_out(len(dataset.class_names), seed))
  (rows,), (away,) = np.nonzero(~foreign), np.nonzero(foreign)
  classes, labels = np.unique(images.labels[rows], return_inverse=True)
  train, held = next(folds_of(labels, groups[rows], 2, seed))

  def part(rows, labels):
    made = splits.gather([(images, i) for i in rows])
    return made._replace(labels=np.asarray(labels, np.int32))

  # A class whose only group is held out has no image to train on.
  there, y = np.unique(labels[train], return_inverse=True)
  given = dataset._replace(
    class_names=tuple(dataset.class_names[i] for i in classes[there]),
    train=part(rows[train], y), val=None,
    test=part(rows[held], np.searchsorted(there, labels[held])),
  )  # fmt: skip
  config = config.copy_and_resolve_references()
  config.seed, config.epochs = seed, _STEPS * config.batch_size / len(train)
  config.eval_every = config.epochs
  training.train(config, workdir, dataset=given)
  run, kept = load_run(workdir), neighbours.read(workdir)
  known = Known(kept.vectors, kept.labels)

  def made(rows):
    problems, given = [], part(rows, [0] * len(rows))
    parts = [x for _, x in run.outputs(given, problems)]
    assert not problems, problems
    return {name: np.concatenate([x[name] for x in parts]) for name in parts[0]}

  theirs, ours = made(away), made(rows[held])
  # Whole groups again: the model is one, only the threshold is of the others.
  _, of = np.unique(groups[rows[held]], return_inverse=True)
  of = np.random.default_rng(seed).permutation(of.max() + 1)[of] % _FOLDS
  y = np.searchsorted(there, labels[held])
  top1 = 100 * float(np.mean(ours['logits'].argmax(1) == y))
  for name, score in SCORES.items():
    scored = Scored(score(ours, known), score(theirs, known))
    folds = [
      Scored(scored.known[of == i], scored.unknown) for i in range(_FOLDS)
    ]
    auroc = [unknown.auroc(*scored)]
    yield _figures('trained', 'network', name, auroc, folds, top1)


def _figures(features, head, score, aurocs, folds, top1) -> dict[str, Any]:
  known, foreign = shares(folds)
  return {
    'features': features, 'head': head, 'score': score,
    'auroc': float(np.mean(aurocs)), 'refused_known': known,
    'refused_unknown': foreign, 'n_known': sum(len(x.known) for x in folds),
    'n_unknown': len(folds[0].unknown), 'top1': top1,
  }  # fmt: skip


def config_of(name: str, root: str) -> ml_collections.ConfigDict:
  """Returns the config of the trainings on a set."""
  config = folder.get_config()
  config.data.root, config.data.group = root, _GROUPS[name]
  config.method.name, config.model.size = 'supervised', 128
  return config


def measure(name: str, root: str, workdir: pathlib.Path) -> Iterator[dict]:
  """Yields the lines of a set, one for each seed, head and score."""
  config = config_of(name, root)
  dataset = sources.load_images(config.data)
  images = splits.whole(dataset)
  groups = np.array([dataset.groups.get(n, n) for n in images.names])
  x = frozen(config, dataset)
  for seed in range(_SEEDS[name]):
    for line in of_frozen(x, images.labels, groups, seed):
      yield {'set': name, 'seed': seed} | line | {'code': of_code()}
  for seed in range(_TRAININGS[name]):
    place = paths.of(workdir / f'{name}_{seed}')
    for line in of_trained(config, dataset, groups, seed, place):
      code = results.code_of(place)
      yield {'set': name, 'seed': seed} | line | {'code': code}


def table(lines: list[dict]) -> str:
  """Returns the figures of each set and score, in Markdown.

  A cell holds the mean AUROC ± its standard deviation over seeds (seeds), then
  the percentages of known and of unknown images that are refused.
  """
  groups, columns = collections.defaultdict(list), {}
  for line in lines:
    column = line['features']
    if column == 'frozen':
      column += f', {line["head"]}'
    columns[column] = None
    groups[line['set'], line['score'], column].append(line)
  rows = [['set', 'score', *columns], ['---'] * (2 + len(columns))]
  for name, score in dict.fromkeys(key[:2] for key in groups):
    cells = [_cell(groups[name, score, column]) for column in columns]
    rows.append([name, score, *cells])
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def _cell(lines: list[dict]) -> str:
  if not lines:
    return ''
  aurocs = [line['auroc'] for line in lines]
  text = f'{np.mean(aurocs):.3f}'
  if len(lines) > 1:
    text += f' ± {np.std(aurocs, ddof=1):.3f}'
  text += f' ({len(lines)})'
  shares = [(line['refused_known'], line['refused_unknown']) for line in lines]
  if None in shares[0]:  # Too few known images for a threshold.
    return text
  return text + '<br>{:.1f}, {:.1f}'.format(*np.mean(shares, axis=0))


def choose(lines: list[dict]) -> dict[str, float]:
  """Returns the figure of the rule for each score, the highest first."""
  aurocs = collections.defaultdict(list)
  for line in lines:
    if line['set'] == 'grape58':
      aurocs[line['score'], line['features']].append(line['auroc'])
  means = {
    name: np.mean([np.mean(aurocs[name, x]) for x in ('frozen', 'trained')])
    for name in SCORES
  }
  return dict(sorted(means.items(), key=lambda item: -item[1]))


def main(argv=None) -> None:
  """Measures, keeps the lines and prints the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('sets', nargs='+', metavar='SET=DIR')
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--results', type=pathlib.Path, default=RESULTS)
  args = parser.parse_args(argv)
  lines, start = [], time.monotonic()
  for name, _, root in (text.partition('=') for text in args.sets):
    if name not in _GROUPS or not root:
      parser.error(f'{name}={root} is no SET=DIR; SET is of {list(_GROUPS)}')
    for line in measure(name, root, args.workdir):
      lines.append(line)
      say(json.dumps(line))
    args.results.parent.mkdir(parents=True, exist_ok=True)
    text = ',\n'.join(json.dumps(line) for line in lines)
    args.results.write_text(f'[{text}]\n', encoding='utf-8')
  say(table(lines))
  if any(line['set'] == 'grape58' for line in lines):
    for name, figure in choose(lines).items():
      say(f'{name}: {figure:.3f}')
  say(f'{time.monotonic() - start:.0f} s')


if __name__ == '__main__':
  main()
