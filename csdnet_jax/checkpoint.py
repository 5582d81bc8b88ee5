"""Checkpoints of the train state; the only file that imports Orbax."""

import dataclasses
import functools
import sys
from typing import Any

import jax
from flax import serialization, traverse_util
from orbax.checkpoint import v1 as ocp

from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError, first_line
from csdnet_jax.state import TrainState

# What Orbax and TensorStore raise for bytes that are missing or damaged.
_DAMAGED = (KeyError, ValueError, FileNotFoundError)


class Checkpoints:
  """The saved states of one run: the latest `keep` and the best.

  Saving is asynchronous; `close` waits for the last save.
  """

  def __init__(
    self, folder: paths.Path, *, keep: int = 2, read_only: bool = False
  ):
    """Opens the folder of a run's checkpoints, for a run makes it.

    Args:
      folder: of the checkpoints.
      keep: how many of the latest stay.
      read_only: leaves everything as it is: the run may be training.
    """
    self._folder, self._keep = paths.absolute(folder), keep
    self._read_only = read_only
    self._open()

  def _open(self) -> None:
    policies = ocp.training.preservation_policies
    best = policies.BestN(
      get_metric_fn=lambda metrics: metrics['selection'],
      n=1,
      keep_checkpoints_without_metrics=False,
    )
    self._checkpointer = ocp.training.Checkpointer(
      self._folder,
      preservation_policy=policies.AnyPreservationPolicy(
        [policies.LatestN(self._keep), best]
      ),
      cleanup_tmp_directories=not self._read_only,
    )

  def save(
    self, state: TrainState, step: int, selection: float | None = None
  ) -> None:
    """Starts saving the state of `step`; a step already saved stays.

    Args:
      state: all of it is saved.
      step: the number of optimiser steps taken.
      selection: the accuracy that the best checkpoint is chosen by, if the
        state was evaluated; of equal ones the later is kept.
    """
    if step in self.steps():
      return
    metrics = None if selection is None else {'selection': selection}
    self._checkpointer.save_checkpointables_async(
      step, {'state': state}, force=True, metrics=metrics
    )

  def steps(self) -> list[int]:
    """Returns the saved steps in ascending order."""
    return [c.step for c in self._checkpointer.checkpoints]

  def best(self) -> int:
    """Returns the step that was chosen, the later of equal ones.

    Raises:
      UserError: if none was evaluated.
    """
    chosen = [
      (c.metrics['selection'], c.step)
      for c in self._checkpointer.checkpoints
      if c.metrics and 'selection' in c.metrics
    ]
    if not chosen:
      raise UserError(
        f'No checkpoint in {self._folder} was evaluated; take the last one.'
      )
    return max(chosen)[1]

  def restore(
    self, abstract: TrainState, step: int | None = None, *, warn=print
  ) -> TrainState | None:
    """Returns the newest state that can be read, or None if none was saved.

    Args:
      abstract: shapes, dtypes and shardings of the state. Who only uses the
        weights leaves `opt_state` and `memory` empty, and they are not read.
      step: one step instead of the newest.
      warn: is told of each checkpoint that cannot be read. A run moves it to
        `damaged/` beside the checkpoints, so that its step can be saved again.

    Raises:
      UserError: if checkpoints are there and none can be read, or if they hold
        arrays of other shapes.
    """
    steps = self.steps() if step is None else [step]
    # Of what is empty nothing is read, whatever was saved.
    wanted = {
      field.name: getattr(abstract, field.name)
      for field in dataclasses.fields(abstract)
      if jax.tree.leaves(getattr(abstract, field.name))
    }
    for saved in reversed(steps):
      hook = sys.unraisablehook
      sys.unraisablehook = functools.partial(_unless_loop_is_closed, hook)
      try:
        self._check_layout(saved, wanted)
        with _partial():
          found = self._checkpointer.load_checkpointables(
            saved, {'state': wanted}
          )['state']
        sys.unraisablehook = hook
        return abstract.replace(**found)
      except _DAMAGED as error:
        # One process alone may have failed, and an object store renames no
        # folder: only a person can decide then.
        alone = jax.process_count() == 1 and not paths.is_remote(self._folder)
        if saved == steps[0] or not alone:
          raise UserError(
            f'The checkpoint {self._folder / str(saved)} cannot be read '
            f'({_why(error)}); move it away to start from the one '
            'before, if there is one.'
          ) from error
        warn(
          f'The checkpoint of step {saved} is damaged '
          f'({_why(error)}); falling back to the one before.'
        )
        if not self._read_only:
          self._set_aside(saved)
    return None

  def _check_layout(self, step: int, wanted: dict[str, Any]) -> None:
    """Refuses a state of other arrays: it is none to be called damaged."""
    saved = self._checkpointer.checkpointables_metadata(step).metadata['state']
    if saved is None:
      raise ValueError('its description cannot be read')
    other = [
      name
      for name, tree in wanted.items()
      if _layout(saved.get(name)) != _layout(tree)
    ]
    path = self._folder / str(step)
    if other == ['opt_state']:
      raise UserError(
        f'The optimiser of {path} keeps other values than here, as another '
        'version of csdnet_jax does: its weights can be used, but it cannot be '
        'continued; start another --workdir with config.init_from='
        f'{self._folder.parent}.'
      )
    if other:
      raise UserError(
        f'{path} holds the state of another model or method; go back to the '
        'config that made it, or choose another --workdir.'
      )

  def _set_aside(self, step: int) -> None:
    self._checkpointer.close()
    aside = self._folder.parent / 'damaged'
    aside.mkdir(exist_ok=True)
    target = aside / str(step)
    while target.exists():  # The same step was damaged before.
      target = target.with_name(f'{target.name}_')
    (self._folder / str(step)).rename(target)
    self._open()

  def close(self) -> None:
    """Waits until everything is written; raises what a save raised."""
    self._checkpointer.close()


def _unless_loop_is_closed(hook, unraisable) -> None:
  # A failed load leaves reads behind, which then find Orbax's loop closed and
  # print a traceback each; what failed has been said by then.
  if 'Event loop is closed' not in str(unraisable.exc_value):
    hook(unraisable)


def _partial() -> ocp.Context:
  context = ocp.Context()
  context.pytree.loading.partial_load = True
  return context


def _layout(tree: Any) -> dict:
  """{path: shape} of every array; of what is empty too, with None."""
  nested = {'': serialization.to_state_dict(tree)}
  found = traverse_util.flatten_dict(nested, keep_empty_nodes=True)
  return {path: getattr(x, 'shape', None) for path, x in found.items()}


def _why(error: Exception) -> str:
  return f'{type(error).__name__}: {first_line(error)[:120]}'
