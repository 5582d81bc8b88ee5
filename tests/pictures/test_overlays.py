"""The pictures of a segmentation, and the colours in them."""

import numpy as np
import pytest
from PIL import Image

from csdnet_jax.pictures import overlays

import streets


@pytest.mark.parametrize('classes,apart', [(11, 0.09), (19, 0.06), (60, 0.03)])
def test_classes_have_colours_that_the_colour_blind_tell_apart(classes, apart):
  colours = overlays.palette(classes)
  assert colours.shape == (classes, 3)
  assert colours.min() >= 0 and colours.max() <= 1
  with_ends = np.concatenate([colours, [[0, 0, 0], [1, 1, 1]]])
  for eye in overlays._seen(with_ends):
    distance = np.linalg.norm(eye[:, None] - eye, axis=-1)
    distance += 9 * np.eye(len(eye))
    assert distance.min() > apart


def test_a_class_keeps_its_colour_however_many_there_are():
  np.testing.assert_array_equal(
    overlays.palette(150)[:19], overlays.palette(19)
  )


def share(picture, colour):
  """Of a picture's pixels, how many are about this colour."""
  return (np.abs(picture - 255 * np.asarray(colour)).max(-1) < 12).mean()


def test_the_maps_show_their_classes_and_the_legend_names_them(tmp_path):
  image, label = streets.street(0, 90, 120)
  predicted = np.where(label == 255, 2, label)
  names = (*streets.NAMES, 'never seen', '$odd_name')
  path = tmp_path / 'overlay.png'
  overlays.write(path, image, label, predicted, names, title='$4_of 5')
  right = np.asarray(Image.open(path).convert('RGB'), float)
  overlays.write(path, image, label, 0 * label, names, title='all sky')
  wrong = np.asarray(Image.open(path).convert('RGB'), float)
  assert right.shape[1] > 2 * right.shape[0] * 0.9  # Three in a row.
  colours = overlays.palette(len(names))
  for c in range(5):
    held = (label == c).mean() / 3  # Of a third of the picture, at most.
    assert share(right, colours[c]) > 0.8 * held
    if c:
      assert share(wrong, colours[c]) < 0.8 * share(right, colours[c])
  assert share(wrong, colours[0]) > 1.5 * share(right, colours[0])
  assert share(right, colours[5]) < 1e-4
