"""What runs of a group start from: saved states, or weights and baselines."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from csdnet_jax import sharding
from csdnet_jax.data.images import splits
from csdnet_jax.runtime import writers
from csdnet_jax.runtime.terminal import say
from csdnet_jax.state import TrainState, with_head
from csdnet_jax.tasks import baselines, classification
from csdnet_jax.training import head
from csdnet_jax.training.initial import initial_weights
from csdnet_jax.training.together.group import Group, outputs_in_order


def restored(group: Group, checkpoints) -> TrainState | None:
  """The states of all runs, if they were saved."""
  size = group.config.model.size
  keys = jax.random.split(jax.random.key(0), len(group.runs))
  weights = jax.eval_shape(
    jax.vmap(lambda key: group.program.model.init(key, size)), keys
  )
  mesh = sharding.make_mesh(jax.local_devices()[:1])
  shapes = jax.eval_shape(group.program.init, group.arguments, *weights)
  states = checkpoints.restore(sharding.abstract(shapes, mesh), warn=say)
  if states is None:
    return None
  say(f'Continuing from step {int(states.step[0])}.')
  # As the first states are: a program is compiled for one kind of arrays.
  return jax.device_put(states, jax.local_devices()[0])


def first(group: Group, *, measure: bool) -> TrainState:
  """The first states; leaves of each run what it starts from.

  Args:
    group: of the runs.
    measure: whether the baselines are, else `start.json` holds none.
  """
  by_seed = {}  # Nothing else of the runs of a group decides them.
  for run in group.runs:
    if run.config.seed not in by_seed:
      *read, loaded = initial_weights(
        run.config, group.program.model, run.dataset.class_names
      )
      by_seed[run.config.seed] = jax.device_get(tuple(read)), loaded
  weights = [by_seed[run.config.seed][0] for run in group.runs]
  for run in group.runs:
    loaded = by_seed[run.config.seed][1]
    writers.write_json(run.workdir / 'weights.json', loaded)
  stacked = jax.tree.map(lambda *x: np.stack(x), *weights)
  states = group.program.init(group.arguments, *stacked)
  # Copies, since the states are donated: the average starts as the weights.
  states = jax.tree.map(jnp.array, states)
  figures = [{}] * len(group.runs)
  judge = classification.judge_of(splits.parts_of(group.runs[0].dataset))
  if measure and judge != 'train':
    figures = _baselines(group, states, weights, judge)
  for run, found in zip(group.runs, figures, strict=True):
    writers.write_json(run.workdir / 'start.json', found)
  return _with_heads(group, states)


def _with_heads(group: Group, states: TrainState) -> TrainState:
  """The states with the heads that are fitted, each run's to its images."""
  names = [head.fitted(run.config) for run in group.runs]
  if not any(names):
    return states
  heads = jax.tree.map(np.array, states.params['head'])
  found = outputs_in_order(group, states, 'train')
  for r, (name, own) in enumerate(zip(names, found, strict=True)):
    if name:
      for key, x in head.fit(name, own['embedding'], own['label']).items():
        heads[key][r] = x
  return with_head(states, heads, lambda x: jax.tree.map(jnp.array, x))


def _baselines(group, states, weights, judge) -> list[dict[str, float]]:
  """The baselines of each run, measured where no file holds them yet."""
  places = [
    baselines.place(run.config, run.dataset, *own)
    for run, own in zip(group.runs, weights, strict=True)
  ]
  known = {path: baselines.read(path) for path in places}
  if not all(known.values()):
    known = _measured(group, states, places, known, judge)
  return [known[path] for path in places]


def _measured(
  group: Group, states, places: list[pathlib.Path], known: dict, judge: str
) -> dict[pathlib.Path, dict[str, float]]:
  """The baselines of all runs, those measured that no file holds yet."""
  known = dict(known)
  say('Measuring the baselines on the initial features ...')
  parts = [outputs_in_order(group, states, part) for part in ('train', judge)]
  for r, path in enumerate(places):
    if known[path]:
      continue
    args = [
      found[r][name] for found in parts for name in ('embedding', 'label')
    ]
    known[path] = baselines.measure(*args)
    baselines.write(path, known[path])
  return known
