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
  paths,
  sharding,
  state as state_lib,
  step as step_lib,
)
from csdnet_jax.data import pipeline, report, sources, splits
from csdnet_jax.errors import UserError
from csdnet_jax.models import pretrained
from csdnet_jax.terminal import progress_bar, say


class Data(NamedTuple):
  """A data set made ready: the split, and arrays on the host.

  Attributes:
    dataset: names, labels and classes of every part.
    train: canvases for random views.
    views: {'train', 'val', 'test'}: the finished test views of each part.
  """

  dataset: splits.Dataset
  train: pipeline.Prepared
  views: dict[str, pipeline.Prepared]


class Run(NamedTuple):
  """What a config and a data set make: everything that is compiled."""

  mesh: jax.sharding.Mesh
  method: methods.Method
  model: models.Model
  steps: int  # Of the whole run.
  init: Any  # () -> TrainState on the host, from random values.
  train_step: Any  # (state, batch, frozen) -> (state, metrics)
  eval_step: Any  # (state, batch) -> (sums, outputs)


def prepare_data(config, dataset: splits.Dataset) -> tuple[Data, dict]:
  """Decodes a data set once into the cache, and reports on it.

  Returns:
    The arrays, and the figures of the report.

  Raises:
    UserError: lists every unreadable image; with `config.data.strict`, for
      what the report finds.
  """
  c = config.data
  digests = {
    name: pipeline.digests(part)
    for name, part in splits.parts_of(dataset).items()
  }
  with progress_bar('images decoded') as progress:
    parts = pipeline.prepare(
      dataset, digests, canvas=c.canvas, size=config.model.size,
      resize=c.test_resize, square=c.aspect == 'square',
      cache_dir=sources.cache_dir(c.cache), progress=progress,
    )  # fmt: skip
  views = {'train': parts.train_view, 'val': parts.val, 'test': parts.test}
  views = {name: part for name, part in views.items() if part is not None}
  sizes = {name: part.sizes for name, part in views.items()}
  checked = report.data_report(dataset, digests, sizes, strict=c.strict)
  say(checked.text)
  return Data(dataset, parts.train, views), checked.figures


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
  if config.batch_size % (mesh.size * config.accumulate):
    raise UserError(
      f'config.batch_size is {config.batch_size}, which {mesh.size} devices '
      f'cannot share evenly in {config.accumulate} micro-batches '
      '(config.accumulate); make it a multiple of '
      f'{mesh.size * config.accumulate}.'
    )
  model = models.build(
    config.model.name,
    classes=classes,
    drop_rate=config.model.drop_rate,
    drop_path=config.model.drop_path,
    remat=config.model.remat,
    dtype=config.model.dtype,
  )
  method = methods.make(config, model)
  key = jax.random.key(config.seed)
  size = config.model.size
  params, _ = jax.eval_shape(lambda: model.init(key, size))
  tx = optim.make(
    config.optim, params, steps=steps,
    warmup_steps=step_of(config, config.optim.warmup, n_train)
    if config.optim.warmup else 0,
  )  # fmt: skip

  def init(params=None, model_state=None) -> state_lib.TrainState:
    if params is None:
      params, model_state = model.init(key, size)
    width = model.head(params)[0].shape[0]
    return state_lib.TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      model_state=model_state,
      opt_state=tx.init(params),
      memory=method.init_memory(width),
      ema=(params, model_state) if config.ema else (),
    )

  axis = sharding.axis_of(mesh)
  train_step = step_lib.make_train_step(
    method, tx, seed=config.seed, ema=config.ema,
    accumulate=config.accumulate, axis=axis,
  )  # fmt: skip
  eval_step = step_lib.make_eval_step(method, classes=classes, axis=axis)
  return Run(
    mesh, method, model, steps, init,
    sharding.compile_step(
      train_step, mesh, donate=True, parallel=config.parallel
    ),
    sharding.compile_step(
      eval_step, mesh, donate=False, parallel=config.parallel,
      out_specs=(sharding.REPLICATED, sharding.ROWS),
    ),
  )  # fmt: skip


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
  if paths.of(source).is_dir():
    loaded = _from_run(paths.of(source), config, params, model_state)
  else:
    loaded = pretrained.load(
      source, config.model.name, params, model_state,
      classes=classes, allow=config.init_allow,
    )  # fmt: skip
  params, model_state, described = loaded
  say(f'Weights: {described}')
  return params, model_state, described.full()


def _from_run(source: paths.Path, config, params, model_state):
  """The weights of a run of ours; the head too if it has as many classes."""
  theirs, _ = read_run(source)
  if theirs.model.name != config.model.name:
    raise UserError(
      f'config.init_from={source} is a run of {theirs.model.name}, but '
      f'config.model.name is {config.model.name}; make them the same.'
    )
  _, state = restore_run(source, theirs, devices=jax.local_devices()[:1])
  return pretrained.transfer(
    state_lib.averaged(jax.device_get(state)),
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
  total = sum(x.size for x in jax.tree.leaves(params))
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
  for line in optim.describe(config.optim, params):
    say(f'  {line}')
