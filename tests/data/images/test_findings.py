"""What the data report says of a folder, by kind."""

import numpy as np
import pytest
from PIL import Image

from csdnet_jax.data import report, sources
from csdnet_jax.data.images import dividing, splits
from csdnet_jax.runtime.errors import UserError

import images
from images import encode, pixels, write


def reported(root, *, strict=False, size=16, split=None, **fields):
  data = images.data_config(root=str(root), strict=strict, **fields)
  dataset = sources.load_images(data, split=split)
  prints, _ = dividing.fingerprints_of(
    splits.whole(dataset), dataset.digests, data
  )
  return report.data_report(
    dataset, prints, size=size, group=data.group,
    test_fraction=data.test_fraction, strict=strict,
  )  # fmt: skip


def warnings(made):
  return [line for line in made.text.splitlines() if 'WARNING' in line]


@pytest.fixture
def plants(tmp_path):
  """Two cultivars, four plants of each, three pictures of each plant."""
  for c in ('ash', 'oak'):
    for p in range(4):
      for i in range(3):
        seed = 100 * (c == 'ash') + 10 * p + i
        write(tmp_path / c / f'{c[0]}{p}_{i}.png', encode(pixels(seed)))
  return tmp_path


def test_a_clean_folder_has_no_warning_and_says_how_it_was_split(tmp_path):
  root = images.class_folders(tmp_path, {'a': 4, 'b': 4})
  made = reported(root, test_fraction=0.25)
  assert not warnings(made)
  assert 'drew the test part, 0.25 of each class' in made.text


def test_stems_over_the_split_warn_with_the_flag(plants):
  made = reported(plants)
  (warning,) = warnings(made)
  assert '--config.data.group=stem' in warning
  assert f'{len(made.figures["stems_across"])} stems of names' in warning
  assert 'of 12 test images' in warning
  # A guess, which does not stop.
  reported(plants, strict=True)


def test_the_flag_keeps_plants_on_one_side(plants):
  made = reported(plants, group='stem')
  assert not warnings(made)
  assert '8 groups kept whole (config.data.group=stem)' in made.text
  assert made.figures['parts']['test']['images'] == 12
  made = reported(plants, group=r'/(\w\d)_')
  assert not warnings(made) and '8 groups' in made.text


def test_what_no_group_holds_is_said(plants):
  for i in range(4):
    write(plants / 'oak' / f'IMG_{i}.png', encode(pixels(900 + i)))
  made = reported(plants, group='stem')
  assert len(made.figures['ungrouped']) == 4
  assert 'note: 4 images are of no group' in made.text
  # A regex for some of them: the others' stems are still looked at.
  made = reported(plants, group='/(a\\d)_')
  assert len(made.figures['ungrouped']) == 16
  assert any('stems of names' in warning for warning in warnings(made))
  assert all('a0_' not in stem for stem in made.figures['stems_across'])


def test_groups_over_classes_are_said(tmp_path):
  for c in 'ab':
    for p in range(3):
      for i in range(2):
        seed = 100 * (c == 'a') + 10 * p + i
        write(tmp_path / c / f'plant{p}_{i}.png', encode(pixels(seed)))
  made = reported(tmp_path, group=r'plant\d')
  span = [f'plant{p}: a, b' for p in range(3)]
  assert sorted(made.figures['groups_span']) == span
  assert 'groups_span' not in reported(tmp_path, group='stem').figures


def test_a_test_fraction_that_is_not_heeded_is_said(tmp_path):
  for part in ('train', 'test'):
    images.class_folders(tmp_path / part, {'a': 2, 'b': 2})
  assert 'is not heeded' in reported(tmp_path, test_fraction=0.0).text
  assert 'is not heeded' not in reported(tmp_path).text


def test_a_split_of_the_data_is_warned_of_and_kept(plants):
  for part, i in (('train', 0), ('test', 1)):
    for path in sorted(plants.glob(f'???/*_{i}.png')):
      write(plants / 'set' / part / path.parent.name / path.name,
            path.read_bytes())  # fmt: skip
    # Another picture each, so that plants recur.
    for path in sorted(plants.glob('???/*_2.png')):
      if part == 'train':
        write(plants / 'set' / part / path.parent.name / path.name,
              path.read_bytes())  # fmt: skip
  root = plants / 'set'
  (warning,) = warnings(reported(root))
  assert 'came with the data and stays' in warning and 'group=' not in warning
  made = reported(root, group='stem')
  (warning,) = warnings(made)
  assert '8 groups are on both sides' in warning
  assert made.figures['parts']['test']['images'] == 8
  with pytest.raises(UserError, match='8 groups are on both sides'):
    reported(root, group='stem', strict=True)


@pytest.mark.parametrize('layout', ['own', 'given'])
def test_equal_pixels_in_other_bytes(tmp_path, layout):
  places = {'own': ('', ''), 'given': ('train/', 'test/')}[layout]
  for place in set(places):
    images.class_folders(tmp_path / place, {'a': 6, 'b': 6})
  for i in range(6):
    copy = encode(pixels(i), 'BMP')
    write(tmp_path / places[1] / 'a' / f'copy {i}.bmp', copy)
  if layout == 'given':
    made = reported(tmp_path)
    assert any('images are on both sides' in w for w in warnings(made))
    with pytest.raises(UserError, match='copy 3.bmp'):
      reported(tmp_path, strict=True)
  else:
    for seed in range(5):
      made = reported(tmp_path, split_seed=seed, strict=True)
      assert 'equal_across' not in made.figures
      assert len(made.figures['equal_within']) == 6


