"""`csdnet train FOLDER`: the best model of a folder, and how good it is.

Reads from top to bottom: the images, the plan, the candidates on images that
they have not seen, what these say, and the final model, an ordinary run on all
images. Each part leaves its files in the workdir and is not done twice.
"""

from collections.abc import Callable, Sequence

import jax
import ml_collections

from csdnet_jax.config import validate
from csdnet_jax.data import report, sources
from csdnet_jax.data.images import saved, splits
from csdnet_jax.evaluation import held_out
from csdnet_jax.models.weights import published
from csdnet_jax.runtime import paths, writers
from csdnet_jax.runtime.errors import UserError, counted
from csdnet_jax.runtime.terminal import say
from csdnet_jax.tasks import classification
from csdnet_jax.training import places
from csdnet_jax.training.restore import read_run
from csdnet_jax.training.verdict import (
  candidates,
  conclude,
  final,
  plan as planning,
  unknown_classes,
)
from csdnet_jax.training.verdict.plan import Plan
from csdnet_jax.training.workdir import holds_run, lock_file

FILE = 'verdict.json'
MINUTES = 20.0
_STOPPED = 'Stopped and saved; the same command continues.'


def verdict(
  config: ml_collections.ConfigDict,
  workdir: paths.Path,
  *,
  minutes: float = MINUTES,
  given: Sequence[str] = (),
  dry_run: bool = False,
) -> dict | None:
  """Finds the best model of a folder, or continues where the workdir stands.

  Args:
    config: of `configs/folder.py`, with the folder and what the user has set.
    workdir: where everything is kept; in the end it is that of the final run.
    minutes: that it may take, about.
    given: the fields of the config that the user has set, by name.
    dry_run: say the plan and do no more; nothing is written.

  Returns:
    What `verdict.json` holds; None if it was told to stop before the end, or
    of a dry run.

  Raises:
    UserError: for a user's mistake.
  """
  _require_open(config, minutes, given)
  config = config.copy_and_resolve_references()
  # All images are dealt over the folds; a test part of the folder's own is for
  # the end.
  config.data.test_fraction = 0.0
  validate(config)
  config = places.from_root(config)
  kept = planning.read(workdir / planning.FILE)
  if kept is not None:
    planning.require_same(kept, config, minutes, workdir)
    if (known := read(workdir)) and final.has_ended(workdir):
      _show_again(config, kept, known, workdir)
      return known
  else:
    _require_empty(config, workdir)
  if dry_run:
    _plan(config, kept, minutes, given)
    return None
  with lock_file(workdir / 'folds'):
    plan, forward = _plan(config, kept, minutes, given)
    if kept is None:
      planning.write(workdir / planning.FILE, plan)
    found = _concluded(plan, workdir, forward)
  if found is None or not final.train(plan, found, workdir):
    say(_STOPPED)
    return None
  conclude.show(found, workdir)
  return found


def read(workdir: paths.Path) -> dict | None:
  """Returns the verdict of a workdir; None if it has none."""
  return writers.read_json(workdir / FILE)


# What the verdict itself decides, or a single training alone can use.
_DECIDED = (
  'method.', 'epochs', 'eval_every', 'data.test_fraction', 'data.val_fraction',
  'data.shots', 'data.resplit', 'data.split_seed', 'teacher.', 'wandb.',
  'accumulate',
)  # fmt: skip


def _require_open(config, minutes: float, given: Sequence[str]) -> None:
  """Refuses what a verdict decides itself, and where it cannot work."""
  decided = [k for k in dict.fromkeys(given) if k.startswith(_DECIDED)]
  if decided:
    flags = ' '.join(f'--config.{key}=...' for key in decided)
    raise UserError(
      f'csdnet train FOLDER itself decides config.{decided[0]}; for one '
      f'training of yours: csdnet train --config=folder --config.data.root='
      f'{config.data.root} {flags}'
    )
  if not 0 < minutes < 1e6:
    raise UserError(f'--minutes={minutes:g} must be more than 0.')
  if jax.process_count() > 1:
    raise UserError(
      'csdnet train FOLDER works on one machine; start it without '
      '--distributed, or give a --config.'
    )


