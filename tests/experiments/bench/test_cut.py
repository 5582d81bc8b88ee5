"""What the benchmark of `csdnet cut` calls found, split, joined and missed."""

import pathlib

import pytest

from experiments.bench import cut

import images
import scenes

A, B = (0, 0, 100, 100), (120, 0, 220, 100)


@pytest.mark.parametrize(
  ('found', 'what'),
  [
    ([A, B], {}),
    ([], {'missed': [A, B]}),
    ([A], {'missed': [B]}),
    ([A, B, (0, 200, 50, 250)], {'false': [(0, 200, 50, 250)]}),
    ([(0, 0, 220, 100)], {'joined': [A, B]}),
    ([B, (0, 0, 100, 48), (0, 52, 100, 100)], {'split': [A]}),
    ([B, (0, 0, 100, 70), (0, 72, 100, 100)], {'split': [A]}),
  ],
)
def test_what_became_of_each_leaf(found, what):
  result = cut.compare(found, [A, B])
  del result['matched']
  assert {k: v for k, v in result.items() if v} == what


def test_pairs_are_one_to_one_and_keep_their_overlap():
  result = cut.compare([(10, 0, 110, 100), B], [B, A])
  assert sorted(result['matched']) == [pytest.approx(90 / 110), 1.0]


def test_a_folder_is_measured(tmp_path):
  picture, boxes = scenes.photograph([(60, 40, 160)], size=(300, 400))
  images.write(tmp_path / 'a.png', images.encode(picture))
  result = cut.measure(tmp_path, {'a.png': boxes})
  assert (result['true'], result['found'], result['matched']) == (1, 1, 1)
  assert result['least_iou'] > 0.97


def test_the_true_boxes_lie_in_the_photographs():
  path = pathlib.Path(cut.__file__).with_name('grape_boxes.csv')
  true = cut.read_boxes(path)
  assert len(true) == 126 and sum(map(len, true.values())) == 265
  for boxes in true.values():
    for left, top, right, bottom in boxes:
      assert 0 <= left < right <= 2048 and 0 <= top < bottom <= 1536
