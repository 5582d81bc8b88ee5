"""What a config and its data make: weights, method, optimiser, steps."""

import contextlib
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from csdnet_jax import (
  checkpoint,
  config as config_lib,
  methods,
  models,
  optim,
  sharding,
  state as state_lib,
  step as step_lib,
  tasks,
)
from csdnet_jax.models.weights import pretrained
from csdnet_jax.runtime import paths, processes
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import say


class Run(NamedTuple):
  """What a config and a data set make: everything that is compiled."""

  mesh: jax.sharding.Mesh
  method: methods.Method
  model: models.Model
  steps: int  # Of the whole run.
  init: Any  # () -> TrainState on the host, from random values.
  train_step: Any  # (state, batch, frozen) -> (state, metrics)
  eval_step: Any  # What the task's `compile_eval` returns.


def build(config, *, classes: int, n_train: int, devices=None) -> Run:
  """Makes the model, the method and the compiled steps of a config.

  Args:
    config: checked by `config.validate`; fitted to `n_train` here, in place.
    classes: of the data set.
    n_train: training images.
    devices: to run on; all of them where None.

  Raises:
    UserError: if the config does not fit the data or the devices.
  """
  fit(config, n_train)
  steps = step_of(config, config.epochs, n_train)
  mesh = sharding.make_mesh(devices)
  _require_network(config)
  model = models.build(
    config.model.name,
    classes=classes,
    drop_rate=config.model.drop_rate,
    drop_path=config.model.drop_path,
    remat=config.model.remat,
    dtype=config.model.dtype,
    **({'width': config.model.width} if config.model.width else {}),
  )
  method = methods.make(config, model)
  least = mesh.size * config.accumulate * method.group
  if config.batch_size % least:
    groups = f' in groups of {method.group}' if method.group > 1 else ''
    raise UserError(
      f'config.batch_size is {config.batch_size}, which {mesh.size} devices '
      f'cannot share evenly in {config.accumulate} micro-batches '
      f'(config.accumulate){groups}; make it a multiple of {least}.'
    )
  key = jax.random.key(config.seed)
  size = config.model.size

  def with_extras(params):
    """The network's parameters and those of training alone beside them."""
    width = model.head(params)[0].shape[0]
    return params | {
      name: extra.init(jax.random.fold_in(key, i), width)
      for i, (name, extra) in enumerate(method.extras.items(), 1)
    }

  shapes = jax.eval_shape(lambda: with_extras(model.init(key, size)[0]))
  apart = {name: e.tx for name, e in method.extras.items() if e.tx}
  tx = optim.make(
    config.optim, shapes, steps=steps,
    warmup_steps=step_of(config, config.optim.warmup, n_train)
    if config.optim.warmup else 0,
    apart=apart,
  )  # fmt: skip

  def init(params=None, model_state=None) -> state_lib.TrainState:
    if params is None:
      params, model_state = model.init(key, size)
    width = model.head(params)[0].shape[0]
    whole = with_extras(params)
    return state_lib.TrainState(
      step=jnp.zeros((), jnp.int32),
      params=whole,
      model_state=model_state,
      opt_state=tx.init(whole),
      memory=method.init_memory(width),
      ema=(params, model_state) if config.ema else (),
    )

  train_step = step_lib.make_train_step(
    method, tx, seed=config.seed, ema=config.ema,
    accumulate=config.accumulate, axis=sharding.axis_of(mesh),
    trained=optim.trained(config.optim, shapes, apart),
  )  # fmt: skip
  return Run(
    mesh, method, model, steps, init,
    sharding.compile_step(
      train_step, mesh, donate=True, parallel=config.parallel
    ),
    tasks.of(config).compile_eval(config, method, mesh, classes),
  )  # fmt: skip


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
  if config.model.width and not segments:
    raise UserError(
      f'config.model.width is {config.model.width}, but only segmentation '
      'networks have a width to choose; leave it 0.'
    )


