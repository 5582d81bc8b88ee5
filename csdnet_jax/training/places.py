"""Where the images and weights of a run lie: no part of what they are."""

import ml_collections

from csdnet_jax.models.weights import published
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError


def from_root(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Writes a config's paths from the root, into a new config.

  So that the run finds them, and is the same, from wherever it is used.
  """
  config = config.copy_and_resolve_references()
  for key in ('root', 'table'):
    given = config.data[key]
    # A source from outside may mean something else by it.
    if given and not paths.is_remote(given) and paths.of(given).exists():
      config.data[key] = str(paths.absolute(paths.resolve(paths.of(given))))
  config.init_from = _of_weights(config.init_from)
  config.teacher.run = _of_weights(config.teacher.run)
  config.teacher.weights = _of_weights(config.teacher.weights)
  return config


def _of_weights(given: str) -> str:
  """A run or a file of weights from the root, or what is no path."""
  if not given or given in published.WORDS or paths.is_remote(given):
    return given
  path = paths.of(given)
  if path.is_dir():
    return str(path.resolve())
  # A link keeps its name, whose end says what the file holds.
  return str(path.parent.resolve() / path.name)


def found(
  config: ml_collections.ConfigDict, workdir: paths.Path, data_root: str = ''
) -> ml_collections.ConfigDict:
  """Returns a run's config with the folder where its images are now.

  Args:
    config: of the run.
    workdir: of the run, for the sentences.
    data_root: the folder, where it is another than when the run began. A table
      that lay in the folder is taken from there too.

  Returns:
    A new config. Its table may be gone: what it said of the run's images is
    kept in the run.

  Raises:
    UserError: if there is no such folder, or the run reads none.
  """
  config = config.copy_and_resolve_references()
  root, table = config.data.root, config.data.table
  if data_root and not (root or table):
    raise UserError(
      f'--data_root={data_root}: {workdir} reads no folder of images '
      f'(config.data.source is {config.data.source!r}); leave it out.'
    )
  if data_root:
    if not paths.of(data_root).is_dir():
      raise UserError(f'--data_root={data_root} is not a folder.')
    before = paths.of(root) if root else paths.of(table).parent
    config.data.root = data_root
    if table and paths.of(table).is_relative_to(before):
      inside = paths.of(table).relative_to(before)
      config.data.table = str(paths.of(data_root) / inside)
  root, table = config.data.root, config.data.table
  given = root or (table and paths.of(table).parent)
  if given and not paths.is_remote(given) and not paths.of(given).exists():
    raise UserError(
      f'The images of {workdir} are not at {given} any more; say where they '
      'are now: --data_root=DIR.'
    )
  return config
