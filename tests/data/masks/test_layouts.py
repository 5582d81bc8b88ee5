"""Folders of images with masks, and what is wrong with them."""

import types

import numpy as np
import pytest

from csdnet_jax.data import folders, sources
from csdnet_jax.data.masks import layouts
from csdnet_jax.runtime.errors import UserError

import images
import streets


def load(source, root, name=''):
  data = types.SimpleNamespace(source=source, root=str(root), name=name)
  return sources.load_masks(data)


def touch(root, *names):
  for name in names:
    images.write(root / name, b'x')
  return root


def test_cityscapes_takes_the_train_ids_and_no_other_file(tmp_path):
  for part in ('train', 'val'):
    for i in range(2):
      stem = f'{part}/ulm/ulm_{i}_{part}'
      touch(
        tmp_path,
        f'leftImg8bit/{stem}_leftImg8bit.png',
        f'gtFine/{stem}_gtFine_labelTrainIds.png',
        f'gtFine/{stem}_gtFine_color.png',
        f'gtFine/{stem}_gtFine_labelIds.png',
      )
  dataset = load('cityscapes', tmp_path)
  assert dataset.train.names == tuple(
    f'leftImg8bit/train/ulm/ulm_{i}_train_leftImg8bit.png' for i in range(2)
  )
  assert dataset.test.masks[1].endswith('ulm_1_val_gtFine_labelTrainIds.png')
  assert dataset.val is None and len(dataset.class_names) == 19
  assert dataset.ids[:19].tolist() == list(range(19))
  assert dataset.ids[255] == 255 and dataset.ids[19] == layouts.REFUSED
  (tmp_path / dataset.train.masks[0]).unlink()
  with pytest.raises(UserError, match=r'partner in gtFine/train \(.*ulm_0_tr'):
    load('cityscapes', tmp_path)
  # The download as it is: its own ids, of which a part has a class.
  for path in (tmp_path / 'gtFine').rglob('*TrainIds.png'):
    path.unlink()
  dataset = load('cityscapes', tmp_path)
  assert dataset.train.masks[0].endswith('ulm_0_train_gtFine_labelIds.png')
  named = {n: dataset.class_names[dataset.ids[n]] for n in (7, 26, 33)}
  assert named == {7: 'road', 26: 'car', 33: 'bicycle'}
  assert (dataset.ids[:34] < 19).sum() == 19
  assert dataset.ids[0] == 255 and dataset.ids[34] == layouts.REFUSED


def test_ade20k_leaves_zero_out_and_counts_from_one(tmp_path):
  for part in ('training', 'validation'):
    touch(tmp_path, f'images/{part}/a.jpg', f'annotations/{part}/a.png')
  dataset = load('ade20k', tmp_path)
  assert dataset.ids[:3].tolist() == [255, 0, 1] and dataset.ids[150] == 149
  assert dataset.ids[151] == layouts.REFUSED
  assert dataset.class_names == tuple(str(i) for i in range(1, 151))
  rows = ['Idx\tRatio\tTrain\tVal\tName']
  rows += [f'{i}\t0.1\t9\t9\tname{i}, other' for i in range(1, 151)]
  images.write(tmp_path / 'objectInfo150.txt', '\n'.join(rows).encode())
  assert load('ade20k', tmp_path).class_names[:2] == ('name1', 'name2')
  images.write(tmp_path / 'objectInfo150.txt', b'1\n2')
  with pytest.raises(UserError, match='150 lines'):
    load('ade20k', tmp_path)


def context(root, masks, lists='Main'):
  for part, stem in (('train', 'a'), ('val', 'b')):
    touch(root, f'JPEGImages/{stem}.jpg', f'{masks}/{stem}.png')
    images.write(root / f'ImageSets/{lists}/{part}.txt', f'{stem}\n'.encode())
  return root


def test_context_gives_both_orders_of_its_files_the_same_classes(tmp_path):
  authors = load('context60', context(tmp_path / '1', '59_context_labels'))
  sorted_set = load(
    'context60',
    context(tmp_path / '2', 'SegmentationClassContext', 'SegmentationContext'),
  )
  names = authors.class_names
  assert sorted_set.class_names == names and len(names) == 60
  assert names[:3] == ('background', 'aeroplane', 'bicycle')
  assert names[21] == 'bag' and names[59] == 'wood'
  # By name a bag is the second class, a bicycle the sixth.
  assert names[sorted_set.ids[2]] == 'bag' and authors.ids[2] == 2
  assert names[sorted_set.ids[6]] == 'bicycle'
  assert sorted(sorted_set.ids[:60]) == list(range(60))
  without = load('context59', tmp_path / '2')
  assert without.class_names == names[1:] and without.ids[0] == 255
  assert without.class_names[without.ids[2]] == 'bag'
  assert sorted(without.ids[1:60]) == list(range(59))


