"""R runs of a group made ready: their images, arguments and program."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from csdnet_jax.data.images import splits
from csdnet_jax.runtime import writers
from csdnet_jax.runtime.terminal import say
from csdnet_jax.tasks import classification
from csdnet_jax.training.together import pool, program
from csdnet_jax.training.together.grouping import differing
from csdnet_jax.training.workdir import write_inputs


class Run(NamedTuple):
  """One of the runs.

  Attributes:
    config: fitted to its data.
    dataset: its parts.
    workdir: of its own.
  """

  config: ml_collections.ConfigDict
  dataset: splits.Dataset
  workdir: pathlib.Path


class Group(NamedTuple):
  """R runs made ready; arrays of a leading axis R are on the device."""

  runs: Sequence[Run]
  prepared: pool.Prepared  # On the host.
  images: pool.Images
  arguments: program.Arguments
  program: program.Program

  @property
  def config(self):
    """Of the first; for what all have in common."""
    return self.runs[0].config


def make(runs: Sequence[Run], told: bool = False) -> Group:
  """Decodes the images, and writes the inputs of each run to its workdir.

  Args:
    runs: R of them.
    told: whether the caller has reported on the images.

  Raises:
    UserError: if an image cannot be read.
  """
  config, dataset = runs[0].config, runs[0].dataset
  prepared = pool.prepare(config, [run.dataset for run in runs])
  arguments = program.Arguments(
    np.array([run.config.seed for run in runs], np.int32),
    differing([run.config for run in runs]),
    pool.rows(prepared, [run.dataset.train for run in runs]),
  )
  made = program.make(
    config,
    classes=len(dataset.class_names),
    n_train=len(dataset.train.names),
  )
  for run in runs:
    run.workdir.mkdir(parents=True, exist_ok=True)
    write_inputs(run.config, run.dataset, run.workdir)
    if told:
      continue
    checked = classification.reported(run.config, run.dataset)
    writers.write_json(run.workdir / 'data_report.json', checked.figures)
    if run is runs[0]:
      say(checked.text)
  # Copies: what is mapped from a file is no array of the device.
  on_device = jax.tree.map(jnp.array, (prepared.images, arguments))
  return Group(runs, prepared, *on_device, made)


def outputs(group: Group, states, part: str) -> tuple[np.ndarray, Any, Any]:
  """What the runs make of a part: places [n, R, B], sums, outputs."""
  own = [splits.parts_of(run.dataset)[part] for run in group.runs]
  places = pool.in_batches(
    pool.rows(group.prepared, own), group.config.batch_size
  )
  sums, found = group.program.evaluate(
    states, group.arguments, group.images, places
  )
  return places, sums, found


def outputs_in_order(
  group: Group, states, part: str
) -> list[dict[str, np.ndarray]]:
  """What each of the runs makes of every image of a part, of its own n.

  Returns:
    Of each `logits` [n, classes], `embedding` [n, C] and `label` [n], as
    `accuracy.outputs` gives them.
  """
  places, _, found = outputs(group, states, part)
  rows = {name: found[name] for name in ('logits', 'embedding')}
  rows = jax.device_get(rows) | {'label': group.prepared.images.labels[places]}
  return [
    {name: values[:, r][places[:, r] >= 0] for name, values in rows.items()}
    for r in range(len(group.runs))
  ]
