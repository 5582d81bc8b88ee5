"""All that a run needs before its weights: fitted, built, checked."""

from typing import Any, NamedTuple

import ml_collections

from csdnet_jax import sharding, tasks
from csdnet_jax.runtime import paths, processes
from csdnet_jax.tasks.base import Experiment
from csdnet_jax.training import teacher
from csdnet_jax.training.build import build
from csdnet_jax.training.fit import fit


class Prepared(NamedTuple):
  """What a config and a data set make.

  Attributes:
    experiment: the fitted config, what is compiled, and the data.
    frozen: what is not trained, on the devices.
    figures: of the report on the data.
    notes: what was fitted to the data, in sentences.
  """

  experiment: Experiment
  frozen: Any
  figures: dict
  notes: list[str]


def prepare(
  config: ml_collections.ConfigDict,
  dataset,
  workdir: paths.Path | None,
  *,
  devices=None,
  writes: bool = True,
  told: bool = False,
) -> Prepared:
  """Fits a config to its data, builds it, and makes teacher and data ready.

  Args:
    config: checked by `validate`.
    dataset: of the task, split.
    workdir: of the run, whose teacher is held to; None if it has none.
    devices: to run on; all of them where None.
    writes: whether anything is written to the workdir.
    told: whether the report on the data was said before.

  Raises:
    UserError: for whatever does not fit, is absent or cannot be read.
  """
  n_train = len(dataset.train.names)
  config, notes = fit(config, n_train)
  program = build(
    config,
    classes=len(dataset.class_names),
    n_train=n_train,
    devices=devices,
  )
  frozen = teacher.load(
    config, program, dataset.class_names, workdir, writes=writes
  )
  with processes.collective():
    data, figures = tasks.of(config).prepare(config, dataset, told)
  experiment = Experiment(config, program, data)
  frozen = sharding.replicate(frozen, program.mesh)
  return Prepared(experiment, frozen, figures, notes)
