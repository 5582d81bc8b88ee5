"""The weights that a run starts from."""

from collections.abc import Sequence
from typing import Any

import jax

from csdnet_jax import methods
from csdnet_jax.models import Model
from csdnet_jax.models.weights import pretrained, published
from csdnet_jax.runtime import paths, processes
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import say
from csdnet_jax.state import averaged, streams
from csdnet_jax.training.restore import read_run, restore_run


def initial_weights(
  config, model: Model, class_names: Sequence[str]
) -> tuple[Any, Any, dict]:
  """Returns (params, model_state, load report) as `config.init_from` says.

  Args:
    config: of the run.
    program: of the run.
    class_names: of its data set; the head of another run is taken by them.

  Raises:
    UserError: if the source is missing, cannot be fetched, or is of another
      architecture.
  """
  key = streams(config.seed).init
  params, model_state = jax.jit(model.init, static_argnums=1)(
    key, config.model.size
  )
  source = config.init_from
  if not source:
    say(
      'Training from random weights: with few images a class expect far less '
      'than from pretrained weights (config.init_from).',
      style='bold yellow',
    )
    origin = {'source': 'random', 'seed': config.seed}
    return params, model_state, {'origin': origin}
  # What may be absent comes first: restoring a run waits for all processes.
  with processes.collective():
    if source not in published.WORDS and paths.of(source).is_dir():
      theirs, loaded = _run_of_same_model(paths.of(source), config), None
    else:
      loaded = pretrained.load(
        source, config.model.name, params, model_state,
        classes=len(class_names), allow=config.init_allow,
      )  # fmt: skip
  params, model_state, described = loaded or _from_run(
    paths.of(source), theirs, (params, model_state), class_names
  )
  say(f'Weights: {described}')
  return params, model_state, described.full()


def _run_of_same_model(source: paths.Path, config):
  """The config and the split of a run of ours that can be started from."""
  theirs, split = read_run(source)
  if theirs.model.name != config.model.name:
    raise UserError(
      f'config.init_from={source} is a run of {theirs.model.name}, but '
      f'config.model.name is {config.model.name}; make them the same.'
    )
  return theirs, split


def _from_run(source: paths.Path, theirs, target, class_names):
  """The weights of a run of ours, of the head those of the same classes."""
  config, split = theirs
  program, state = restore_run(
    source, config, split, devices=jax.local_devices()[:1]
  )
  # Class means read embeddings of length 1, which no trained head does.
  means = methods.fitted(config) == 'prototypes'
  return pretrained.transfer(
    averaged(jax.device_get(state), program.method.extras),
    target,
    theirs=[] if means else split['class_names'],
    ours=class_names,
    origin={'source': str(source)},
  )
