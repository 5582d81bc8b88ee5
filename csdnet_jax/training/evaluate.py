"""A finished run, evaluated again."""

import pathlib
from typing import Any

import jax
import ml_collections

from csdnet_jax import methods, tasks
from csdnet_jax.config import differences, validate
from csdnet_jax.data import report
from csdnet_jax.data.images import fingerprints, saved
from csdnet_jax.runtime import paths, processes, writers
from csdnet_jax.runtime.errors import UserError, counted, preview
from csdnet_jax.runtime.terminal import say, show_table
from csdnet_jax.tasks import classification
from csdnet_jax.tasks.base import Experiment
from csdnet_jax.training import places
from csdnet_jax.training.fit import fit
from csdnet_jax.training.restore import read_run, restore_run

# Fields of the data that decide neither which images there are nor their parts.
_SAME_IMAGES = (
  'data.canvas', 'data.test_resize', 'data.aspect', 'data.resize',
  'data.strict', 'data.cache', 'data.unreadable',
)  # fmt: skip


def evaluate_run(
  config: ml_collections.ConfigDict,
  workdir: paths.Path,
  *,
  known: tuple[Any, dict] | None = None,
  folder: str = '',
  data_root: str = '',
  out: pathlib.Path | None = None,
  devices=None,
  checkpoint: str = 'last',
) -> dict[str, float]:
  """Evaluates a state of a workdir, on its test part or on other images.

  Other images are those of a folder, or the test part of what `config.data`
  describes where it is not the run's. What the run was trained on is left out
  of them, by bytes or pixels, and counted; of near-duplicates it warns.

  Args:
    config: the run's own, possibly with other `data` and `evaluation`.
    workdir: of a run.
    known: what `read_run` has read of it already.
    folder: all of whose images are evaluated, laid out as for training or named
      by another `config.data.table` than the run's; their classes are those of
      the run or, of classification, some of them.
    data_root: where the run's own images are now; '' is where they were.
    out: gets a row for each image, as `evaluation.predictions` says; None
      writes nothing.
    devices: to run on; all of them where None.
    checkpoint: 'last' or 'best'; see `restore_run`.

  Returns:
    The figures of `evaluate` of the task, percentages and 'n' images.

  Raises:
    UserError: if there is no checkpoint, the config differs in more, the
      images are not there, a class is not the run's, or the run was trained on
      all of them.
  """
  with processes.collective():
    trained, split = known or read_run(workdir)
    if out and methods.task(trained) == 'segmentation':
      raise UserError(
        f'--out={out} gets a class for each image, but {workdir} is a run of '
        'segmentation; leave it out.'
      )
    config, changed = _checked(config, trained, len(split['train']))
    if not (folder or changed) and config.data.root != trained.data.root:
      data_root = data_root or config.data.root
    own = trained
    if data_root:
      own = places.found(trained, workdir, data_root)
      config.data.root = own.data.root
      if 'config.data.table' not in changed:
        config.data.table = own.data.table
    if folder or changed:
      dataset = _others(config, changed, folder, own, split, workdir)
      what = folder or f'test part of {dataset.name}'
    else:
      dataset, what = _own(config, split, workdir), 'test part'
  for line in report.beside(dataset):
    say(line)
  task = tasks.of(config)
  with processes.collective():
    data = task.prepare_test(config, dataset)
  program, state = restore_run(
    workdir, config, split, devices=devices, checkpoint=checkpoint
  )
  experiment = Experiment(config, program, data)
  figures, _ = task.evaluate(experiment, state, 'test', last=True)
  title = f'Step {int(state.step)} of {workdir}, {what}'
  show_table(title, task.shown(figures))
  if out:
    table = classification.predictions(experiment, state, 'test', workdir)
    if jax.process_index() == 0:
      writers.write_text(out, table)
    say(f'{counted(figures["n"], "images")}: {out}')
  return figures


