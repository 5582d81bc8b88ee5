"""The data report says what a person should know before a run."""

import json

import numpy as np
import pytest

from csdnet_jax.data import folders, report
from csdnet_jax.data.images import fingerprints, splits
from csdnet_jax.runtime.errors import UserError

import streets


def split_of(labels):
  """From name -> label."""
  return splits.Split(
    tuple(labels), np.array(list(labels.values()), np.int32), lambda i: b''
  )


def make(train, test, val=None, name='set'):
  return splits.Dataset(
    name, ('Ada', 'Bo'), split_of(train), val and split_of(val), split_of(test)
  )


def run(dataset, equal=(), strict=False):
  """All images differ, but for those that `equal` names."""
  names = [n for part in splits.parts_of(dataset).values() for n in part.names]
  rng = np.random.default_rng(0)
  prints = np.zeros(len(names), fingerprints.DTYPE)
  prints['pixels'] = rng.integers(0, 256, prints['pixels'].shape)
  prints['hash'] = rng.integers(0, 256, prints['hash'].shape)
  prints['brightest'] = 255
  prints[[n in equal for n in names]] = prints[0]
  prints['size'] = 300, 100
  prints['size'][0] = 64, 65
  return report.data_report(dataset, prints, size=32, strict=strict)


TRAIN = {'a1.png': 0, 'a2.png': 0, 'b1.png': 1}
TEST = {'a3.png': 0, 'b3.png': 1}


def test_counts_and_sizes():
  text, figures, details = run(make(TRAIN, TEST))
  assert figures['classes'] == 2
  assert figures['parts']['train'] == {
    'images': 3,
    'classes': 2,
    'smallest_class': 'Bo',
    'smallest_class_images': 1,
    'largest_class_images': 2,
  }
  assert figures['sizes'] == {
    'longer_side': {'64-127': 1, '256-511': 4},
    'smallest': [64, 65],
    'largest': [300, 100],
    'widest_aspect': 3.0,
  }
  assert json.loads(json.dumps(figures)) == figures
  assert '64 x 65' in details and '3.0 : 1' in details
  assert '\n  classes: Ada 3, Bo 2' in text
  for words in ('     3 images of 2 classes', 'fewest: Bo'):
    assert words in text
  assert 'WARNING' not in text and 'val' not in text


def test_what_is_not_used_and_how_the_data_were_read_is_said():
  unused = [folders.Unused(f'a/{i}.HEIC', '.HEIC') for i in range(5)]
  unused += [folders.Unused('b/', folders.EMPTY)]
  dataset = make(TRAIN, TEST)._replace(unused=unused, notes=('val is test',))
  text, figures, _ = run(dataset)
  assert figures['unused'] == {'.HEIC': 5, 'empty class folders': 1}
  lines = text.splitlines()
  assert lines[4].startswith('  not used: 5 .HEIC, 1 empty class folder (b/)')
  assert lines[5] == 'note: val is test'
  assert run(make(TRAIN, TEST)).figures['unused'] == {}


def test_what_is_not_used_beside_pairs_is_said(tmp_path):
  root = streets.pairs(tmp_path, {'train': 1, 'test': 1})
  (root / 'sheet.png').write_bytes(b'')
  dataset = streets.scanned(streets.opened(root))
  counts = {part: np.ones((1, 256), np.int64) for part in ('train', 'test')}
  text, figures, _ = report.pairs_report(dataset, dataset.scans, counts)
  assert '\n  not used: 1 image without a role (sheet.png)' in text
  assert figures['unused'] == {'images without a role': 1}


def test_equal_files_within_a_part_are_noted():
  dataset = make(TRAIN, TEST, {'v.png': 1, 'w.png': 0})
  text, figures, _ = run(dataset, equal=('a1.png', 'a2.png'), strict=True)
  assert figures['equal_within'] == ['a1.png (train) = a2.png (train)']
  assert 'equal_across' not in figures
  assert 'a1.png (train) = a2.png (train)' in text and 'WARNING' not in text


@pytest.mark.parametrize('twin, part', [('b3.png', 'test'), ('v.png', 'val')])
def test_equal_files_across_the_split_warn_or_stop(twin, part):
  dataset = make(TRAIN, TEST, {'v.png': 1})
  text, figures, _ = run(dataset, equal=('a1.png', twin))
  assert figures['equal_across'] == [f'a1.png (train) = {twin} ({part})']
  assert 'WARNING' in text and figures['equal_across'][0] in text
  with pytest.raises(UserError, match=twin):
    run(dataset, equal=('a1.png', twin), strict=True)


@pytest.mark.parametrize(
  'name, train, test',
  [
    ('anything', 'x/GDC008-1-001_2_test.png', 'x/GDC008-1-001_1_train.png'),
    ('cotton80', '1_2_train.png', '1_3_test.png'),
    ('soy_global', '1_2_train.png', '1_3_test.png'),
    ('soy_ageing/R1', 'yd012_R1_6_train.png', 'yd012_R1_5_test.png'),
  ],
)
def test_names_that_disagree_with_the_split(name, train, test):
  dataset = make({train: 0, 'b.png': 1}, {test: 0, 'c.png': 1}, name=name)
  text, figures, _ = run(dataset)
  assert figures['misnamed'] == [f'{train} (train)', f'{test} (test)']
  assert 'WARNING' in text and train in text
  with pytest.raises(UserError, match='set --config.data.strict=False'):
    run(dataset, strict=True)


@pytest.mark.parametrize(
  'name, train, test',
  [
    ('anything', 'GDC008-1-001_3_train.png', 'GDC008-1-001_3_test.png'),
    ('soy_gene', 'GDC008-1-001_2_train.png', 'GDC008-1-001_3_test.png'),
    ('soy_local', '1_5_train.png', '1_6_test.png'),
    ('soy_ageing/R6', 'yd012_R6_2_train.png', 'yd012_R6_10_test.png'),
    ('cotton80', 'IMG_0002.png', 'IMG_0003.png'),
  ],
)
def test_names_that_agree_or_say_nothing(name, train, test):
  dataset = make(
    {train: 0, 'b.png': 1},
    {test: 0, 'c.png': 1},
    {'9_3_train.png': 1} if 'ageing' not in name else {'9_R6_3_train.png': 1},
    name,
  )
  assert 'misnamed' not in run(dataset, strict=True).figures


def test_long_findings_are_cut_and_counted():
  train = {f'{i}_2_test.png': i % 2 for i in range(25)}
  dataset = make(train, TEST)
  assert (
    'WARNING: 25 files disagree by name with the split (0_2_test.png (train); '
    '1_2_test.png (train); 2_2_test.png (train); ...; data_report.json has all)'
  ) in run(dataset).text
  with pytest.raises(UserError, match=r'9_2_test.png \(train\) and 15 more'):
    run(dataset, strict=True)


def test_one_is_no_plural():
  text = run(make(TRAIN | {'c_2_test.png': 0}, {'b3.png': 1})).text
  assert '     1 image of 1 class, 0 to 1 each' in text
  assert '1 file disagrees by name with the split (c_2_test.png' in text
  assert '1 class has no test image (Ada)' in text
