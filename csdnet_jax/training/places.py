"""Where the images of a run lie: no part of what they are."""

import ml_collections

from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError


def from_root(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Writes the paths of a config's images from the root, into a new config.

  So that the run finds them from wherever it is used.
  """
  config = config.copy_and_resolve_references()
  for key in ('root', 'table'):
    given = config.data[key]
    # A source from outside may mean something else by it.
    if given and not paths.is_remote(given) and paths.of(given).exists():
      config.data[key] = str(paths.absolute(paths.resolve(paths.of(given))))
  return config


def found(
  config: ml_collections.ConfigDict, workdir: paths.Path, data_root: str = ''
) -> ml_collections.ConfigDict:
  """Returns a run's config with the folder where its images are now.

  Args:
    config: of the run.
    workdir: of the run, for the sentences.
    data_root: the folder, where it is another than when the run began. A table
      that lay in the folder is taken from there too.

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
  for given in filter(None, (config.data.root, config.data.table)):
    if not paths.is_remote(given) and not paths.of(given).exists():
      raise UserError(
        f'The images of {workdir} are not at {given} any more; say where they '
        'are now: --data_root=DIR.'
      )
  return config
