"""Any folder of images becomes a data set, or a sentence says why not."""

import os
import re

import numpy as np
import pytest

from csdnet_jax.data import folders
from csdnet_jax.data.images import labelled_folders, splits
from csdnet_jax.runtime.errors import UserError

import images
from images import load

TRAIN = {'a/1.png': 1, 'a/2.png': 1, 'b/1.png': 2, 'b/2.png': 2}
TEST = {'a/3.png': 1, 'b/3.png': 2}


def per_class(split):
  return np.bincount(split.labels).tolist()


# The three layouts.


def test_ufg_layout(tmp_path):
  root = images.ufg_layout(tmp_path / 'set', TRAIN, TEST, {1: 'Ada', 2: 'Bo'})
  dataset = load(root)
  assert dataset.name == 'set' and dataset.class_names == ('Ada', 'Bo')
  assert dataset.train.names == tuple(TRAIN) and dataset.val is None
  assert dataset.train.labels.tolist() == [0, 0, 1, 1]
  assert dataset.train.labels.dtype == np.int32
  assert dataset.test.read(1) == (root / 'images/b/3.png').read_bytes()


def test_class_names_come_from_folders_else_numbers(tmp_path):
  assert load(images.ufg_layout(tmp_path / 'x', TRAIN, TEST)).class_names == (
    'a',
    'b',
  )
  flat = images.ufg_layout(
    tmp_path / 'y', {'1.png': 1, '2.png': 2}, {'3.png': 1}
  )
  assert load(flat).class_names == ('1', '2')


def test_ufg_lists_may_have_windows_ends_spaces_and_a_mark(tmp_path):
  root = images.ufg_layout(tmp_path, {'a b.png': 1, 'c.png': 2}, {'d.png': 1})
  path = root / 'anno' / 'train.txt'
  path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes().replace(b'\n', b'\r\n'))
  assert load(root).train.names == ('a b.png', 'c.png')


def test_shipped_validation_list_is_not_read(tmp_path):
  root = images.ufg_layout(tmp_path, TRAIN, TEST)
  images.write(root / 'anno' / 'val.txt', b'a/3.png 1\n')
  assert load(root).val is None


def test_train_and_test_folders(tmp_path):
  images.class_folders(tmp_path / 'train', {'a': 2, 'b': 3})
  images.class_folders(tmp_path / 'test', {'a': 1, 'b': 1})
  images.class_folders(tmp_path / 'val', {'b': 1})
  dataset = load(tmp_path)
  assert per_class(dataset.train) == [2, 3]
  assert dataset.test.names == ('test/a/0.png', 'test/b/0.png')
  assert dataset.val.names == ('val/b/0.png',)


def test_class_folders_ignore_what_is_no_image(tmp_path):
  images.class_folders(tmp_path, {'a': 2, 'b': 2})
  for name in ('a/notes.txt', 'a/.hidden.png', '.git/x.png', 'README'):
    images.write(tmp_path / name, b'x')
  images.write(tmp_path / 'a' / 'deeper' / 'X.JPeG', b'x')
  dataset = labelled_folders.open_folder(tmp_path)
  assert dataset.train.names == (
    'a/0.png', 'a/1.png', 'a/deeper/X.JPeG', 'b/0.png', 'b/1.png',
  )  # fmt: skip
  assert dataset.class_names == ('a', 'b')


# What is wrong, in a sentence.


def refused(root, match, **fields):
  with pytest.raises(UserError, match=match) as e:
    load(root, **fields)
  assert '\n' not in str(e.value)


def test_absent_and_empty_roots(tmp_path):
  refused('', 'config.data.root is empty')
  refused(tmp_path / 'nowhere', 'nowhere is not a folder')
  refused(images.write(tmp_path / 'file', b'x'), 'file is not a folder')
  (tmp_path / 'empty').mkdir()
  refused(tmp_path / 'empty', 'empty holds no class folders')


