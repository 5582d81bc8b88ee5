"""Where the data of a run come from: ours by name, yours by module or arrays.

A source of yours is an importable module whose name is `config.data.source`:

    from csdnet_jax.data.images.splits import Dataset, Split
    from csdnet_jax.data.sources import SourceSpec
    from csdnet_jax.runtime.fields import Field

    def load(data):
      names, labels, read = ...  # With data.root and data.my_leaves.year.
      return Dataset('my leaves', ('ash', 'oak'), Split(names, labels, read))

    SPEC = SourceSpec(load, {'year': Field(2024, low=2000)})
"""

import hashlib
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from csdnet_jax.data import cache, leaves
from csdnet_jax.data.images import (
  dividing,
  known,
  labelled_folders,
  lists,
  splits,
  tables,
)
from csdnet_jax.data.masks import layouts
from csdnet_jax.runtime import paths, plugins
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.fields import Field, Fields
from csdnet_jax.runtime.terminal import say


class SourceSpec(NamedTuple):
  """A source of data sets.

  Attributes:
    load: `(config.data) -> splits.Dataset`, or `layouts.SegmentationSet`;
      nothing is decoded yet. A `Dataset` whose test part is empty is split by
      the program. Raises `UserError` for whatever is wrong with the data.
    fields: its own, at `config.data.<last part of its name>`.
    task: 'classification' or 'segmentation'.
  """

  load: Callable[[Any], splits.Dataset | layouts.SegmentationSet]
  fields: Fields = MappingProxyType({})
  task: str = 'classification'


def find(name: str) -> SourceSpec:
  """Returns the source that `config.data.source` names.

  Raises:
    UserError: it is neither one of `SOURCES` nor a module with a `SPEC`.
  """
  return plugins.find('config.data.source', name, SOURCES, SourceSpec)


def load_images(
  data: Any, *, split: Mapping[str, Any] | None = None
) -> splits.Dataset:
  """Opens the labelled images that `config.data` describes.

  Args:
    data: `source` and what it needs, such as `root` (a folder; for 'ufg' and
      'tfds' the TFDS data_dir, '' for its default), `name`, `cache`; and what
      `dividing.divide` needs.
    split: as for `dividing.divide`.

  Returns:
    The data set; nothing is decoded yet. Of a run whose table is gone, the
    images are told by their content.

  Raises:
    UserError: for whatever in the folder, the lists or the fields is wrong.
  """
  if split is not None and 'digests' in split and _table_is_gone(data):
    return _known(data, split)
  dataset = _load(data, 'classification', splits.Dataset)
  if data.source not in SOURCES:
    dataset = splits.checked(dataset)
  return dividing.divide(dataset, data, split=split)


def load_whole(root: str, data: Any, table: str = '') -> splits.Dataset:
  """Opens all labelled images of a folder, to judge a run by.

  Args:
    root: the folder, in any layout of `labelled_folders`; it may have a single
      class.
    data: `cache`, and `unreadable` as for `divide`.
    table: names the images in the folder and their classes; '' where the
      folder's layout does.

  Returns:
    The data set, all of it in `test`.

  Raises:
    UserError: for whatever in the folder, the lists or the table is wrong;
      lists the images that cannot be read.
  """
  if table:
    dataset = tables.open_table(table, root, trains=False)
  else:
    dataset = labelled_folders.open_folder(root, trains=False)
  dataset = dataset._replace(
    train=splits.EMPTY, val=None, test=splits.whole(dataset)
  )
  return dividing.read(*dividing.with_digests(dataset), data)


def load_masks(data: Any) -> layouts.SegmentationSet:
  """Opens the images with masks that `config.data` describes.

  Raises:
    UserError: for whatever in the folder, the lists or the fields is wrong.
  """
  if group := getattr(data, 'group', ''):
    raise UserError(
      f'config.data.group={group} is for images without masks; the parts '
      'of those with masks come with them. Leave it out'
    )
  return _load(data, 'segmentation', layouts.SegmentationSet)


