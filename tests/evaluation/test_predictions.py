"""The table of predictions: one form, wherever it is written."""

import csv
import io

import numpy as np

from csdnet_jax.evaluation import neighbours, predictions


def read(names, labels, outputs, class_names, **given):
  """The table, read again."""
  rows = predictions.rows(
    names, np.array(labels), outputs, class_names, **given
  )
  text = predictions.table(rows, class_names)
  return list(csv.DictReader(io.StringIO(text, newline='')))


def outputs(logits, vectors=None):
  logits = np.array(logits, np.float32)
  none = np.zeros((len(logits), 2), np.float32)
  return {
    'logits': logits,
    'embedding': none if vectors is None else np.array(vectors, np.float32),
  }


def test_the_five_likeliest_come_first_and_names_are_quoted():
  names = ['a', 'b, "c"', 'd\ne', 'f', 'g', 'h', 'i']
  p = [1e-9, 0.4, 0.3, 0.1, 0.1, 0.1, 1e-9]
  (row,) = read(['x,y.png'], [2], outputs([np.log(p)]), names)
  assert list(row)[-4:] == ['class_5', 'probability_5', 'nearest', 'distance']
  assert row['path'] == 'x,y.png' and row['label'] == 'd\ne'
  classes = [row[f'class_{i}'] for i in range(1, 6)]
  assert classes == ['b, "c"', 'd\ne', 'f', 'g', 'h']
  shares = [row[f'probability_{i}'] for i in range(1, 6)]
  assert shares == ['0.400000', '0.300000'] + ['0.100000'] * 3
  assert row['nearest'] == row['distance'] == ''


def test_a_carriage_return_in_a_name_ends_no_row():
  rows = read(
    ['a\rb.png', 'c.png'], [0, 1], outputs([[2, 0]] * 2), ['x\r', 'y']
  )
  assert [row['path'] for row in rows] == ['a\rb.png', 'c.png']
  assert [row['class_1'] for row in rows] == ['x\r'] * 2


def test_the_nearest_training_image_and_its_distance():
  leaves = neighbours.Embeddings(
    ('a/1.png', 'b/1.png'), np.array([0, 1], np.int32),
    np.array([[1, 0], [3, 4]], np.float32), 7,
  )  # fmt: skip
  found = outputs([[0, 1]] * 3, [[2, 0], [0, 2], [-1, 0]])
  rows = read('xyz', [-1] * 3, found, 'ab', leaves=leaves)
  assert [r['nearest'] for r in rows] == ['a/1.png', 'b/1.png', 'b/1.png']
  assert [r['distance'] for r in rows] == ['0.000000', '0.200000', '1.600000']
  assert [r['label'] for r in rows] == ['', '', '']


def test_the_temperature_changes_probabilities_and_no_prediction():
  found = outputs([[0, 2, 1]])
  for temperature, p in ((1.0, '0.665241'), (2.0, '0.506480')):
    (row,) = read('x', [0], found, 'abc', temperature=temperature)
    assert (row['class_1'], row['probability_1']) == ('b', p)


def test_equal_probabilities_rank_as_their_logits():
  (row,) = read('x', [0], outputs([[0.0, 0.0, 1e-8]]), 'abc')
  assert row['probability_1'] == row['probability_3']
  assert [row[f'class_{i}'] for i in (1, 2, 3)] == ['c', 'a', 'b']


def test_what_is_no_number_names_no_class():
  found = outputs([[0, np.nan], [0, 1]], [[np.nan, 1], [1, 0]])
  leaves = neighbours.Embeddings(
    ('a/1.png',), np.zeros(1, np.int32), np.ones((1, 2), np.float32), 7
  )
  bad, good = read('xy', [0, 1], found, 'ab', leaves=leaves)
  assert bad['class_1'] == bad['probability_1'] == ''
  assert good['class_1'] == 'b' and good['nearest'] == 'a/1.png'


def test_whether_it_is_none_of_these_stands_before_the_classes():
  found = outputs([[0, 2], [2, 0]])
  rows = read('xy', [0, -1], found, 'ab', refused=np.array([True, False]))
  first = ['path', 'label', 'none_of_these', 'class_1', 'probability_1']
  assert list(rows[0])[:5] == first
  assert [r['none_of_these'] for r in rows] == ['yes', 'no']
  # It takes no class away: that is for the reader to do.
  assert [r['class_1'] for r in rows] == ['b', 'a']
  rows = read('xy', [0, -1], found, 'ab')
  assert [r['none_of_these'] for r in rows] == ['', '']
