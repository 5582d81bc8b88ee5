"""What a config and its data make: model, method, optimiser, compiled steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from csdnet_jax import methods, models, optim, sharding, tasks
from csdnet_jax.methods import Method
from csdnet_jax.models import Model, target
from csdnet_jax.runtime import plugins
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.fields import is_zero
from csdnet_jax.state import TrainState, streams
from csdnet_jax.step import make_train_step
from csdnet_jax.tasks.base import Program
from csdnet_jax.training.fit import step_of, steps_of


class Parts(NamedTuple):
  """What a config makes before anything is compiled: pure functions.

  Attributes:
    method: what is trained.
    init: `(params, model_state) -> TrainState`.
    train_step: see `step.make_train_step`.
  """

  method: Method
  init: Callable[[Any, Any], TrainState]
  train_step: Callable


def build(config, *, classes: int, n_train: int, devices=None) -> Program:
  """Makes the model, the method and the compiled steps of a config.

  Args:
    config: checked by `config.validate` and fitted to `n_train` (`fit`).
    classes: of the data set.
    n_train: training images.
    devices: to run on; all of them where None.

  Raises:
    UserError: if the config does not fit the data or the devices.
  """
  mesh = sharding.make_mesh(devices)
  model = network(config, classes)
  made = parts(
    config, model, n_train=n_train, seed=config.seed,
    axis=sharding.axis_of(mesh), platform=target.of(mesh.devices.flat[0]),
  )  # fmt: skip
  method = made.method
  require_even(config, method, mesh.size)
  # One program, where each leaf of the optimiser would be one of its own.
  first = jax.jit(made.init)

  def init(params=None, model_state=None) -> TrainState:
    if params is None:
      key = streams(config.seed).init
      params, model_state = model.init(key, config.model.size)
    return first(params, model_state)

  return Program(
    mesh, method, model, steps_of(config, n_train), init,
    sharding.compile_step(
      made.train_step, mesh, donate=True, parallel=config.parallel
    ),
    tasks.of(config).compile_eval(config, method, mesh, classes),
  )  # fmt: skip


def require_even(config, method: Method, devices: int) -> None:
  """Refuses a batch that devices and micro-batches cannot share evenly."""
  least = devices * config.accumulate * method.group
  if config.batch_size % least:
    groups = f' in groups of {method.group}' if method.group > 1 else ''
    raise UserError(
      f'config.batch_size is {config.batch_size}, which {devices} devices '
      f'cannot share evenly in {config.accumulate} micro-batches '
      f'(config.accumulate){groups}; make it a multiple of {least}.'
    )


def network(config, classes: int) -> Model:
  """Returns the network of a config.

  Raises:
    UserError: if it does not do what the method trains.
  """
  _require_network(config)
  return models.build(
    config.model.name,
    classes=classes,
    drop_rate=config.model.drop_rate,
    drop_path=config.model.drop_path,
    remat=config.model.remat,
    dtype=config.model.dtype,
    freeze_bn=config.model.freeze_bn,
    **({'width': config.model.width} if config.model.width else {}),
    **_own_fields(config),
  )


def parts(
  config,
  model: Model,
  *,
  n_train: int,
  seed,
  axis: str | None = None,
  platform: str,
) -> Parts:
  """Returns the method, the first state and the step of a config.

  Args:
    config: as for `build`, or `Values` of it, of which JAX may trace the
      numbers of `views`, `optim`, `method` and `ema`.
    model: of `network`.
    n_train: training images.
    seed: of the run, [] int32.
    axis: the device axis for collectives, or None.
    platform: of the devices, see `target.of`; all that forwards a network is
      traced for it.
  """
  method = methods.make(config, model)
  method = method._replace(
    loss=target.traced_for(platform, method.loss),
    predict=target.traced_for(platform, method.predict),
    pictures=target.traced_for(platform, method.pictures),
  )
  keys = streams(seed)

  def with_extras(params):
    """The network's parameters and those of training alone beside them."""
    width = model.head(params)[0].shape[0]
    return params | {
      name: extra.init(jax.random.fold_in(keys.extras, i), width)
      for i, (name, extra) in enumerate(method.extras.items())
    }

  shapes = jax.eval_shape(
    lambda: with_extras(model.init(keys.init, config.model.size)[0])
  )
  partitions = {name: e.tx for name, e in method.extras.items() if e.tx}
  warmup = config.optim.warmup
  tx = optim.make(
    config.optim, shapes, steps=step_of(config, config.epochs, n_train),
    warmup_steps=step_of(config, warmup, n_train) if warmup else 0,
    partitions=partitions, extras=method.extras,
  )  # fmt: skip

  # Nothing of a step is kept, and saved, where none is taken.
  steps = steps_of(config, n_train)

  def init(params, model_state) -> TrainState:
    width = model.head(params)[0].shape[0]
    whole = with_extras(params)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=whole,
      model_state=model_state,
      opt_state=tx.init(whole) if steps else (),
      memory=method.init_memory(width),
      ema=(params, model_state) if steps and not is_zero(config.ema) else (),
    )

  train_step = make_train_step(
    method, tx, seed=seed, ema=config.ema, accumulate=config.accumulate,
    axis=axis,
    labels=optim.partition(config.optim, shapes, partitions, method.extras),
  )  # fmt: skip
  return Parts(method, init, train_step)


def _own_fields(config) -> dict[str, Any]:
  """Returns the values of the fields that the network brings itself."""
  name = config.model.name
  if not models.find(name).fields:
    return {}
  return config.model[plugins.section(name)].to_dict()


def _require_network(config) -> None:
  """Refuses networks that do not do what the method trains."""
  segments = methods.task(config) == 'segmentation'
  fields = {'config.model.name': config.model.name}
  if segments and config.teacher.model:
    fields['config.teacher.model'] = config.teacher.model
  for field, name in fields.items():
    if models.segments(name) != segments:
      other = 'psp_resnet18' if segments else 'efficientnet_lite0'
      raise UserError(
        f'{field}={name} is no network for config.method.name='
        f'{config.method.name}, which is for {methods.task(config)}; take one '
        f'such as {other}.'
      )
  if segments and (config.model.freeze_bn or config.init_head == 'probe'):
    raise UserError(
      "config.model.freeze_bn and config.init_head='probe' are for "
      "classification; leave them False and 'loaded'."
    )
  if config.model.width and not segments:
    raise UserError(
      f'config.model.width is {config.model.width}, but only segmentation '
      'networks have a width to choose; leave it 0.'
    )
