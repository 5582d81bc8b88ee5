"""What a run carries from step to step, and saves."""

from typing import Any

import flax.struct
import jax


@flax.struct.dataclass
class TrainState:
  """All of it is donated to the step and all of it is saved.

  There is no PRNG key: a step's key is `fold_in(key(seed), step)`, so that a
  resumed run needs none.

  Attributes:
    step: [] int32, optimiser steps taken.
    params: the parameters.
    model_state: BatchNorm's running averages, or {}.
    opt_state: Optax's state.
    memory: the method's: CSDNet's ring buffer, or ().
    ema: the averaged (params, model_state), or ().
  """

  step: jax.Array
  params: Any
  model_state: Any
  opt_state: Any
  memory: Any
  ema: Any


def averaged(state: TrainState) -> tuple[Any, Any]:
  """Returns the (params, model_state) to evaluate: the EMA where it is on."""
  return state.ema if state.ema else (state.params, state.model_state)