def test_context_in_both_orders_at_once_is_refused(tmp_path):
  context(tmp_path, '59_context_labels')
  context(tmp_path, 'SegmentationClassContext')
  with pytest.raises(UserError, match='differently'):
    load('context60', tmp_path)


@pytest.mark.parametrize('suffix', ['_labels', 'annot'])
def test_camvid_has_eleven_classes_and_leaves_the_twelfth_out(tmp_path, suffix):
  for part in ('train', 'val', 'test'):
    touch(tmp_path, f'{part}/a{part}.jpg', f'{part}{suffix}/a{part}.png')
  dataset = load('camvid', tmp_path, name='streets')
  assert dataset.name == 'streets' and len(dataset.class_names) == 11
  assert dataset.ids[10:13].tolist() == [10, 255, layouts.REFUSED]
  assert dataset.val.names == ('val/aval.jpg',)
  assert list(layouts.parts_of(dataset)) == ['train', 'val', 'test']
  assert dataset.test.read(0) == (b'x', b'x')


def test_pairs_in_folders(tmp_path):
  streets.pairs(tmp_path, {'train': 2, 'test': 1})
  dataset = load('pairs', tmp_path)
  assert dataset.class_names == streets.NAMES and dataset.val is None
  assert dataset.train.names == ('images/train/0.png', 'images/train/1.png')
  assert dataset.train.masks == ('masks/train/0.png', 'masks/train/1.png')


def test_folders_of_pairs_have_their_usual_names(tmp_path):
  streets.pairs(tmp_path, {'train': 2, 'val': 1, 'test': 1})
  for old, new in {
    'images/train': 'Train', 'masks/train': 'TRAINING', 'images/val': 'valid',
    'masks/test': 'Testing',
  }.items():  # fmt: skip
    (tmp_path / old).rename((tmp_path / old).with_name(new))
  dataset = load('pairs', tmp_path)
  assert dataset.train.names == ('images/Train/0.png', 'images/Train/1.png')
  assert dataset.train.masks == ('masks/TRAINING/0.png', 'masks/TRAINING/1.png')
  assert dataset.val.names == ('images/valid/0.png',)
  assert dataset.val.masks == ('masks/val/0.png',)
  assert dataset.test.masks == ('masks/Testing/0.png',)
  assert dataset.unused == ()
  (tmp_path / 'images/test').rename(tmp_path / 'images/tests')
  with pytest.raises(UserError, match='has no images/test/; add it'):
    load('pairs', tmp_path)
  (tmp_path / 'images/tests').rename(tmp_path / 'images/dev')
  with pytest.raises(
    UserError, match='has both dev/ and valid/, each of which'
  ):
    load('pairs', tmp_path)


def listed(root, **lists):
  """Pairs a, b and c under any names, with the lists given."""
  touch(root, 'photos/a 1.jpg', 'photos/b.jpg', 'm/a 1.png', 'm/b.png')
  images.write(root / 'classes.txt', b'one\ntwo\n\n')
  for part, text in lists.items():
    images.write(root / f'{part}.txt', text.encode())
  return root


A, B = 'photos/a 1.jpg\tm/a 1.png\n', 'photos/b.jpg m/b.png\n'


def test_pairs_in_lists_and_a_lone_val_part_that_tests(tmp_path):
  dataset = load('pairs', listed(tmp_path, train=A, val=B))
  assert dataset.train.names == ('photos/a 1.jpg',)
  assert dataset.test.masks == ('m/b.png',) and dataset.val is None


@pytest.mark.parametrize(
  'lists,words',
  [
    ({'train': A}, 'no test part'),
    ({'test': B}, 'no train part'),
    ({'train': A, 'test': ''}, 'test part .* is empty'),
    ({'train': A, 'test': A}, 'is in train and in test'),
    ({'train': B + B, 'test': A}, 'twice'),
    ({'train': A, 'test': 'photos/b.jpg\n'}, "write '<image> <mask>'"),
    ({'train': A, 'test': 'photos/b.jpg m/c.png'}, r'not in .*m/c\.png'),
    ({'train': A, 'test': 'photos/b.jpg ../m/b.png'}, 'outside'),
    ({'train': A, 'test': '/etc/hosts m/b.png'}, 'outside'),
  ],
)
def test_what_is_wrong_with_a_list_is_a_sentence(tmp_path, lists, words):
  with pytest.raises(UserError, match=words):
    load('pairs', listed(tmp_path, **lists))


