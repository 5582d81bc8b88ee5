"""A run from its workdir: its config, its split, its newest state."""

import contextlib
import functools
import json
from typing import Any

import jax

from csdnet_jax import sharding
from csdnet_jax.checkpoint import Checkpoints
from csdnet_jax.config import from_json, outside
from csdnet_jax.runtime import paths, plugins
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import say
from csdnet_jax.state import TrainState
from csdnet_jax.tasks.base import Program
from csdnet_jax.training.build import build
from csdnet_jax.training.fit import fit


def read_run(workdir: paths.Path) -> tuple[Any, dict]:
  """Returns the config and the split of a workdir.

  Says which modules the run takes from outside of us, before any is imported.

  Raises:
    UserError: if it is no workdir of ours, or such a module is not installed
      or lies in the workdir itself.
  """
  try:
    text = paths.read_bytes(workdir / 'config.json').decode()
    split = json.loads(paths.read_bytes(workdir / 'split.json'))
  except FileNotFoundError as error:
    raise UserError(
      f'{workdir} is not the workdir of a run: {error.filename or error} is '
      'missing.'
    ) from error
  except OSError as error:
    raise UserError(
      f'config.json and split.json of {workdir} cannot be read '
      f'({error.strerror or error}); is it the workdir of a run?'
    ) from error
  for field, module in outside(json.loads(text)).items():
    _say_once(f'The run {workdir} imports the module {module} ({field}).')
    plugins.require_outside(module, workdir)
  return from_json(text), split


@functools.cache
def _say_once(text: str) -> None:
  say(text)


def restore_run(
  workdir: paths.Path,
  config,
  split: dict,
  *,
  devices=None,
  checkpoint: str = 'last',
) -> tuple[Program, TrainState]:
  """Builds the run of a workdir and restores the weights of a state of it.

  Args:
    workdir: of a run.
    config: the run's own; its `data` is not read.
    split: of the run, see `read_run`.
    devices: to run on; all of them where None.
    checkpoint: 'last', the newest state; or 'best', that of the evaluation with
      the highest figure, on the validation part or without one on test, which
      is then said.

  Returns:
    What the config makes, and the state without what only training needs: its
    `opt_state` and `memory` are ().

  Raises:
    UserError: if there is no checkpoint that can be read, or of 'best' none
      that was evaluated.
  """
  if checkpoint not in ('last', 'best'):
    raise UserError(
      f"The checkpoint is {checkpoint!r}, but must be 'last' or 'best'."
    )
  n_train = len(split['train'])
  config, _ = fit(config, n_train)
  program = build(
    config,
    classes=len(split['class_names']),
    n_train=n_train,
    devices=devices,
  )
  whole = jax.eval_shape(program.init)
  weights = whole.replace(opt_state=(), memory=())
  abstract = sharding.abstract(weights, program.mesh)
  folder = workdir / 'checkpoints'
  state = None
  if folder.is_dir():
    with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
      step = checkpoints.best() if checkpoint == 'best' else None
      state = checkpoints.restore(abstract, step, warn=say)
  if state is None and (workdir / 'summary.json').exists():
    raise UserError(
      f'{workdir} has ended and keeps no weights: it shared its program with '
      'others; train it alone, in another --workdir.'
    )
  if state is None:
    raise UserError(f'{workdir} holds no checkpoint yet; train it first.')
  if checkpoint == 'best' and 'test' in split and 'val' not in split:
    say(
      f'Step {step} is the best on the test part, since the run has no '
      'validation part (--config.data.val_fraction): figures on the test part '
      'flatter it.'
    )
  return program, state
