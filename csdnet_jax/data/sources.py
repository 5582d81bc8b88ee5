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

import numpy as np

from csdnet_jax.data import cache, decode, leaves
from csdnet_jax.data.images import (
  draw,
  fingerprints,
  groups,
  known,
  labelled_folders,
  lists,
  pipeline,
  saved,
  splits,
  tables,
)
from csdnet_jax.data.masks import layouts
from csdnet_jax.runtime import paths, plugins
from csdnet_jax.runtime.errors import UserError, counted
from csdnet_jax.runtime.fields import Field, Fields
from csdnet_jax.runtime.terminal import progress_bar, say


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
      `divide` needs.
    split: as for `divide`.

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
  return divide(dataset, data, split=split)


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
  return _read(*_with_digests(dataset), data)


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


def divide(
  dataset: splits.Dataset,
  data: Any,
  *,
  split: Mapping[str, Any] | None = None,
) -> splits.Dataset:
  """Draws the parts that `config.data` asks for, or takes those of a run.

  Args:
    dataset: as its source gives it.
    data: `test_fraction` of every class for a data set that has no split of
      its own; `val_fraction` of every class to carve from train, 0 for none;
      `shots`, the training images to keep of every class, 0 for all;
      `split_seed`, which decides all three; `resplit`, whether train and test
      change places class by class before; `group`, what is kept whole;
      `unreadable`, what becomes of images that cannot be read.
    split: what `saved.split_to_json` gave in an earlier run. The parts are then
      those and nothing is drawn, whatever the fractions and shots say.

  Raises:
    UserError: as `saved.apply_split` and `draw.draw_split` do; lists the
      images that cannot be read.
  """
  dataset = dataset._replace(drawn=not dataset.test.names)
  # A table brings its own.
  if data.group and not dataset.groups:
    dataset = dataset._replace(groups=_groups(dataset, data))
  dataset, problems = _with_digests(dataset)
  if split is not None:
    return _as_begun(dataset, problems, split, data)
  dataset = _read(dataset, problems, data)
  splits.require_trained(dataset)
  names = splits.whole(dataset).names
  prints = fingerprints.of_bytes(dataset.prints[name] for name in names)
  if data.resplit and dataset.test.names:
    dataset = draw.swap_sides(dataset, data.split_seed)
  return draw.draw_split(
    dataset,
    test_fraction=data.test_fraction,
    val_fraction=data.val_fraction,
    shots=data.shots,
    seed=data.split_seed,
    equal=dict(zip(names, fingerprints.equal(prints).tolist(), strict=True)),
  )


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
  dataset, problems = _with_digests(there)
  return _as_begun(known.labelled(dataset, split), problems, split, data)


def fingerprints_of(
  images: splits.Split, digests: Mapping[str, str], data: Any
) -> tuple[np.ndarray, dict[int, str]]:
  """Returns `fingerprints.of` the images, with a bar while they are decoded."""
  with progress_bar('images read') as progress:
    return fingerprints.of(
      images,
      [digests[name] for name in images.names],
      cache.cache_dir(data.cache),
      progress,
    )


def _groups(dataset: splits.Dataset, data: Any) -> dict[str, str]:
  images = splits.whole(dataset)
  classes = [dataset.class_names[label] for label in images.labels]
  try:
    return groups.of_names(data.group, images.names, classes)
  except UserError as error:
    if not data.table:
      raise
    raise UserError(f'{error}; nor is it a column of {data.table}') from error


def _with_digests(
  dataset: splits.Dataset,
) -> tuple[splits.Dataset, dict[str, str]]:
  """The digest of each image; and why, by name, where it cannot be read."""
  images = splits.whole(dataset)
  found = dict(zip(images.names, pipeline.digests(images), strict=True))
  problems = {
    name: str(digest)
    for name, digest in found.items()
    if isinstance(digest, decode.ImageError)
  }
  digests = {name: d for name, d in found.items() if name not in problems}
  return dataset._replace(digests=digests), problems


def _without(dataset: splits.Dataset, names) -> splits.Dataset:
  return splits.without(dataset, dict.fromkeys(names, 'unreadable'))


def _read(
  dataset: splits.Dataset, problems: dict[str, str], data: Any
) -> splits.Dataset:
  """Decodes every image; what cannot be read is listed, or stops all.

  Returns:
    The data set without it, with the fingerprints of the rest.
  """
  images = splits.whole(_without(dataset, problems))
  prints, undecoded = fingerprints_of(images, dataset.digests, data)
  problems |= {images.names[i]: problem for i, problem in undecoded.items()}
  dataset = dataset._replace(
    prints={
      name: prints[i].tobytes()
      for i, name in enumerate(images.names)
      if i not in undecoded
    }
  )
  if not problems:
    return dataset
  if data.unreadable == 'stop':
    raise cache.UnreadableError(
      list(problems.values()), ', or set --config.data.unreadable=skip'
    )
  _say_skipped(problems)
  return _without(dataset, problems)


def _as_begun(
  dataset: splits.Dataset, problems: dict[str, str], split, data: Any
) -> splits.Dataset:
  """The parts that a run began with; says what beside them cannot be read."""
  named = {name for part in splits.PARTS for name in split.get(part, ())}
  lost = [p for name, p in problems.items() if name in named]
  if lost:
    raise cache.UnreadableError(lost)
  begun = saved.apply_split(_without(dataset, problems), split)
  # What it knew and put in no part: more than its shots, or skipped.
  had = begun.digests.keys() if 'digests' in split else ()
  images, used = splits.whole(dataset), set(splits.whole(begun).names)
  others = [
    (images, i)
    for i, name in enumerate(images.names)
    if name in had and name not in used
  ]
  if others:
    left = splits.gather(others)
    _, found = fingerprints_of(left, dataset.digests, data)
    undecoded = {left.names[i]: problem for i, problem in found.items()}
    begun, problems = _without(begun, undecoded), problems | undecoded
  if problems:
    _say_skipped(problems)
  return begun


def _say_skipped(problems: Mapping[str, str]) -> None:
  skipped = counted(len(problems), 'images that cannot be read')
  say(f'Skipped, {skipped}:', style='red')
  for problem in problems.values():
    say(f'  {problem}', style='red')


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
