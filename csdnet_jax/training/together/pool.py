"""The images of all runs, once; the parts of a run are rows of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from csdnet_jax.data import cache
from csdnet_jax.data.images import pipeline, splits
from csdnet_jax.runtime.terminal import progress_bar


class Images(NamedTuple):
  """N images, for training and for tests.

  Attributes:
    canvases: uint8 [N, S, S, 3], what views are drawn from.
    extents: int32 [N, 2], height and width of their used part.
    views: uint8 [N, size, size, 3], the finished test views.
    labels: int32 [N].
  """

  canvases: np.ndarray
  extents: np.ndarray
  views: np.ndarray
  labels: np.ndarray


class Prepared(NamedTuple):
  """Images, and what is known of them.

  Attributes:
    images: N of them.
    place: the row of each, by name.
  """

  images: Images
  place: dict[str, int]


def prepare(config, datasets: Sequence[splits.Dataset]) -> Prepared:
  """Decodes what any of the data sets holds, once, through the cache.

  Args:
    config: of any of the runs, fitted.
    datasets: splits of the same images.

  Raises:
    UserError: lists every unreadable image.
  """
  held, digests = {}, {}
  for dataset in datasets:
    digests |= dataset.digests
    for part in splits.parts_of(dataset).values():
      held |= {name: (part, i) for i, name in enumerate(part.names)}
  names = sorted(held)
  whole = splits.gather([held[name] for name in names])
  # Of the part called train there are canvases, of every part test views.
  every = datasets[0]._replace(train=whole, val=None, test=whole)
  in_order = [digests[name] for name in names]
  c = config.data
  with progress_bar('images decoded') as progress:
    found = pipeline.prepare(
      every, {'train': in_order, 'test': in_order}, canvas=c.canvas,
      size=config.model.size, resize=c.test_resize,
      square=c.aspect == 'square', cache_dir=cache.cache_dir(c.cache),
      progress=progress,
    )  # fmt: skip
  canvases, views = found.canvases, found.test
  images = Images(
    canvases.images, canvases.extents, views.images, canvases.labels
  )
  place = {name: i for i, name in enumerate(names)}
  return Prepared(images, place)


def rows(prepared: Prepared, splits_: Sequence[splits.Split]) -> np.ndarray:
  """Returns where the images of R parts lie: int32 [R, n].

  n is the size of the largest; the row of a smaller one ends in -1.
  """
  most = max(len(part.names) for part in splits_)
  found = np.full((len(splits_), most), -1, np.int32)
  for row, part in zip(found, splits_, strict=True):
    row[: len(part.names)] = [prepared.place[name] for name in part.names]
  return found


def in_batches(places: np.ndarray, batch: int) -> np.ndarray:
  """Cuts rows of images into batches.

  >>> in_batches(np.array([[7, 3, 5]]), 2).tolist()
  [[[7, 3]], [[5, -1]]]

  Args:
    places: int32 [R, n], as of `rows`.
    batch: B.

  Returns:
    int32 [ceil(n / B), R, B], -1 where a run has nothing left for a batch.
  """
  fill = -places.shape[1] % batch
  padded = np.pad(places, ((0, 0), (0, fill)), constant_values=-1)
  return padded.reshape(len(places), -1, batch).swapaxes(0, 1)
