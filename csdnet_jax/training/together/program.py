"""The program of R runs: the ordinary step, mapped over runs.

Each run has its own seed, its own rows of the images and its own numbers; what
Python reads of the config is that of all (`grouping.groups`).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from csdnet_jax import methods
from csdnet_jax.models import Model, kernels, target
from csdnet_jax.step import make_eval_step
from csdnet_jax.training.build import network, parts, require_even
from csdnet_jax.training.together.grouping import with_numbers

# Steps at most that one call takes, whose figures it returns.
MOST_STEPS = 1024


class Arguments(NamedTuple):
  """What R runs differ in.

  Attributes:
    seed: int32 [R].
    numbers: {name: float32 [R]}, see `grouping.differing`.
    train: int32 [R, n_train], the rows of the images that each learns from;
      of the most that one has, -1 beyond those of the others, which no order
      reads.
  """

  seed: jax.Array
  numbers: dict[str, jax.Array]
  train: jax.Array


class Program(NamedTuple):
  """What R runs of a group share, as jitted functions.

  Attributes:
    model: the network.
    init: `(arguments, params, model_state) -> states`; all have a leading axis
      of runs, as in what follows.
    advance: `(states, arguments, images, order, first, count) -> (states,
      {name: [R, MOST_STEPS]})`, `count` steps from step `first` on, where
      `order` is int32 [steps, R, B], see `batches.order`. The states are
      donated. What lies beyond `count` in the figures is 0.
    evaluate: `(states, arguments, images, rows) -> (sums, outputs)` of rows
      int32 [n, R, B], -1 for none; what `step.make_eval_step` gives, all with
      leading axes [n, R].
  """

  model: Model
  init: Callable
  advance: Callable
  evaluate: Callable


def make(config, *, classes: int, n_train: int) -> Program:
  """Makes the functions of a group of runs.

  Args:
    config: of any run of the group, fitted.
    classes: of the data set.
    n_train: training images of that run.

  Raises:
    UserError: if the config has no network for its method, or its batch cannot
      be cut into its micro-batches.
  """
  model = network(config, classes)
  platform = target.of(jax.local_devices()[0])
  require_even(config, methods.make(config, model), 1)

  def many(function):
    """A function of one run, of R runs."""
    mapped = jax.vmap(function)

    def of_many(*args):
      with kernels.of_many_networks():
        return mapped(*args)

    return of_many

  def of_run(run: Arguments):
    values = with_numbers(config, run.numbers)
    return parts(
      values, model, n_train=n_train, seed=run.seed, platform=platform
    )

  def init(arguments, params, model_state):
    return many(lambda run, *weights: of_run(run).init(*weights))(
      arguments, params, model_state
    )

  def advance(states, arguments, images, order, first, count):
    def one(run, state, ids):
      places = run.train[ids]
      batch = {
        'image': images.canvases[places],
        'extent': images.extents[places],
        'label': images.labels[places],
        'id': ids,
      }
      return of_run(run).train_step(state, batch, ())

    # Jitted, so that asking for the shapes traces no second time.
    step = jax.jit(many(one))
    _, figures = jax.eval_shape(step, arguments, states, order[0])

    def body(i, carry):
      states, figures = carry
      states, new = step(arguments, states, order[first + i])
      return states, jax.tree.map(
        lambda all_, x: all_.at[:, i].set(x), figures, new
      )

    figures = jax.tree.map(
      lambda x: jnp.zeros((*x.shape, MOST_STEPS), x.dtype), figures
    )
    return jax.lax.fori_loop(0, count, body, (states, figures))

  def evaluate(states, arguments, images, rows):
    def one(run, state, places):
      mask = places >= 0
      places = jnp.maximum(places, 0)
      batch = {
        'image': images.views[places],
        'label': images.labels[places],
        'mask': mask,
      }
      return make_eval_step(of_run(run).method, classes=classes)(state, batch)

    def batch(_, places):
      return None, many(one)(arguments, states, places)

    return jax.lax.scan(batch, None, rows)[1]

  return Program(
    model,
    jax.jit(init),
    jax.jit(advance, donate_argnums=0),
    jax.jit(evaluate),
  )
