"""From the images that a source lists to the parts of a run.

The digest of each file; what each shows, decoded once; what belongs together;
and then the draw, or the split that the run began with.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from csdnet_jax.data import cache, decode
from csdnet_jax.data.images import (
  draw,
  fingerprints,
  groups,
  pipeline,
  saved,
  splits,
)
from csdnet_jax.runtime.errors import UserError, counted
from csdnet_jax.runtime.terminal import progress_bar, say


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
  dataset, problems = with_digests(dataset)
  if split is not None:
    return as_begun(dataset, problems, split, data)
  dataset = read(dataset, problems, data)
  splits.require_trained(dataset)
  names, prints = splits.whole(dataset).names, prints_of(dataset, data)
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


def prints_of(dataset: splits.Dataset, data: Any) -> np.ndarray:
  """The fingerprints, `fingerprints.DTYPE` [n], in the order of `splits.whole`.

  Raises:
    UnreadableError: lists the images that cannot be read.
  """
  images = splits.whole(dataset)
  if dataset.prints.keys() >= set(images.names):  # Since the split was drawn.
    return fingerprints.of_bytes(dataset.prints[name] for name in images.names)
  prints, problems = fingerprints_of(images, dataset.digests, data)
  if problems:
    raise cache.UnreadableError(list(problems.values()))
  return prints


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


def with_digests(
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


def read(
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


def as_begun(
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