def test_too_few_classes_or_images(tmp_path):
  refused(images.class_folders(tmp_path / 'x', {'a': 5}), r'1 class \(a\);')
  root = images.class_folders(tmp_path / 'y', {'a': 1, 'b': 1})
  refused(root, 'No class of y has two training images, of which one could')
  images.class_folders(tmp_path / 'z', {'a': 3, 'b': 0})
  refused(tmp_path / 'z', r'1 class \(a\).*1 empty class folder \(b/\)')


def test_half_a_layout(tmp_path):
  images.class_folders(tmp_path / 'x' / 'train', {'a': 3, 'b': 1})
  refused(tmp_path / 'x', r'has train/ but no test/; add .* give .*x/train$')
  images.class_folders(tmp_path / 'y' / 'images', {'a': 3, 'b': 1})
  refused(tmp_path / 'y', 'has images/ but no anno/')
  for part in ('Test', 'valid'):
    images.class_folders(tmp_path / 'z' / part, {'a': 3, 'b': 1})
  refused(tmp_path / 'z', 'has Test/ and valid/ but no train/')


def test_a_folder_that_may_be_the_absent_part_is_named(tmp_path):
  for absent, there in (('test', 'train'), ('train', 'Testing')):
    for beside in ('eval', 'part 2'):
      root = tmp_path / there / beside
      for part in (there, beside):
        images.class_folders(root / part, {'a': 3, 'b': 1})
      words = f'rename to {absent}/ the folder that is that part: {beside}/'
      refused(root, re.escape(words))
  images.class_folders(root / 'notes', {'x': 0})
  refused(root, re.escape('is that part: notes/, part 2/)'))


# Split folders as people call them.


@pytest.mark.parametrize(
  'names',
  [
    ('Train', 'Test', 'Val'), ('TRAINING', 'TESTING', 'VALIDATION'),
    ('training', 'Test', 'valid'), ('train', 'testing', 'dev'),
  ],
)  # fmt: skip
def test_split_folders_have_their_usual_names(tmp_path, names):
  for n, name in zip((3, 2, 1), names, strict=True):
    images.class_folders(tmp_path / name, {'a': n, 'b': n})
  images.class_folders(tmp_path / 'old', {'a': 1})
  images.write(tmp_path / 'sheet.png', b'x')
  dataset = load(tmp_path)
  assert dataset.class_names == ('a', 'b') and dataset.notes == ()
  assert [len(p.names) for p in (dataset.train, dataset.test, dataset.val)] == [
    6, 4, 2
  ]  # fmt: skip
  assert dataset.test.names[0] == f'{names[1]}/a/0.png'
  assert folders.said(dataset.unused) == (
    'not used: 1 image outside of the split folders (sheet.png), folder old/'
  )


@pytest.mark.parametrize(
  'names', [('test',), ('Training', 'dev'), ('Testing', 'valid'), ('train',)]
)
def test_to_judge_by_a_folder_may_have_any_of_the_parts(tmp_path, names):
  for name in names:
    images.class_folders(tmp_path / name, {'a': 1, 'b': 2})
  dataset = labelled_folders.open_folder(tmp_path, trains=False)
  assert dataset.notes == () and dataset.class_names == ('a', 'b')
  found = splits.whole(dataset)
  assert sorted(found.names) == sorted(
    f'{name}/{image}'
    for name in names
    for image in ('a/0.png', 'b/0.png', 'b/1.png')
  )
  assert np.bincount(found.labels).tolist() == [len(names), 2 * len(names)]


def test_a_val_folder_tests_where_there_is_no_test_folder(tmp_path):
  images.class_folders(tmp_path / 'train', {'a': 3, 'b': 3})
  images.class_folders(tmp_path / 'Valid', {'a': 1, 'b': 1})
  dataset = load(tmp_path)
  assert dataset.test.names == ('Valid/a/0.png', 'Valid/b/0.png')
  assert dataset.val is None
  assert dataset.notes == (
    'there is no test part: the validation part is the test part',
  )


@pytest.mark.parametrize('two', [('val', 'valid'), ('train', 'Train')])
def test_two_folders_of_one_part_are_refused(tmp_path, two):
  for name in {'train', 'test', *two}:
    images.class_folders(tmp_path / name, {'a': 1, 'b': 1})
  refused(tmp_path, 'has both .*/ and .*/, each of which may be the')


