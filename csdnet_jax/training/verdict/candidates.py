"""What each candidate makes of the images that it has not seen."""

import json
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np

from csdnet_jax.data.images import splits
from csdnet_jax.evaluation import (
  comparison,
  held_out,
  neighbours,
  probes,
  unknown,
)
from csdnet_jax.evaluation.held_out import HeldOut
from csdnet_jax.models import target
from csdnet_jax.runtime import writers
from csdnet_jax.runtime.errors import UserError, capitalised
from csdnet_jax.runtime.terminal import say
from csdnet_jax.training.build import network
from csdnet_jax.training.fit import fit
from csdnet_jax.training.initial import initial_weights
from csdnet_jax.training.together import pool, train as together
from csdnet_jax.training.together.group import Run
from csdnet_jax.training.verdict.plan import Plan


class FailedError(Exception):
  """A candidate that cannot be trained; why, in a sentence."""


_FAILED = 'failed.json'
_BATCH = 32  # Images at a time, forward alone.
_TIMED = 5  # Forward passes.

# `(x, y, x_test) -> scores [m, classes]`.
HEADS = {
  'knn': probes.knn_votes,
  'prototypes': lambda x, y, test: probes.logits(
    probes.fit_prototypes(x, y), test
  ),
  'probe': lambda x, y, test: probes.logits(probes.fit_probe(x, y), test),
}


# ------------------------------------------------------------------ the configs


def config_of(
  plan: Plan, name: str, n_train: int, steps: int = 0, *, least: int = 0
):
  """Returns the config of a candidate, fitted to so many images.

  Args:
    plan: with the config of all.
    name: of the candidate.
    n_train: images.
    steps: of a candidate that is trained.
    least: images of the smallest train set of those that share a program, to
      which what is a shape is fitted; 0 where none is shared.
  """
  config = plan.config.copy_and_resolve_references()
  config.model.size = plan.level.size
  config.batch_size = min(plan.batch, n_train)
  if name in comparison.FROZEN:
    config.method.name, config.method.frozen.head = 'frozen', name
  else:
    config.method.name = _METHODS[name]
    of_step = config.batch_size / n_train  # Epochs.
    # The same share of the steps, however many there are, in whole ones.
    share = config.optim.warmup / config.epochs
    config.optim.warmup = round(share * steps) * of_step
    config.epochs = config.eval_every = steps * of_step
  config, _ = fit(config, least or n_train)
  return fit(config, n_train)[0]


_METHODS = {'cross_entropy': 'supervised', 'csdnet': 'csdnet'}


# ------------------------------------------------------------ frozen features


def forward_of(config, dataset: splits.Dataset) -> Callable:
  """Returns `views [n, S, S, 3] uint8 -> embeddings float32 [n, C]`.

  Of the weights that every candidate starts from.
  """
  model = network(config, len(dataset.class_names))
  params, model_state, _ = initial_weights(config, model, dataset.class_names)
  platform = target.of(jax.local_devices()[0])

  @jax.jit
  def embed(images):
    images = images.astype(np.float32) / 255.0
    outputs, _ = model.apply(params, model_state, images, train=False)
    return outputs.embedding

  embed = target.traced_for(platform, embed)

  def forward(views):
    found = []
    for first in range(0, len(views), _BATCH):
      rows = np.asarray(views[first : first + _BATCH])
      # Full batches, so that one program serves them all.
      whole = np.resize(rows, (_BATCH, *rows.shape[1:]))
      found.append(np.asarray(embed(whole))[: len(rows)])
    return np.concatenate(found)

  return forward


def rate_of(forward: Callable, size: int) -> float:
  """Measures a network: images x pixels a second, forward alone."""
  views = np.zeros((_BATCH, size, size, 3), np.uint8)
  forward(views)
  seconds = []
  for _ in range(_TIMED):
    begun = time.monotonic()
    forward(views)
    seconds.append(time.monotonic() - begun)
  # The fastest: what else the machine did meanwhile will end.
  return _BATCH * size**2 / min(seconds)


def embeddings(plan: Plan, forward: Callable, part='train') -> np.ndarray:
  """Returns the frozen embeddings of all images of a part [n, C].

  Args:
    plan: of the verdict.
    forward: of `forward_of`.
    part: 'train', which is dealt over the folds, or 'test'.

  Raises:
    UserError: if one is not finite.
  """
  config = config_of(plan, 'probe', len(plan.folds))
  prepared = pool.prepare(config, [plan.dataset])
  rows = pool.rows(prepared, [getattr(plan.dataset, part)])[0]
  x = forward(prepared.images.views[rows])
  if not np.isfinite(x).all():
    raise UserError(
      'The network makes embeddings that are not finite of these images; check '
      'its weights (config.init_from).'
    )
  return x