def test_nothing_is_read_through_a_link_out_of_the_root(tmp_path):
  root = listed(tmp_path / 'set', train=A, test=B)
  images.write(tmp_path / 'secret.png', b'x')
  (root / 'm/b.png').unlink()
  (root / 'm/b.png').symlink_to(tmp_path / 'secret.png')
  with pytest.raises(UserError, match='outside'):
    load('pairs', root)
  folder = streets.pairs(tmp_path / 'folders', {'train': 1, 'test': 1})
  (folder / 'masks/test/0.png').unlink()
  (folder / 'masks/test/0.png').symlink_to(tmp_path / 'secret.png')
  with pytest.raises(UserError, match=r'no partner in masks/test \(images'):
    load('pairs', folder)


def test_what_has_no_role_is_counted(tmp_path):
  streets.pairs(tmp_path, {'train': 2, 'test': 1})
  assert load('pairs', tmp_path).unused == ()
  touch(
    tmp_path, 'images/train/notes.txt', 'images/old/0.png', 'photos/1.png',
    'sheet.png', 'masks/train/.DS_Store', 'masks/test/1.xcf',
  )  # fmt: skip
  (tmp_path / 'again').symlink_to(tmp_path)
  assert folders.said(load('pairs', tmp_path).unused) == (
    'not used: folders images/old/, photos/, '
    '1 image without a role (sheet.png), 1 link (again), '
    '1 of unknown kind (images/train/notes.txt), 1 .xcf (masks/test/1.xcf)'
  )


def test_the_lists_of_a_set_are_used_and_those_that_are_not_are_counted(
  tmp_path,
):
  root = context(tmp_path, '59_context_labels')
  assert load('context60', root).unused == ()
  context(root, '59_context_labels', 'SegmentationContext')
  touch(root, 'JPEGImages/c.jpg', 'README')
  assert folders.counts(load('context60', root).unused) == {
    'of unknown kind': 1, 'folders': 1, 'images without a role': 1
  }  # fmt: skip
  listed(tmp_path / 'lists', train=A, test=B)
  assert load('pairs', tmp_path / 'lists').unused == ()


def test_missing_partners_are_named_on_either_side(tmp_path):
  streets.pairs(tmp_path, {'train': 3, 'test': 1})
  (tmp_path / 'masks/train/1.png').unlink()
  with pytest.raises(UserError, match=r'images/train/1\.png.*add the partners'):
    load('pairs', tmp_path)
  images.write(tmp_path / 'masks/train/1.png', b'x')
  (tmp_path / 'images/train/2.png').unlink()
  with pytest.raises(UserError, match=r'images/train \(masks/train/2\.png'):
    load('pairs', tmp_path)


def test_two_masks_of_one_image_are_named(tmp_path):
  streets.pairs(tmp_path, {'train': 1, 'test': 1})
  touch(tmp_path, 'masks/train/0.bmp')
  with pytest.raises(UserError, match='has both'):
    load('pairs', tmp_path)


@pytest.mark.parametrize('text', ['', 'one', 'one\n\ntwo', 'one\none\ntwo'])
def test_class_names_are_checked(tmp_path, text):
  streets.pairs(tmp_path, {'train': 1, 'test': 1})
  images.write(tmp_path / 'classes.txt', text.encode())
  with pytest.raises(UserError, match='different names'):
    load('pairs', tmp_path)


def test_what_is_absent_is_a_sentence(tmp_path):
  with pytest.raises(UserError, match='pairs nor a module'):
    load('voc', tmp_path)
  with pytest.raises(UserError, match='config.data.root is empty'):
    load('camvid', '')
  with pytest.raises(UserError, match=r'classes\.txt is absent'):
    load('pairs', tmp_path)
  with pytest.raises(UserError, match='no leftImg8bit/train'):
    load('cityscapes', tmp_path)
  with pytest.raises(UserError, match='59_context_labels or'):
    load('context59', tmp_path)


def test_a_class_of_pairs_is_the_number_of_its_line(tmp_path):
  streets.pairs(tmp_path, {'train': 2, 'test': 1})
  assert np.array_equal(load('pairs', tmp_path).ids[:5], np.arange(5))
