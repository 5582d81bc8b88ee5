"""A run from its workdir: its config, its split, its newest state."""

import contextlib
import json
from typing import Any

import jax

from csdnet_jax import checkpoint, sharding
from csdnet_jax.config import from_json
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import say
from csdnet_jax.state import TrainState
from csdnet_jax.training.build import Program, build


def read_run(workdir: paths.Path) -> tuple[Any, dict]:
  """Returns the config and the split of a workdir.

  Raises:
    UserError: if it is no workdir of ours.
  """
  try:
    config = from_json((workdir / 'config.json').read_text())
    split = json.loads((workdir / 'split.json').read_text())
  except FileNotFoundError as error:
    raise UserError(
      f'{workdir} is not the workdir of a run: {error.filename or error} is '
      'missing.'
    ) from error
  return config, split


def restore_run(
  workdir: paths.Path, config, *, devices=None, step: int | None = None
) -> tuple[Program, TrainState]:
  """Builds the run of a workdir and restores its newest state.

  Args:
    workdir: of a run.
    config: the run's own; its `data` is not read.
    devices: to run on; all of them where None.
    step: one saved step instead of the newest.

  Raises:
    UserError: if there is no checkpoint that can be read.
  """
  _, split = read_run(workdir)
  run = build(
    config.copy_and_resolve_references(),
    classes=len(split['class_names']),
    n_train=len(split['train']),
    devices=devices,
  )
  abstract = sharding.abstract(jax.eval_shape(run.init), run.mesh)
  folder = workdir / 'checkpoints'
  state = None
  if folder.is_dir():
    with contextlib.closing(
      checkpoint.Checkpoints(folder, read_only=True)
    ) as checkpoints:
      state = checkpoints.restore(abstract, step, warn=say)
  if state is None:
    raise UserError(f'{workdir} holds no checkpoint yet; train it first.')
  return run, state