def test_a_class_may_be_called_train(tmp_path):
  root = images.class_folders(tmp_path, {'Train': 3, 'bus': 3, 'tram': 3})
  assert load(root).class_names == ('Train', 'bus', 'tram')


@pytest.mark.parametrize('second', [{'x': 2, 'y': 2}, {'x': 1, 'y': 1, 'z': 1}])
def test_folders_of_folders_of_equal_names_are_refused(tmp_path, second):
  images.class_folders(tmp_path / 'A', {'x': 2, 'y': 2})
  images.class_folders(tmp_path / 'B', second)
  refused(tmp_path, r'\(A, B\) hold folders of equal names \(x, y.*Rename them')


def test_nested_class_folders_are_named_as_what_they_are_taken_for(tmp_path):
  for name in ('vine', 'plum'):
    images.class_folders(tmp_path / name, {f'{name}1': 2, f'{name}2': 2})
  images.class_folders(tmp_path, {'oak': 2})
  dataset = load(tmp_path)
  assert dataset.class_names == ('oak', 'plum', 'vine')
  assert dataset.warnings == (
    '4 folders lie in class folders: all images in such a folder are taken as '
    f'of the outer one, such as of class plum; move it out of {tmp_path} if it '
    'is no class (plum/plum1, plum/plum2, vine/vine1, vine/vine2)',
  )


def test_class_names_are_compared_in_one_form(tmp_path):
  images.class_folders(tmp_path / 'train', {'Caf\u00e9': 2, 'Cabernet ': 2})
  images.class_folders(
    tmp_path / 'test', {'Cafe\u0301': 1, 'Cabernet': 1, 'cabernet': 0}
  )
  dataset = load(tmp_path)
  assert dataset.class_names == ('Cabernet', 'Caf\u00e9')
  assert dataset.test.labels.tolist() == [0, 1]
  assert dataset.test.names == ('test/Cabernet/0.png', 'test/Cafe\u0301/0.png')
  (note,) = dataset.notes
  assert note.endswith(
    "joined: 'Cabernet', 'Cabernet ' as Cabernet; "
    "'Cafe\\u0301', 'Caf\\xe9' as Caf\u00e9"
  )


def test_class_names_that_differ_by_case_stay_apart_and_are_said(tmp_path):
  dataset = load(images.class_folders(tmp_path, {'Syrah': 2, 'syrah': 2}))
  assert dataset.class_names == ('Syrah', 'syrah')
  assert dataset.notes == (
    'class names differ by case alone, and stay apart: Syrah, syrah',
  )


def test_what_no_list_names_is_counted(tmp_path):
  root = images.ufg_layout(tmp_path, TRAIN, TEST)
  for name in ('images/a/9.png', 'images/c/1.png', 'anno/val.txt', 'x/1.png'):
    images.write(root / name, b'')
  assert folders.said(load(root).unused) == (
    'not used: 2 images that no list names (images/a/9.png, images/c/1.png), '
    '1 of unknown kind (anno/val.txt), folder x/'
  )


def test_class_that_only_the_test_folder_has(tmp_path):
  images.class_folders(tmp_path / 'train', {'a': 3, 'b': 1})
  images.class_folders(tmp_path / 'test', {'a': 3, 'new': 1})
  refused(tmp_path, r'no training image \(new\)')


def test_empty_test_or_validation_folder(tmp_path):
  images.class_folders(tmp_path / 'train', {'a': 3, 'b': 1})
  (tmp_path / 'test').mkdir()
  refused(tmp_path, 'test holds no images')
  images.class_folders(tmp_path / 'test', {'a': 1})
  (tmp_path / 'val').mkdir()
  refused(tmp_path, 'val holds no images')


def test_loose_images(tmp_path):
  root = images.class_folders(tmp_path, {'a': 3, 'b': 3})
  images.write(root / 'sheet.png', b'x')
  refused(root, r'\(sheet.png\)')