def test_one_picture_under_two_labels_warns_and_stops(tmp_path):
  root = images.class_folders(tmp_path, {'a': 4, 'b': 4})
  for i in (0, 1):
    write(root / 'b' / f'again {i}.png', encode(pixels(i), compress_level=0))
  made = reported(root)
  (warning,) = warnings(made)
  assert '2 images are in several classes at once' in warning
  assert 'a/0.png (a) = b/again 0.png (b)' in warning
  with pytest.raises(UserError, match='a/1.png .a. = b/again 1.png .b.'):
    reported(root, strict=True)


def test_a_class_that_is_a_copy(tmp_path):
  root = images.class_folders(tmp_path, {'a': 4, 'b': 4})
  for i in range(4):
    write(root / 'a (1)' / f'{i}.png', (root / 'a' / f'{i}.png').read_bytes())
  made = reported(root)
  assert made.figures['copies'] == ['a (1) of a: 4 of its 4 images']
  assert any('class looks like a copy' in w for w in warnings(made))


def test_a_class_that_is_a_copy_of_smaller_pictures(tmp_path):
  """None of its pixels is equal."""
  from csdnet_jax.data import leaves

  leaves.write(
    tmp_path / 'drawn', cultivars=3, train_per_class=4, test_per_class=1,
    size=128,
  )  # fmt: skip
  root = tmp_path / 'set'
  for path in sorted((tmp_path / 'drawn').rglob('*.png')):
    name = path.parent.name
    write(root / name / path.name, path.read_bytes())
    if name == sorted(p.name for p in path.parent.parent.iterdir())[0]:
      with Image.open(path) as image:
        write(root / 'web' / path.name, encode(image.resize((80, 80))))
  made = reported(root)
  (copy,) = made.figures['copies']
  assert copy.startswith('web of') and copy.endswith('5 of its 5 images')
  assert 'equal_labels' not in made.figures


def test_near_duplicates_over_the_split(tmp_path):
  from csdnet_jax.data import leaves

  leaves.write(
    tmp_path / 'drawn', cultivars=2, train_per_class=3, test_per_class=1,
    size=128,
  )  # fmt: skip
  root = tmp_path / 'set'
  for path in sorted((tmp_path / 'drawn').rglob('*.png')):
    name = path.parent.name
    write(root / 'train' / name / path.name, path.read_bytes())
    with Image.open(path) as image:
      jpeg = encode(image, 'JPEG')
    write(root / 'test' / name / f'{path.stem}.jpg', jpeg)
  made = reported(root)
  assert len(made.figures['alike_across']) == 8
  assert any('8 pairs of images on both sides' in w for w in warnings(made))


def test_twelve_bits_in_sixteen_and_blanks_and_small_ones(tmp_path):
  root = images.class_folders(tmp_path, {'a': 4, 'b': 4})
  rng = np.random.default_rng(0)
  dark = rng.integers(0, 4096, (20, 20)).astype(np.uint16)
  Image.fromarray(dark).save(root / 'a' / 'twelve.png')
  Image.new('RGB', (20, 20), 'white').save(root / 'b' / 'blank.png')
  write(root / 'b' / 'tiny.png', encode(pixels(5, 7, 30)))
  figures = reported(root).figures
  assert figures['black'] == ['a/twelve.png']
  assert figures['white'] == ['b/blank.png']
  assert figures['tiny'] == ['b/tiny.png']


def test_classes_that_are_not_tested_are_named(tmp_path):
  root = images.class_folders(tmp_path, {'a': 4, 'b': 1, 'c': 2})
  made = reported(root)
  assert made.figures['untested'] == ['b']
  assert 'has a single image' in warnings(made)[0]
  for i in range(3):
    write(root / 'd' / f'p1_{i}.png', encode(pixels(70 + i)))
  made = reported(root, group='stem')
  assert made.figures['untested'] == ['b', 'd']
  assert 'a single group, which stays whole in train' in warnings(made)[0]


def test_classes_without_a_validation_image_are_named(tmp_path):
  root = images.class_folders(tmp_path, {'a': 6, 'b': 2})
  made = reported(root, val_fraction=0.3)
  assert made.figures['unvalidated'] == ['b'] and warnings(made) == [
    'WARNING: 1 class has no val image; the best epoch and the temperature are '
    'found without it (b)'
  ]


def test_nothing_for_test_is_said(tmp_path):
  root = images.class_folders(tmp_path, {'a': 4, 'b': 1})
  made = reported(root, test_fraction=0.0)
  assert 'Nothing is for test (config.data.test_fraction=0)' in made.text
  assert list(made.figures['parts']) == ['train']
  assert not warnings(made)
  made = reported(root, test_fraction=0.0, val_fraction=0.3)
  assert 'the validation part alone will tell' in made.text


@pytest.mark.parametrize('bad', [b'', b'no image', None])
def test_what_cannot_be_read_stops_or_is_skipped(tmp_path, capsys, bad):
  root = images.class_folders(tmp_path, {'a': 4, 'b': 4})
  bad = encode(pixels(0))[:-30] if bad is None else bad
  write(root / 'a' / 'bad.png', bad)
  with pytest.raises(
    UserError, match='set --config.data.unreadable=skip: a/bad.png: '
  ):
    reported(root)
  made = reported(root, unreadable='skip')
  assert made.figures['parts']['train']['images'] == 4
  assert 'Skipped, 1 image that' in capsys.readouterr().out
  # None of a class is left.
  for i in range(4):
    write(root / 'b' / f'{i}.png', bad)
  with pytest.raises(UserError, match=r'no training image \(b\)'):
    reported(root, unreadable='skip')