def _checked(config, trained, n_train):
  """The config fitted, and its fields that ask for other images."""
  # First what `validate` would only stumble over; `fit` changes a method's.
  given = differences(trained, config)
  _require_as_trained(
    [line for line in given if not line.startswith(('method.', 'teacher.'))]
  )
  plain = config.copy_and_resolve_references()
  plain.data.canvas = 0  # Of training alone.
  validate(plain)
  config, _ = fit(config, n_train)
  changed = differences(trained, config)
  _require_as_trained(changed)
  keys = [line.partition(':')[0] for line in changed]
  if config.data.table != trained.data.table:
    keys.append('data.table')
  return config, [
    f'config.{key}'
    for key in keys
    if key.startswith('data.') and key not in _SAME_IMAGES
  ]


def _require_as_trained(changed: list[str]) -> None:
  """Refuses differences in anything but the data and how it is evaluated."""
  other = [k for k in changed if not k.startswith(('data.', 'evaluation.'))]
  if other:
    raise UserError(
      'A run is evaluated as it was trained, only config.data and '
      f'config.evaluation may differ: {"; ".join(other)}.'
    )


def _own(config, split, workdir):
  """The run's own images, in the parts that it had."""
  if 'test' not in split:
    raise UserError(
      f'{workdir} has no test part; say which images to evaluate it on: csdnet '
      f'evaluate --run={workdir} FOLDER.'
    )
  return tasks.of(config).load(places.found(config, workdir), split)


def _others(config, changed, folder, own, split, workdir):
  """Other images, without those that the run was trained on."""
  task = tasks.of(config)
  table = config.data.table if 'config.data.table' in changed else ''
  if folder and set(changed) - {'config.data.table'}:
    raise UserError(
      f'Say once which images to evaluate: the folder {folder}, or config.data '
      f'({", ".join(changed)}).'
    )
  if folder:
    if not paths.of(folder).is_dir():
      raise UserError(f'There is no folder {folder}; check the path.')
    dataset = task.load_whole(config, folder, table)
  else:
    if config.data.root == own.data.root:
      config = places.found(config, workdir)
    dataset = task.load(config)
  seen = _trained_on(own, split, workdir, dataset)
  judges = task.judges(dataset, split['class_names'], seen)
  n, left = len(dataset.test.names), len(judges.test.names)
  if not left:
    raise UserError(
      f'{workdir} was trained on all {n} images of {folder or dataset.name}; '
      'evaluate it on others.'
    )
  if left < n:
    what = f'images of {n} were trained on and are left out.'
    say(counted(n - left, what))
  if 'prints' in split:
    _warn_of_alike(judges, split)
  return judges


def _warn_of_alike(judges, split) -> None:
  """Names the images that are near-duplicates of training images."""
  trained, names = list(split['prints']), judges.test.names
  prints = fingerprints.of_bytes(judges.prints[name] for name in names)
  rows = fingerprints.alike_to(prints, saved.prints_of(split))
  pairs = [
    f'{name} ~ {trained[row]}'
    for name, row in zip(names, rows, strict=True)
    if row >= 0
  ]
  if pairs:
    say(
      f'WARNING: {len(pairs)} of {len(names)} images are all but equal to '
      f'training images ({preview(pairs, 3)}): the figures flatter.',
      style='bold yellow',
    )


def _trained_on(own, split, workdir, dataset):
  """Returns `(name, digest) -> whether the run has learnt from it`."""
  if 'digests' not in split:
    # An older run kept none, but its images may still be there.
    try:
      config = places.found(own, workdir)
      split = tasks.of(own).split_of(tasks.of(own).load(config, split))
    except UserError as error:
      say(
        'The run kept no digests of its images, so those that it was trained '
        f'on are told by their names alone: {error}',
        style='bold yellow',
      )
      return lambda name, digest: name in split['train']
  seen = saved.learnt(split, dataset)
  return lambda name, digest: digest in seen
