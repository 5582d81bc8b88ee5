"""What a cross-validation keeps: predictions of images that were held out."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from csdnet_jax.runtime import archives, paths


class HeldOut(NamedTuple):
  """Of n images, each by the network of the fold that it was held out from.

  Attributes:
    names: the path of each in its data set.
    labels: int32 [n].
    folds: int32 [n], from 0.
    units: int32 [n]; images of one number were held out together.
    logits: float32 [n, classes].
    embedding: float32 [n, C], before the head.
    score: float32 [n], how unlike the known classes each looks to its network
      (`unknown.score`).
  """

  names: tuple[str, ...]
  labels: np.ndarray
  folds: np.ndarray
  units: np.ndarray
  logits: np.ndarray
  embedding: np.ndarray
  score: np.ndarray

  @property
  def right(self) -> np.ndarray:
    """bool [n]: whether the class is the first of the highest logits.

    An image with a NaN among its logits has no class.
    """
    named = ~np.isnan(self.logits).any(-1)
    return named & (self.logits.argmax(-1) == self.labels)


def joined(parts: Sequence[HeldOut]) -> HeldOut:
  """Returns the images of all folds, in the order of these."""
  names = tuple(name for part in parts for name in part.names)
  arrays = (
    np.concatenate(x) for x in zip(*(p[1:] for p in parts), strict=True)
  )
  return HeldOut(names, *arrays)


def write(path: paths.Path, found: HeldOut) -> None:
  """Writes an .npz of the fields."""
  archives.write(path, found._asdict() | {'names': np.array(found.names)})


def read(path: paths.Path) -> HeldOut:
  """Returns what `write` wrote.

  Raises:
    UserError: if the file cannot be read.
  """

  def of_file(file):
    fields = {name: file[name] for name in HeldOut._fields}
    return HeldOut(**(fields | {'names': tuple(fields['names'].tolist())}))

  return archives.read(
    path,
    of_file,
    'remove it (below folds/ the folder that it is in), and the same command '
    'makes it again.',
  )