def _require_empty(config, workdir: paths.Path) -> None:
  """Refuses a workdir that holds something else."""
  if holds_run(workdir):
    raise UserError(
      f'{workdir} holds a single training; choose another --workdir, or '
      'continue it: csdnet train --config=folder --config.data.root='
      f'{config.data.root} --workdir={workdir}'
    )
  if (workdir / FILE).exists() or any((workdir / 'folds').glob('[!.]*')):
    raise UserError(
      f'{workdir} holds what is left of a verdict whose {planning.FILE} is '
      'gone; choose another --workdir.'
    )


def _show_again(config, kept, known: dict, workdir: paths.Path) -> None:
  """Shows a verdict that has ended, and what was added to its folder since."""
  say(f'{workdir} is finished; nothing to do.')
  if config.data.root and paths.of(config.data.root).exists():
    dataset = sources.load_images(config.data, split=kept['split'])
    if added := [u for u in dataset.unused if u.reason == saved.ADDED]:
      say(
        f'{counted(len(added), "images were")} added to {config.data.root} '
        'since; a verdict that knows them takes another --workdir.',
        style='bold yellow',
      )
  conclude.show(known, workdir)


def _require_unseen(config, dataset: splits.Dataset) -> None:
  """Refuses to start from a run that has learnt from these images."""
  names, source = dataset.train.names, config.init_from
  # And the run that it started from, and so on.
  while source and source not in published.WORDS and paths.of(source).is_dir():
    theirs, split = read_run(paths.of(source))
    if 'digests' in split:
      learnt = saved.learnt(split, dataset)
      seen = sum(dataset.digests[name] in learnt for name in names)
    else:  # An older run kept none.
      seen = sum(name in split['train'] for name in names)
    if seen:
      raise UserError(
        f'config.init_from={config.init_from} has learnt from '
        f'{counted(seen, "images")} of {dataset.name}, so that nothing could '
        'be held out from it; start from published weights, or from a run on '
        'other images.'
      )
    source = theirs.init_from


def _plan(config, kept, minutes, given) -> tuple[Plan, Callable]:
  """The images and the plan, both said; and the frozen network."""
  dataset = sources.load_images(config.data, split=kept and kept['split'])
  dataset = planning.whole(dataset)
  _require_unseen(config, dataset)
  if kept is None:
    dealt = planning.deal(config, dataset)
    levels = planning.levels(config, dataset, given)
  forward = candidates.forward_of(config, dataset)
  if kept is None:
    rate = candidates.rate_of(forward, levels[-1].size)
    plan = planning.make(
      config, dataset, dealt, minutes=minutes, rate=rate, open_levels=levels
    )
  else:
    plan = planning.again(kept, config, dataset)
  seen = config.copy_and_resolve_references()
  seen.model.size = plan.level.size
  report.tell(classification.reported(seen, dataset, plan.folds))
  for line in planning.describe(plan):
    say(line)
  return plan, forward


def _concluded(plan: Plan, workdir: paths.Path, forward) -> dict | None:
  """The verdict, made or read; None if it was told to stop before."""
  if (known := read(workdir)) and (workdir / final.HELD_OUT).exists():
    return known
  x = candidates.embeddings(plan, forward)
  found = {name: candidates.frozen(plan, name, x) for name in candidates.HEADS}
  failed = []
  for name in plan.tuned:
    try:
      part = candidates.tuned(plan, name, workdir / 'folds' / name)
    except candidates.FailedError as error:
      failed.append(str(error))
      continue
    if part is None:
      return None
    found[name] = part
  told = conclude.conclude(plan, found, x, failed)
  chosen = found[told['chosen']]
  try:
    judged = unknown_classes.measure(
      plan, told['chosen'], x, chosen.score, workdir / 'folds'
    )
  except candidates.FailedError as error:
    judged = {}
    told['left_out'].append(str(error))
  if judged is None:
    return None
  held_out.write(workdir / final.HELD_OUT, chosen)
  told = told | {'unknown': judged}
  writers.write_json(workdir / FILE, told)
  return told
