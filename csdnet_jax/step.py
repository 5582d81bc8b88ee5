"""The train step and the evaluation step: pure functions, per device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from csdnet_jax import optim, sharding
from csdnet_jax.evaluation import metrics
from csdnet_jax.methods.base import Aux, Context, Method
from csdnet_jax.runtime.fields import is_zero
from csdnet_jax.state import TrainState, averaged, network, streams


def make_train_step(
  method: Method,
  tx: optax.GradientTransformation,
  *,
  seed: int | jax.Array,
  ema: float | jax.Array = 0.0,
  accumulate: int = 1,
  axis: str | None = None,
  labels: Any = None,
) -> Callable:
  """Returns `(state, batch, frozen) -> (state, metrics)`.

  Args:
    method: what is trained.
    tx: the optimiser.
    seed: of the run, [] int32; the step's key is `fold_in(streams(seed).loop,
      step)`.
    ema: decay of the averaged weights, 0 for none.
    accumulate: n micro-batches, one after the other, whose mean gradient makes
      one update. Each sees the memory of the step's start and its own rows as
      in-batch candidates; all their keys are pushed at the end.
    axis: the device axis for collectives, or None.
    labels: of `optim.partition`, or None where all is trained: what is frozen
      has no gradient, and `grad_norm` is of what the one optimiser moves.

  Returns:
    A function of the whole state (to be donated), this device's rows of the
    batch, ordered by `sharding.row_order`, and the method's frozen tree. Its
    metrics are the loss, its terms and `grad_norm` (before clipping), each []
    float32.
  """

  def learnt(tree):
    """A tree like the parameters without what is frozen."""
    if labels is None:
      return tree
    return jax.tree.map(
      lambda label, x: None if label == optim.FREEZE else x, labels, tree
    )

  def whole(part, tree):
    """The tree with what `learnt` has of it from `part`."""
    return jax.tree.map(
      lambda x, old: old if x is None else x, part, tree,
      is_leaf=lambda x: x is None,
    )  # fmt: skip

  def gradient(state, model_state, batch, frozen, key):
    """This device's gradient of one micro-batch, and what comes with it."""
    view_key, loss_key = jax.random.split(key)
    rows = batch['id'].shape[0]
    batch = method.views(sharding.row_keys(view_key, rows, axis), batch)
    context = Context(model_state, state.memory, frozen, axis)

    def loss(part):
      return method.loss(whole(part, state.params), context, batch, loss_key)

    (_, aux), grads = jax.value_and_grad(loss, has_aux=True)(
      learnt(state.params)
    )
    return grads, aux

  def accumulated(state, batch, frozen, key):
    """The mean of `gradient` over the micro-batches."""

    def micro_step(carry, micro):
      total, model_state = carry
      i, rows = micro
      grads, aux = gradient(
        state, model_state, rows, frozen, jax.random.fold_in(key, i)
      )
      total = jax.tree.map(jnp.add, total, grads)
      return (total, aux.model_state), (aux.push, aux.metrics)

    micro = jax.tree.map(
      lambda x: x.reshape(accumulate, -1, *x.shape[1:]), batch
    )
    zeros = jax.tree.map(jnp.zeros_like, learnt(state.params))
    (total, model_state), (push, figures) = jax.lax.scan(
      micro_step,
      (zeros, state.model_state),
      (jnp.arange(accumulate), micro),
    )
    grads = jax.tree.map(lambda g: g / accumulate, total)
    push = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), push)
    figures = jax.tree.map(jnp.mean, figures)
    return grads, Aux(model_state, push, figures)

  def train_step(state: TrainState, batch, frozen):
    key = jax.random.fold_in(streams(seed).loop, state.step)
    if accumulate == 1:
      grads, aux = gradient(state, state.model_state, batch, frozen, key)
    else:
      grads, aux = accumulated(state, batch, frozen, key)
    grads, figures = sharding.mean((grads, aux.metrics), axis)
    grads = whole(grads, jax.tree.map(jnp.zeros_like, state.params))
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    moved = optax.apply_updates(learnt(state.params), learnt(updates))
    params = whole(moved, state.params)
    average = state.ema
    if not is_zero(ema):
      average = optax.incremental_update(
        (network(params, method.extras), aux.model_state), state.ema, 1.0 - ema
      )
    state = TrainState(
      step=state.step + 1,
      params=params,
      model_state=aux.model_state,
      opt_state=opt_state,
      memory=method.update_memory(state.memory, aux.push),
      ema=average,
    )
    if labels is not None:
      grads = jax.tree.map(
        lambda label, g: g if label == optim.TRAIN else None, labels, grads
      )
    return state, figures | {'grad_norm': optax.tree.norm(grads)}

  return train_step


def make_eval_step(
  method: Method, *, classes: int, axis: str | None = None
) -> Callable:
  """Returns `(state, batch) -> (sums, outputs)`.

  The averaged weights are evaluated where there are any. The sums, over all
  devices, are those of `metrics.classification_figures`, to which padded rows
  (mask False) add nothing; the outputs are this device's rows of the method's
  `predict`.
  """

  def eval_step(state: TrainState, batch):
    params, model_state = averaged(state)
    outputs = method.predict(params, model_state, batch)
    sums = metrics.classification_sums(
      outputs['logits'], batch['label'], batch['mask'], classes
    )
    sums = sums if axis is None else jax.lax.psum(sums, axis)
    return sums, outputs

  return eval_step
