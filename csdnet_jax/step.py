"""The train step and the evaluation step: pure functions, per device."""

from collections.abc import Callable

import jax
import optax

from csdnet_jax import metrics, sharding
from csdnet_jax.methods.base import Context, Method
from csdnet_jax.state import TrainState, averaged


def make_train_step(
  method: Method,
  tx: optax.GradientTransformation,
  *,
  seed: int,
  ema: float = 0.0,
  axis: str | None = None,
) -> Callable:
  """Returns `(state, batch, frozen) -> (state, metrics)`.

  Args:
    method: what is trained.
    tx: the optimiser.
    seed: of the run; the step's key is `fold_in(key(seed), step)`.
    ema: decay of the averaged weights, 0 for none.
    axis: the device axis for collectives, or None.

  Returns:
    A function of the whole state (to be donated), this device's rows of the
    batch, and the method's frozen tree. Its metrics are the loss, its terms
    and `grad_norm` (before clipping), each [] float32.
  """

  def train_step(state: TrainState, batch, frozen):
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    view_key, loss_key = jax.random.split(key)
    rows = batch['label'].shape[0]
    batch = method.views(sharding.row_keys(view_key, rows, axis), batch)
    context = Context(
      state.model_state, state.memory, frozen, state.ema, state.step, axis
    )
    (_, aux), grads = jax.value_and_grad(method.loss, has_aux=True)(
      state.params, context, batch, loss_key
    )
    grads, figures = sharding.mean((grads, aux.metrics), axis)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.ema
    if ema:
      average = optax.incremental_update(
        (params, aux.model_state), state.ema, 1.0 - ema
      )
    state = TrainState(
      step=state.step + 1,
      params=params,
      model_state=aux.model_state,
      opt_state=opt_state,
      memory=method.update_memory(state.memory, aux.push),
      ema=average,
    )
    return state, figures | {'grad_norm': optax.tree.norm(grads)}

  return train_step


def make_eval_step(
  method: Method, *, classes: int, axis: str | None = None
) -> Callable:
  """Returns `(state, batch) -> (sums, embedding)`.

  The averaged weights are evaluated where there are any. The sums, over all
  devices, are those of `metrics.classification_figures`, to which padded rows
  (mask False) add nothing; the embedding is this device's, [B, C] float32.
  """

  def eval_step(state: TrainState, batch):
    params, model_state = averaged(state)
    outputs = method.predict(params, model_state, batch)
    sums = metrics.classification_sums(
      outputs['logits'], batch['label'], batch['mask'], classes
    )
    sums = sums if axis is None else jax.lax.psum(sums, axis)
    return sums, outputs['embedding']

  return eval_step
