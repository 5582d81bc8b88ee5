"""Labelled images in memory, as a data set."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from csdnet_jax.data.images import splits
from csdnet_jax.runtime.errors import UserError, preview


def of_arrays(
  images: Sequence[np.ndarray] | np.ndarray,
  labels: Sequence[int] | Sequence[str] | np.ndarray,
  class_names: Sequence[str] | None = None,
  name: str = 'arrays',
) -> splits.Dataset:
  """Makes a data set of images in memory.

  Args:
    images: n of them, uint8 [h, w, 3] of any sizes; or one array, uint8 [n, h,
      w, 3].
    labels: [n], integers from 0, or names of classes.
    class_names: of every class, by label; where None those that the labels
      name, sorted, or their numbers.
    name: of the data set.

  Returns:
    The data set: 'array/0', 'array/1' and so on, all in train; the test part is
    empty, for `divide` to draw. `read` gives an image as PNG.

  Raises:
    UserError: another shape or dtype, other lengths, a label without a name, a
      class without an image, fewer than two classes.
  """
  if hasattr(images, 'ndim'):
    images = np.asarray(images)
  images = [np.asarray(image) for image in images]
  for i, image in enumerate(images):
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
      raise UserError(
        f'Image {i} is {image.dtype} {list(image.shape)}; give uint8 [height, '
        'width, 3], red, green and blue from 0 to 255'
      )
    if not image.size:
      raise UserError(f'Image {i} has no pixels; leave it out')
  labels = np.asarray(labels)
  if labels.dtype == object and all(isinstance(x, str) for x in labels.flat):
    labels = labels.astype(str)
  if labels.shape != (len(images),):
    raise UserError(
      f'{len(images)} images have labels of shape {list(labels.shape)}; give a '
      'label for each'
    )
  if labels.dtype.kind == 'U':
    names, numbers = _of_names(labels.tolist(), class_names)
  elif labels.dtype.kind in 'iu' and len(labels):
    names, numbers = _of_numbers(labels, class_names)
  elif len(labels):
    raise UserError(
      f'The labels are {labels.dtype}; give integers from 0, or names'
    )
  else:
    raise UserError('There are no images; give two or more of each class')

  def read(i: int) -> bytes:
    encoded = io.BytesIO()
    # Read twice at most, so hardly compressed.
    Image.fromarray(images[i]).save(encoded, 'PNG', compress_level=1)
    return encoded.getvalue()

  paths = tuple(f'array/{i}' for i in range(len(images)))
  return splits.checked(
    splits.Dataset(name, names, splits.Split(paths, numbers, read))
  )


def _of_names(labels, class_names) -> tuple[tuple[str, ...], np.ndarray]:
  names = tuple(sorted(set(labels)) if class_names is None else class_names)
  number = {name: i for i, name in enumerate(names)}
  unknown = sorted(set(labels) - number.keys())
  if unknown:
    raise UserError(
      f'Labels are not among the class names ({preview(unknown)}); add them '
      'there'
    )
  return names, np.array([number[label] for label in labels], np.int32)


def _of_numbers(labels, class_names) -> tuple[tuple[str, ...], np.ndarray]:
  # A label of a billion would have as many names.
  classes = len(np.unique(labels)) if class_names is None else len(class_names)
  if labels.min() < 0 or labels.max() >= classes:
    raise UserError(
      f'The labels lie between {labels.min()} and {labels.max()}, but there '
      f'are {classes} classes; number them from 0 to {classes - 1}'
    )
  names = map(str, range(classes)) if class_names is None else class_names
  return tuple(names), labels.astype(np.int32)
