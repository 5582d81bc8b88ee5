"""What a line of results holds of each segmented image: its pixels.

Those of each class that are right, labelled and predicted: their sums over any
images give the mIoU of these, which a bootstrap over images needs.
"""

import base64
import pathlib
import zlib

import numpy as np

from csdnet_jax.evaluation import metrics
from csdnet_jax.runtime.code import of_data


def pack(path: pathlib.Path) -> dict:
  """Returns the pixels of a workdir's `counts.npz`.

  Returns:
    n: images.
    images: a digest of their names and labelled pixels, sorted by name.
    classes: C.
    counts: int32 [n, 3, C] in that order, compressed by zlib, in base 64.
  """
  with np.load(path) as file:
    names, counts = file['names'].tolist(), file['counts']
  order = sorted(range(len(names)), key=names.__getitem__)
  names, counts = [names[i] for i in order], counts[order]
  packed = zlib.compress(np.ascontiguousarray(counts, '<i4').tobytes(), 9)
  return {
    'n': len(names),
    'images': of_data([names, counts[:, 1].tolist()]),
    'classes': counts.shape[2],
    'counts': base64.b64encode(packed).decode(),
  }


def unpack(part: dict) -> np.ndarray:
  """Returns int32 [n, 3, C]: what `pack` packed."""
  packed = zlib.decompress(base64.b64decode(part['counts']))
  return np.frombuffer(packed, '<i4').reshape(part['n'], 3, part['classes'])


def miou(sums: np.ndarray, n: int) -> np.ndarray:
  """The mIoU of n images in percent, [...], of their summed [..., 3, C]."""
  del n  # Pixels count, whatever image they are of.
  return metrics.segmentation_classes(sums)[0].mean(-1)