def fit(config, n_train: int) -> list[str]:
  """Fits a config to the size of its train set, in place.

  Args:
    config: of the run.
    n_train: training images.

  Returns:
    What was changed, in sentences.

  Raises:
    UserError: if the train set is too small for the config.
  """
  if config.batch_size > n_train:
    raise UserError(
      f'config.batch_size is {config.batch_size}, more than the {n_train} '
      'training images; lower it.'
    )
  return methods.fit(config, n_train)


def step_of(config, epoch: float, n_train: int) -> int:
  """Returns the step at which `epoch` epochs are seen, at least 1."""
  return max(1, round(epoch * n_train / config.batch_size))


def initial_weights(config, run: Run, classes: int) -> tuple[Any, Any, dict]:
  """Returns (params, model_state, load report) as `config.init_from` says.

  Raises:
    UserError: if the source is missing or is of another architecture.
  """
  key = jax.random.key(config.seed)
  params, model_state = jax.jit(run.model.init, static_argnums=1)(
    key, config.model.size
  )
  source = config.init_from
  if not source:
    say(
      'Training from random weights: with few images a class expect far less '
      'than from ImageNet weights (config.init_from).',
      style='bold yellow',
    )
    origin = {'source': 'random', 'seed': config.seed}
    return params, model_state, {'origin': origin}
  # What may be absent comes first: restoring a run waits for all processes.
  with processes.together():
    if paths.of(source).is_dir():
      theirs, loaded = _run_of_same_model(paths.of(source), config), None
    else:
      loaded = pretrained.load(
        source, config.model.name, params, model_state,
        classes=classes, allow=config.init_allow,
      )  # fmt: skip
  params, model_state, described = loaded or _from_run(
    paths.of(source), theirs, params, model_state
  )
  say(f'Weights: {described}')
  return params, model_state, described.full()


def _run_of_same_model(source: paths.Path, config):
  """The config of a run of ours that can be started from."""
  theirs, _ = read_run(source)
  if theirs.model.name != config.model.name:
    raise UserError(
      f'config.init_from={source} is a run of {theirs.model.name}, but '
      f'config.model.name is {config.model.name}; make them the same.'
    )
  return theirs


def _from_run(source: paths.Path, theirs, params, model_state):
  """The weights of a run of ours; the head too if it has as many classes."""
  run, state = restore_run(source, theirs, devices=jax.local_devices()[:1])
  return pretrained.transfer(
    state_lib.averaged(jax.device_get(state), run.method.extras),
    (params, model_state),
    origin={'source': str(source)},
  )


def restore_run(
  workdir: paths.Path, config, *, devices=None, step: int | None = None
) -> tuple[Run, state_lib.TrainState]:
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


def read_run(workdir: paths.Path) -> tuple[Any, dict]:
  """Returns the config and the split of a workdir.

  Raises:
    UserError: if it is no workdir of ours.
  """
  try:
    config = config_lib.from_json((workdir / 'config.json').read_text())
    split = json.loads((workdir / 'split.json').read_text())
  except FileNotFoundError as error:
    raise UserError(
      f'{workdir} is not the workdir of a run: {error.filename or error} is '
      'missing.'
    ) from error
  return config, split


def describe_run(config, run: Run, params, n_train: int) -> None:
  """Says what is about to be trained, in effective figures."""
  extras = run.method.extras
  apart = [name for name, extra in extras.items() if extra.tx]
  total = _count(state_lib.network(params, extras))
  say(
    f'{config.method.name} with {config.model.name} at {config.model.size} px, '
    f'{total:,} parameters, on {run.mesh.size} x '
    f'{run.mesh.devices.flat[0].device_kind}.'
  )
  micro = (
    f' in {config.accumulate} micro-batches' if config.accumulate > 1 else ''
  )
  say(
    f'Global batch {config.batch_size} images{micro}, {run.method.forwards} '
    f'views each; {n_train / config.batch_size:.1f} steps per epoch, '
    f'{run.steps} steps in {config.epochs:g} epochs, {config.optim.name}:'
  )
  for line in optim.describe(config.optim, state_lib.network(params, apart)):
    say(f'  {line}')
  for name in apart:
    say(
      f'  {name}, an optimiser of its own: {_count(params[name]):,} parameters'
    )


def _count(params) -> int:
  return sum(x.size for x in jax.tree.leaves(params))
