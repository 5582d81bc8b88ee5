"""Images in memory become a data set, or a sentence."""

import numpy as np
import pytest

from csdnet_jax.data import decode
from csdnet_jax.data.images import arrays, dividing
from csdnet_jax.runtime.errors import UserError

import images


def pictures(n, **size):
  return [images.pixels(i, **size) for i in range(n)]


@pytest.mark.parametrize('one_array', [True, False])
def test_images_in_memory_become_a_data_set(one_array):
  given = pictures(6)
  if one_array:
    given = np.stack(given)
  else:
    given[3] = images.pixels(3, 5, 7)
  dataset = arrays.of_arrays(given, [0, 1, 0, 1, 0, 1], name='mine')
  assert dataset.name == 'mine' and dataset.class_names == ('0', '1')
  assert dataset.train.names == tuple(f'array/{i}' for i in range(6))
  assert dataset.train.labels.dtype == np.int32
  assert dataset.val is None and not dataset.test.names
  for i, image in enumerate(given):
    data = dataset.train.read(i)
    np.testing.assert_array_equal(decode.decode(data, 'x'), image)
  divided = dividing.divide(dataset, images.data_config(split_seed=1))
  assert len(divided.train.names) + len(divided.test.names) == 6
  assert np.bincount(divided.test.labels).tolist() == [2, 2]


def test_labels_may_be_names():
  named = ['oak', 'ash', 'ash', 'oak']
  dataset = arrays.of_arrays(pictures(4), named)
  assert dataset.class_names == ('ash', 'oak')
  assert dataset.train.labels.tolist() == [1, 0, 0, 1]
  for given in (named, np.array(named), np.array(named, object)):
    dataset = arrays.of_arrays(pictures(4), given, ['oak', 'ash'])
    assert dataset.train.labels.tolist() == [0, 1, 1, 0]
  dataset = arrays.of_arrays(pictures(4), [1, 0, 0, 1], ['oak', 'ash'])
  assert dataset.class_names == ('oak', 'ash')


@pytest.mark.parametrize(
  'given,labels,names,match',
  [
    (
      [np.zeros((4, 4, 3))] * 2,
      [0, 1],
      None,
      r'Image 0 is float64 \[4, 4, 3\]',
    ),
    (np.zeros((2, 4, 4, 1), np.uint8), [0, 1], None, r'\[4, 4, 1\]'),
    (np.zeros((2, 0, 4, 3), np.uint8), [0, 1], None, 'Image 0 has no pixels'),
    (pictures(3), [0, 1], None, r'3 images have labels of shape \[2\]'),
    (pictures(2), [[0], [1]], None, r'shape \[2, 1\]'),
    (pictures(2), [0.0, 1.0], None, 'labels are float64'),
    (pictures(2), [True, False], None, 'labels are bool'),
    (pictures(2), [-1, 0], None, 'between -1 and 0, but there are 2'),
    (pictures(2), [0, 10**9], None, 'and 1000000000, but there are 2'),
    (pictures(2), [0, 2], ['a', 'b'], 'and 2, but there are 2 .* 0 to 1'),
    (pictures(2), [0, 0], ['a', 'b'], r'no training image \(b\)'),
    (pictures(2), ['a', 'c'], ['a', 'b'], r'class names \(c\)'),
    (pictures(2), [0, 0], None, 'has 1 class'),
    ([], [], None, 'no images'),
  ],
)
def test_arrays_that_are_no_data_set(given, labels, names, match):
  with pytest.raises(UserError, match=match):
    arrays.of_arrays(given, labels, names)
