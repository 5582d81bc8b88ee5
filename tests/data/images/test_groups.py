"""What the pictures of one thing are known by."""

import pytest

from csdnet_jax.data.images import groups
from csdnet_jax.runtime.errors import UserError


@pytest.mark.parametrize(
  'name,stem',
  [
    ('L0101A_0.jpg', 'L0101A'),
    ('L0101A_12.JPG', 'L0101A'),
    ('vine 3 (2).png', 'vine 3'),
    ('vine3(2).png', 'vine3'),
    ('plot-7-b.tif', 'plot-7'),
    ('plant1.leaf2.jpg', ''),  # A counter stands alone.
    ('plant_1_2.jpg', 'plant_1'),
    ('растение7_1.jpg', 'растение7'),
    ('IMG_0001.jpg', ''),
    ('img-0001.jpeg', ''),
    ('DSCN0042.jpg', ''),
    ('DSC_0042 (1).jpg', ''),
    ('PXL_20240501_101112123.jpg', ''),
    ('IMG_20240501_101112_3.jpg', ''),
    ('20240501_101112_1.jpg', ''),
    ('WhatsApp Image 2024-05-01 at 10.11.12.jpg', ''),
    ('leaf (3).jpg', ''),
    ('photo_3.jpg', ''),
    ('7.jpg', ''),
    ('007 (2).jpg', ''),
    ('a.jpg', ''),
    ('syrah_3.jpg', ''),
    ('Syrah (3).jpg', ''),
    ('Syrah-vine2_3.jpg', 'Syrah-vine2'),
  ],
)
def test_stems(name, stem):
  assert groups.stem_of(f'syrah/{name}', 'syrah') == stem


def shared(names, sides):
  classes = [name.partition('/')[0] for name in names]
  return groups.shared_stems(names, classes, sides)


def test_stems_count_where_a_class_has_two_that_recur():
  names = ['a/p1_0', 'a/p1_1', 'a/p2_0', 'a/p2_1', 'b/q_0', 'b/q_1', 'b/q_2']
  sides = ['train', 'test', 'train', 'train', 'train', 'test', 'test']
  # All of b is of q; p2 is whole.
  assert shared(names, sides) == {'a/p1': [0, 1]}
  # Now only p1 recurs, and all that recurs says nothing.
  assert shared(names[:3], sides[:3]) == {}


def test_stems_are_of_a_class():
  names = ['a/p1_0', 'a/p2_0', 'a/p2_1', 'b/p1_1', 'b/p2_0', 'b/p2_1']
  sides = ['train', 'train', 'train', 'test', 'test', 'test']
  assert shared(names, sides) == {}
  found = groups.of_names('stem', names, [name[0] for name in names])
  assert found['a/p2_0'] == 'a/p2' != found['b/p2_0']


def test_a_regex_may_join_classes_and_leave_images_out():
  names = ['a/plot3_x.jpg', 'b/plot3_y.jpg', 'b/other.jpg']
  found = groups.of_names(r'plot\d', names, ['a', 'b', 'b'])
  assert found == {'a/plot3_x.jpg': 'plot3', 'b/plot3_y.jpg': 'plot3'}
  # Where the first group has no part in it, all of the match counts.
  assert groups.of_names(r'(zz)|other', names, ['a', 'b', 'b']) == {
    'b/other.jpg': 'other'
  }
  assert groups.of_names(r'^(.)/', names, ['a', 'b', 'b']) == {
    names[0]: 'a', names[1]: 'b', names[2]: 'b'
  }  # fmt: skip


@pytest.mark.parametrize(
  'group,match',
  [
    ('(', 'no regular expression .*correct it'),
    ('plant', 'matches none of the images .a/1.jpg'),
    ('(x?)', 'matches none of the images'),
    ('stem', 'finds no names that share all but a counter'),
  ],
)
def test_a_regex_that_says_nothing(group, match):
  with pytest.raises(UserError, match=match):
    groups.of_names(group, ['a/1.jpg'], ['a'])