def frozen(plan: Plan, name: str, x: np.ndarray) -> HeldOut:
  """Fits a head to the frozen embeddings of each fold's training images.

  Args:
    plan: of the verdict.
    name: of `HEADS`.
    x: of `embeddings`.
  """
  y, found = plan.dataset.train.labels, []
  for k in range(plan.k):
    train, test = plan.folds != k, plan.folds == k
    scores = HEADS[name](x[train], y[train], x[test])
    found.append(_held_out(plan, k, scores, x[test], x[train], y[train]))
  return held_out.joined(found)


def _held_out(plan: Plan, k: int, logits, x, train_x, train_y) -> HeldOut:
  """What was made of the test images of fold k, in their order."""
  rows = np.flatnonzero(plan.folds == k)
  train = plan.dataset.train
  score = score_of(logits, x, train_x, train_y)
  return HeldOut(
    tuple(train.names[i] for i in rows), train.labels[rows], plan.folds[rows],
    plan.units[rows], np.asarray(logits, np.float32),
    np.asarray(x, np.float32), np.asarray(score, np.float32),
  )  # fmt: skip


def score_of(logits, x, train_x, train_y) -> np.ndarray:
  """Returns how little like the known classes each is, see `unknown.score`."""
  leaves = neighbours.Embeddings(('',) * len(train_x), train_y, train_x, 0)
  return unknown.score({'logits': logits, 'embedding': x}, leaves)


# ---------------------------------------------------------------- fine-tuning


def tuned(plan: Plan, name: str, folder: pathlib.Path) -> HeldOut | None:
  """Trains a candidate on each fold, all of them in one program.

  Args:
    plan: of the verdict.
    name: of the candidate.
    folder: of its runs, which are continued where they stand.

  Returns:
    What it makes of the images; None if it was told to stop before the end.

  Raises:
    FailedError: as `train_runs`.
  """
  places = [folder / f'fold_{k + 1}' for k in range(plan.k)]
  kept = [place / 'held_out.npz' for place in places]
  if not all(path.exists() for path in kept):
    say(f'{capitalised(comparison.TITLES[name])}: {plan.k} folds.')

    def keep(run, found, steps):
      del steps
      test, train = found['test'], found['train']
      part = _held_out(
        plan, places.index(run.workdir), test['logits'], test['embedding'],
        train['embedding'], train['label'],
      )  # fmt: skip
      held_out.write(run.workdir / 'held_out.npz', part)

    runs = [
      run_of(plan, name, plan.part(k), place) for k, place in enumerate(places)
    ]
    if not train_runs(runs, folder, keep, comparison.TITLES[name]):
      return None
  parts = [held_out.read(path) for path in kept]
  return named(plan, held_out.joined(parts))


def named(plan: Plan, found: HeldOut) -> HeldOut:
  """Returns what was kept of all folds under the names of now."""
  rows = [i for k in range(plan.k) for i in np.flatnonzero(plan.folds == k)]
  return found._replace(names=tuple(plan.dataset.train.names[i] for i in rows))


def run_of(plan: Plan, name: str, dataset, workdir: pathlib.Path) -> Run:
  """Returns a training of a candidate, for the trainer of many runs."""
  # Equally many steps in all folds, and a queue as long as the smallest one's.
  sizes = [int((plan.folds != k).sum()) for k in range(plan.k)]
  n_train, steps = len(dataset.train.names), plan.steps(min(sizes))
  config = config_of(plan, name, n_train, steps, least=min(*sizes, n_train))
  return Run(config, dataset, workdir)


def train_runs(runs, folder: pathlib.Path, keep, title: str) -> bool:
  """Trains runs together; returns False if they were told to stop.

  Args:
    runs: of `run_of`, of equally many steps.
    folder: for what they share.
    keep: `(run, found, steps)`, called for each at its end.
    title: of the candidate, for the sentence.

  Raises:
    FailedError: says of the first run whose figures are not finite, or that the
      device's memory is too small for one.
  """
  folder.mkdir(parents=True, exist_ok=True)
  note = folder / _FAILED
  if note.exists():
    raise FailedError(json.loads(note.read_text(encoding='utf-8')))
  try:
    failed = together.train(runs, folder, keep=keep, baselines=False, told=True)
  except together.DoesNotFitError as error:
    failed = [str(error)]
  if failed is None:
    return False
  if any(failed):
    why = next(filter(None, failed))
    sentence = f'{capitalised(title)} is left out: {why}'
    writers.write_json(note, sentence)  # Not to be tried at each start.
    raise FailedError(sentence)
  return True
