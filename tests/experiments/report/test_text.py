"""Tables as text."""

from experiments.report import collect, text

from lines import first, judged, line, split_anew


def test_frozen_features_are_said_where_all_arms_start_from_them():
  rows = [line('base', 0, first(3)), line('a', 0, first(3))]
  for row in rows:
    row['summary']['start'] = {'knn': 40.0, 'linear_probe': 50.0}
    row['val'] = judged(first(9))
  words = 'The features before training: linear probe 50.0, kNN 40.0.'
  assert words in text.describe(collect.tables(rows)[0])
  # They are those of the test part, and of one network.
  assert 'before' not in text.describe(collect.tables(rows, part='val')[0])
  rows[1]['summary']['start'] = {'knn': 41.0, 'linear_probe': 50.0}
  assert 'before' not in text.describe(collect.tables(rows)[0])


def test_frozen_features_are_averaged_over_splits():
  rows = [split_anew(a, s, first(3)) for s in (0, 1) for a in ('base', 'a')]
  for row in rows:
    row['summary']['start'] = {'knn': 40.0 + 3 * row['seed']}
  words = 'The features before training: kNN 41.5.'
  assert words in text.describe(collect.tables(rows)[0])


def test_arms_of_one_run_are_said():
  rows = [line('base', 0, first(3)), line('a', 0, first(3))]
  rows[1]['same_as'] = 'base'
  assert 'a: the runs of base.' in text.describe(collect.tables(rows)[0])