def _load(data: Any, task: str, kind: type) -> Any:
  spec = find(data.source)
  if spec.task != task:
    ours = [name for name, spec in SOURCES.items() if spec.task == task]
    raise UserError(
      f'config.data.source is {data.source!r}, for {spec.task}; of {task} say '
      f'{", ".join(map(repr, ours))}, or a module of yours'
    )
  tabled = data.source in SOURCES and getattr(data, 'table', '')
  if tabled and data.source != 'folder':
    raise UserError(
      f'config.data.table={data.table} is not read by the source '
      f'{data.source!r}; set --config.data.source=folder'
    )
  dataset = spec.load(data)
  if not isinstance(dataset, kind):
    raise UserError(
      f'The load of {data.source} returned a {type(dataset).__name__}; make it '
      f'return a {kind.__module__}.{kind.__name__}'
    )
  return dataset


def _table_is_gone(data: Any) -> bool:
  table = data.source == 'folder' and data.table
  return bool(table) and not paths.of(table).exists()


def _known(data: Any, split: Mapping[str, Any]) -> splits.Dataset:
  """The images of a run whose table is gone; see `known`."""
  say(
    f'There is no table {data.table} any more: the images of the run are told '
    'by their content, and of their groups nothing is known.'
  )
  root = data.root or paths.of(data.table).parent
  there = known.candidates(root, data.name, split)
  dataset, problems = dividing.with_digests(there)
  return dividing.as_begun(
    known.labelled(dataset, split), problems, split, data
  )


# -------------------------------------------------------------------- sources


def _folder(data: Any) -> splits.Dataset:
  if data.table:
    return tables.open_table(data.table, data.root, data.name, data.group)
  return labelled_folders.open_folder(data.root, data.name)


def _ufg(data: Any) -> splits.Dataset:
  # TFDS takes a second to import and most runs need none of it.
  from csdnet_jax.data.images import ufg

  return ufg.load(data.name, data_dir=data.root)


def _tfds(data: Any) -> splits.Dataset:
  from csdnet_jax.data.images import tfds

  return tfds.load(data.name, data_dir=data.root)


def _leaves(data: Any) -> splits.Dataset:
  return lists.open_lists(_drawn(data), 'leaves')


def _drawn(data: Any) -> pathlib.Path:
  """The folder of the embedded set, drawn on first use."""
  traits = dict(data.leaves)
  drawn_by = pathlib.Path(leaves.__file__).read_bytes()
  key = hashlib.sha256(drawn_by + repr(sorted(traits.items())).encode())
  folder = cache.cache_dir(data.cache)
  target = folder / f'leaves-{key.hexdigest()[:16]}'
  if target.is_dir():
    return target
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix='.leaves-') as scratch:
      drawn = pathlib.Path(scratch) / 'set'
      leaves.write(drawn, **traits)
      try:
        drawn.rename(target)
      except OSError:
        # Another process was faster; what it drew is the same, byte for byte.
        if not target.is_dir():
          raise
  except OSError as e:
    raise cache.cache_error(folder, e) from e
  return target


def _arrays(data: Any) -> splits.Dataset:
  raise UserError(
    f'The images of {data.name or "this run"} were in memory and are gone; '
    'give them again as arrays, from Python'
  )


SOURCES = {
  'folder': SourceSpec(_folder),
  'ufg': SourceSpec(_ufg),
  'tfds': SourceSpec(_tfds),
  'leaves': SourceSpec(
    _leaves,
    {
      'cultivars': Field(24, low=2),
      'train_per_class': Field(4, low=1),
      'test_per_class': Field(4, low=1),
      'size': Field(192, low=32),
      'seed': Field(0, low=0),
    },
  ),
  'arrays': SourceSpec(_arrays),
  **{
    name: SourceSpec(layouts.load, task='segmentation')
    for name in layouts.READERS
  },
}