def test_labels_that_do_not_parse_or_start_at_zero(tmp_path):
  for line in ('a/1.png', 'a/1.png one', 'a/1.png -1', 'a/1.png 0', '7'):
    root = images.ufg_layout(tmp_path, TRAIN, TEST)
    images.write(root / 'anno/train.txt', f'b/1.png 2\n{line}\n'.encode())
    refused(root, 'Line 2 of .*train.txt')
  images.write(root / 'anno/train.txt', 'é 1\n'.encode('latin-1'))
  refused(root, 'not UTF-8')
  (root / 'anno/train.txt').unlink()
  refused(root, 'train.txt is absent')


def test_labels_with_gaps_or_beyond_the_classes(tmp_path):
  gap = {'1.png': 1, '2.png': 2, '4.png': 4, '5.png': 4}
  root = images.ufg_layout(tmp_path / 'x', gap, {'9.png': 1})
  refused(root, r'no training image \(3\)')
  root = images.ufg_layout(tmp_path / 'y', TRAIN, {'z.png': 3})
  refused(root, 'beyond the 2 classes .*z.png 3')
  huge = {**TRAIN, 'h.png': 10**12}
  refused(images.ufg_layout(tmp_path / 'z', huge, TEST), 'h.png 10+')
  root = images.ufg_layout(tmp_path / 'u', TRAIN, TEST, {1: 'a', 3: 'b'})
  refused(root, 'Line 2 of .*classes.txt')


def test_listed_files_that_are_missing_are_counted_and_ten_named(tmp_path):
  root = images.ufg_layout(tmp_path, TRAIN, TEST)
  lines = ''.join(f'gone{i:02}.png 1\n' for i in range(12))
  with (root / 'anno/train.txt').open('a') as f:
    f.write(lines)
  refused(root, 'gone00.png, .*gone09.png and 2 more, 12 in all')


@pytest.mark.parametrize(
  'name', ['../../out.png', '/etc/passwd', 'link.png', 'a/../../../out.png']
)
def test_paths_that_climb_out(tmp_path, name):
  out = images.write(tmp_path / 'out.png', images.encode(images.pixels(0)))
  root = images.ufg_layout(tmp_path / 'set', TRAIN, TEST)
  (root / 'images' / 'link.png').symlink_to(out)
  with (root / 'anno/test.txt').open('a') as f:
    f.write(f'{name} 1\n')
  refused(root, 'lie outside')


def test_links_are_counted_and_not_followed(tmp_path):
  out = images.class_folders(tmp_path / 'out', {'c': 2})
  root = images.class_folders(tmp_path / 'set', {'a': 2, 'b': 2})
  images.write(root / 'a/x.png', images.encode(images.pixels(7)))
  for link, target in {
    'a/y.png': 'x.png',  # To a file of the folder: used, as ever.
    'a/out.png': out / 'c/0.png',
    'a/gone.png': 'nowhere.png',
    'b/itself.png': 'itself.png',
    'b/circle': root,
    'c': out / 'c',
  }.items():
    (root / link).symlink_to(target)
  dataset = labelled_folders.open_folder(root)
  assert dataset.class_names == ('a', 'b')
  assert [n for n in dataset.train.names if 'a/' in n] == [
    'a/0.png', 'a/1.png', 'a/x.png', 'a/y.png'
  ]  # fmt: skip
  assert folders.counts(dataset.unused) == {'links': 5}
  assert folders.said(dataset.unused) == (
    'not used: 5 links (c, a/gone.png, a/out.png, ...)'
  )


def test_names_that_no_list_could_hold(tmp_path):
  root = images.class_folders(tmp_path, {'a': 2, 'b': 2})
  (root / 'a' / '0.png').rename(os.fsdecode(b'%s/a/caf\xe9.png' % bytes(root)))
  refused(root, r"a/caf.*png' in .* is no UTF-8 name")


def test_repeated_names(tmp_path):
  root = images.ufg_layout(tmp_path, TRAIN, {**TEST, 'a/1.png': 1})
  refused(root, r'both .*\(a/1.png\)')
  images.ufg_layout(root, TRAIN, TEST)
  with (root / 'anno/train.txt').open('a') as f:
    f.write('a/./2.png 1\n')
  refused(root, r'twice \(a/2.png\)')
