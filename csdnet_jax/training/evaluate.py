"""A finished run, evaluated again."""

import ml_collections

from csdnet_jax import tasks
from csdnet_jax.config import differences, validate
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import show_table
from csdnet_jax.tasks.base import Experiment
from csdnet_jax.training.fit import fit
from csdnet_jax.training.restore import read_run, restore_run


def evaluate_run(
  config: ml_collections.ConfigDict,
  workdir: paths.Path,
  *,
  devices=None,
  checkpoint: str = 'last',
) -> dict[str, float]:
  """Evaluates a state of a workdir on the test part of `config.data`.

  Args:
    config: the run's own, possibly with other `data` and `evaluation`.
    workdir: of a run.
    devices: to run on; all of them where None.
    checkpoint: 'last' or 'best'; see `restore_run`.

  Returns:
    The figures of `evaluate` of the task, percentages and 'n' images.

  Raises:
    UserError: if there is no checkpoint, the config differs in more, the
      classes are not the run's, or the test part holds images that it was
      trained on.
  """
  validate(config)
  trained, split = read_run(workdir)
  config, _ = fit(config, len(split['train']))
  changed = differences(trained, config)
  other = [k for k in changed if not k.startswith(('data.', 'evaluation.'))]
  if other:
    raise UserError(
      'A run is evaluated as it was trained, only config.data and '
      f'config.evaluation may differ: {"; ".join(other)}.'
    )
  task = tasks.of(config)
  same_data = not any(key.startswith('data.') for key in changed)
  dataset = task.load(config, split if same_data else None)
  if list(dataset.class_names) != split['class_names']:
    raise UserError(
      f'The classes of {dataset.name} are not those that {workdir} was '
      f'trained on ({len(dataset.class_names)} and '
      f'{len(split["class_names"])} of them); evaluate on a set with the same '
      'class names.'
    )
  if _where(config) == _where(trained):
    seen = set(dataset.test.names) & set(split['train'])
    if seen:
      raise UserError(
        f'{len(seen)} images of the new test part were trained on, such as '
        f'{min(seen)}; evaluate on other images.'
      )
  data, _ = task.prepare(config, dataset)
  program, state = restore_run(
    workdir, config, devices=devices, checkpoint=checkpoint
  )
  experiment = Experiment(config, program, data)
  figures, _ = task.evaluate(experiment, state, 'test', last=True)
  show_table(f'Step {int(state.step)} of {workdir}, test part', figures)
  return figures


def _where(config) -> paths.Path:
  """The folder of the images, however it is written."""
  return paths.resolve(paths.of(config.data.root))
