"""What a run carries from step to step, and saves."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import flax.struct
import jax


@flax.struct.dataclass
class TrainState:
  """All of it is donated to the step and all of it is saved.

  There is no PRNG key: a step's key is `fold_in(streams(seed).loop, step)`, so
  that a resumed run needs none.

  Attributes:
    step: [] int32, optimiser steps taken.
    params: the parameters; beside the network's, at the top level, those that
      a method needs for training alone (`methods.base.Extra`).
    model_state: BatchNorm's running averages, or {}.
    opt_state: Optax's state.
    memory: the method's: CSDNet's ring buffer, or ().
    ema: the averaged (params, model_state) of the network, or ().
  """

  step: jax.Array
  params: Any
  model_state: Any
  opt_state: Any
  memory: Any
  ema: Any


class Streams(NamedTuple):
  """The three disjoint streams of randomness of a run, a PRNG key each.

  Attributes:
    init: initial values of the network.
    extras: initial values of what training alone needs.
    loop: a step's key is `fold_in(loop, step)`.
  """

  init: jax.Array
  extras: jax.Array
  loop: jax.Array


def streams(seed: int | jax.Array) -> Streams:
  """Returns the streams of a run; no key serves twice."""
  return Streams(*jax.random.split(jax.random.key(seed), 3))


def averaged(state: TrainState, extras: Iterable[str] = ()) -> tuple[Any, Any]:
  """Returns the (params, model_state) to evaluate: the EMA where it is on.

  Args:
    state: of a run.
    extras: names of parameters that are left out, for what leaves the run.
  """
  if state.ema:
    return state.ema
  return network(state.params, extras), state.model_state


def with_head(
  state: TrainState, head: dict[str, Any], place: Callable[[Any], Any]
) -> TrainState:
  """Returns a state that starts with another head, its average as well.

  Args:
    state: of step 0.
    head: `kernel` and `bias` of the last layer.
    place: puts arrays where those of the state are. It is called for each copy,
      since the state is donated.
  """
  ema = state.ema
  if ema:
    params, model_state = ema
    ema = params | {'head': place(head)}, model_state
  return state.replace(params=state.params | {'head': place(head)}, ema=ema)


def network(params: dict[str, Any], extras: Iterable[str]) -> dict[str, Any]:
  """Returns the parameters without those of these names."""
  return {name: tree for name, tree in params.items() if name not in extras}
