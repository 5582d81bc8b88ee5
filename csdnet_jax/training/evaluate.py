"""A finished run, evaluated again."""

import ml_collections

from csdnet_jax import tasks
from csdnet_jax.config import differences, validate
from csdnet_jax.runtime import paths, processes
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import show_table
from csdnet_jax.tasks.base import Experiment
from csdnet_jax.training.fit import fit
from csdnet_jax.training.restore import read_run, restore_run

# Fields of the data that decide neither which images there are nor their parts.
_SAME_IMAGES = (
  'data.canvas', 'data.test_resize', 'data.aspect', 'data.resize',
  'data.strict', 'data.cache',
)  # fmt: skip


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
  with processes.collective():
    trained, split = read_run(workdir)
    config, changed = _checked(config, trained, len(split['train']))
    dataset = _test_data(config, trained, split, changed, workdir)
  with processes.collective():
    data, _ = tasks.of(config).prepare(config, dataset)
  program, state = restore_run(
    workdir, config, split, devices=devices, checkpoint=checkpoint
  )
  experiment = Experiment(config, program, data)
  figures, _ = tasks.of(config).evaluate(experiment, state, 'test', last=True)
  show_table(f'Step {int(state.step)} of {workdir}, test part', figures)
  return figures


def _checked(config, trained, n_train):
  """The config fitted, and what is other in it than in the run's."""
  # First what `validate` would only stumble over; `fit` changes a method's.
  given = differences(trained, config)
  _require_as_trained(
    [line for line in given if not line.startswith(('method.', 'teacher.'))]
  )
  plain = config.copy_and_resolve_references()
  plain.data.canvas = 0  # Of training alone.
  validate(plain)
  config, _ = fit(config, n_train)
  changed = differences(trained, config)
  _require_as_trained(changed)
  return config, [line.partition(':')[0] for line in changed]


def _require_as_trained(changed: list[str]) -> None:
  """Refuses differences in anything but the data and how it is evaluated."""
  other = [k for k in changed if not k.startswith(('data.', 'evaluation.'))]
  if other:
    raise UserError(
      'A run is evaluated as it was trained, only config.data and '
      f'config.evaluation may differ: {"; ".join(other)}.'
    )


def _test_data(config, trained, split, changed, workdir):
  """The data set: the run's own split unless other images are asked for."""
  here = _where(config) == _where(trained)
  other = [
    key
    for key in changed
    if key.startswith('data.')
    and key not in _SAME_IMAGES
    and not (key == 'data.root' and here)
  ]
  dataset = tasks.of(config).load(config, None if other else split)
  if list(dataset.class_names) != split['class_names']:
    raise UserError(
      f'The classes of {dataset.name} are not those that {workdir} was '
      f'trained on ({len(dataset.class_names)} and '
      f'{len(split["class_names"])} of them); evaluate on a set with the same '
      'class names.'
    )
  if here:
    seen = set(dataset.test.names) & set(split['train'])
    if seen:
      raise UserError(
        f'{len(seen)} images of the new test part were trained on, such as '
        f'{min(seen)}; evaluate on other images.'
      )
  return dataset


def _where(config) -> paths.Path:
  """The folder of the images, however it is written."""
  return paths.resolve(paths.of(config.data.root))
