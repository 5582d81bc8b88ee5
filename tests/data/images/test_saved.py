"""A run knows its images again by their content, wherever they lie."""

import json
import shutil
import unicodedata

import numpy as np
import pytest

from csdnet_jax.data.folders import Unused
from csdnet_jax.data.images import fingerprints, saved, splits
from csdnet_jax.runtime import terminal
from csdnet_jax.runtime.errors import UserError

import images
from images import load

TRAIN = {'a/1.png': 1, 'a/2.png': 1, 'b/1.png': 2, 'b/2.png': 2}
TEST = {'a/3.png': 1, 'b/3.png': 2}


def names_of(dataset):
  return {p: s.names for p, s in splits.parts_of(dataset).items()}


def kept(root, **fields):
  """What a run that began with this folder has kept of it."""
  return json.loads(json.dumps(saved.split_to_json(load(root, **fields))))


def added(dataset):
  return [u.path for u in dataset.unused if u.reason == saved.ADDED]


def refused(root, split, match):
  with pytest.raises(UserError, match=match) as error:
    load(root, split=split)
  assert 'or start a new run in another --workdir' in str(error.value)


@pytest.fixture
def root(tmp_path):
  return images.class_folders(tmp_path / 'set', {'a': 6, 'b': 6})


def test_a_saved_split_is_used_and_never_redrawn(root):
  first = load(root, val_fraction=0.2, shots=1)
  split = kept(root, val_fraction=0.2, shots=1)
  images.class_folders(root, {'a': 20})
  again = load(root, split=split, split_seed=5, test_fraction=0.9)
  assert names_of(again) == names_of(first)
  for part, each in splits.parts_of(again).items():
    np.testing.assert_array_equal(
      each.labels, getattr(first, part).labels, strict=True
    )
    assert each.read(0) == (root / each.names[0]).read_bytes()
  # What `shots` has left out is nothing new.
  assert added(again) == sorted(f'a/{i}.png' for i in range(6, 20))


def test_it_holds_the_digest_of_every_image(root):
  split = kept(root, shots=1)
  assert len(split['train']) == 2 and len(split['digests']) == 12
  digest = split['digests']['a/0.png']
  assert len(digest) == 64 and set(digest) <= set('0123456789abcdef')


def test_it_holds_fingerprints_of_the_training_images_under_any_name(root):
  dataset, split = load(root, shots=1), kept(root, shots=1)
  names = dataset.train.names
  assert list(split['prints']) == list(names)
  prints = fingerprints.of_bytes(dataset.prints[name] for name in names)
  assert prints['size'].tolist() == [[12, 16]] * 2
  (root / names[0]).rename(root / 'a' / 'z.png')
  again = load(root, split=split)
  assert again.train.names == ('a/z.png', names[1])
  assert list(again.prints.values()) == [dataset.prints[n] for n in names]
  assert saved.split_to_json(again)['prints'].keys() == set(again.train.names)
  del split['prints']
  assert 'prints' not in saved.split_to_json(load(root, split=split))


def test_a_copy_anywhere_is_the_same_data_set(root, tmp_path):
  split = kept(root)
  moved = shutil.copytree(root, tmp_path / 'far' / 'away')
  shutil.rmtree(root)
  for same in (moved, f'{moved}/', tmp_path / 'far' / '..' / 'far' / 'away'):
    assert names_of(load(same, split=split)) == {
      part: tuple(split[part]) for part in ('train', 'test')
    }


def test_added_images_and_classes_are_not_used(root):
  before, split = load(root), kept(root)
  shutil.copy(root / 'b' / '0.png', root / 'a' / 'new.png')
  images.class_folders(root, {'aa': 2})
  again = load(root, split=split)
  assert names_of(again) == names_of(before)
  assert again.class_names == ('a', 'b')
  for part, each in splits.parts_of(again).items():
    assert each.labels.tolist() == list(split[part].values())
  assert again.unused == tuple(
    Unused(name, 'added since the run began')
    for name in ('a/new.png', 'aa/0.png', 'aa/1.png')
  )
  # Once kept again they are still none of the run's.
  assert 'a/new.png' not in again.digests
  assert added(load(root, split=saved.split_to_json(again))) == added(again)


def test_replaced_and_missing_images_are_named(root):
  split = kept(root)
  images.write(root / 'b' / '2.png', images.encode(images.pixels(77)))
  (root / 'a' / '1.png').unlink()
  words = r'1 are missing \(a/1.png\), 1 are other pictures now \(b/2.png\)'
  refused(root, split, words)


def test_one_that_shots_left_out_may_change(root):
  split = kept(root, shots=1)
  parts = [name for p in ('train', 'test') for name in split[p]]
  left_out = sorted(split['digests'].keys() - set(parts))
  (root / left_out[0]).unlink()
  images.write(root / left_out[1], images.encode(images.pixels(77)))
  assert added(load(root, split=split)) == [left_out[1]]


@pytest.mark.parametrize('unreadable', ['stop', 'skip'])
def test_what_was_skipped_is_named_again(root, unreadable, capsys):
  images.write(root / 'a' / 'bad.png', b'no image')
  split = kept(root, unreadable='skip', shots=2)
  capsys.readouterr()
  # What shots left out can be read.
  again = load(root, split=split, unreadable=unreadable)
  assert again.unused == (Unused('a/bad.png', 'unreadable'),)
  assert 'Skipped, 1 image that cannot be read' in capsys.readouterr().out
  assert kept(root, split=split, unreadable=unreadable) == split


def test_renamed_images_are_found_by_their_content(root):
  split = kept(root)
  (root / 'a' / 'field').mkdir()
  for i in range(6):
    (root / 'a' / f'{i}.png').rename(root / 'a' / 'field' / f'{i}.png')
  # Two that swap their names.
  (root / 'b' / '0.png').rename(root / 'b' / 'x')
  (root / 'b' / '1.png').rename(root / 'b' / '0.png')
  (root / 'b' / 'x').rename(root / 'b' / '1.png')
  with terminal.console.capture() as captured:
    again = load(root, split=split)
  assert ' '.join(captured.get().split()).startswith(
    '8 images of set have other names than when the run began'
  )
  assert not again.unused
  for part, each in splits.parts_of(again).items():
    for i, name in enumerate(split[part]):
      digest = split['digests'][name]
      assert again.digests[each.names[i]] == digest
      assert each.read(i) == (root / each.names[i]).read_bytes()
  # From then on by those names.
  with terminal.console.capture() as captured:
    load(root, split=saved.split_to_json(again))
  assert captured.get() == ''


def test_names_in_another_unicode_form_are_the_same_images(tmp_path):
  composed = unicodedata.normalize('NFC', 'Sémillon')
  apart = unicodedata.normalize('NFD', composed)
  split = kept(images.class_folders(tmp_path / 'x', {composed: 4, 'b': 4}))
  root = images.class_folders(tmp_path / 'y', {apart: 4, 'b': 4})
  again = load(root, split=split)
  labels = again.train.labels.tolist()
  assert labels == list(split['train'].values())
  assert not again.unused


def test_equal_images_keep_their_own_names_and_labels(root):
  for name in ('a/7.png', 'b/7.png'):
    shutil.copy(root / 'a' / '0.png', root / name)
  split = kept(root)
  assert names_of(load(root, split=split)) == {
    part: tuple(split[part]) for part in ('train', 'test')
  }
  (root / 'b' / '7.png').rename(root / 'b' / '8.png')
  again = load(root, split=split)
  names = {n for part in names_of(again).values() for n in part}
  assert 'b/8.png' in names and {'a/0.png', 'a/7.png'} <= names


def test_other_labels_are_refused(tmp_path):
  classes = {1: 'p', 2: 'q'}
  root = images.ufg_layout(tmp_path / 'x', TRAIN, TEST, classes)
  split = kept(root)
  images.ufg_layout(root, {**TRAIN, 'b/1.png': 1}, TEST, classes)
  refused(root, split, r'another label now \(b/1.png: p, not q\)')
  root = images.class_folders(tmp_path / 'y', {'a': 4, 'b': 4})
  split = kept(root)
  (root / 'b' / '1.png').rename(root / 'a' / '9.png')
  refused(root, split, r'another label now \(a/9.png: a, not b\)')
  (root / 'b').rename(root / 'c')
  refused(root, split, 'have another label now')


def test_of_a_run_without_digests_the_names_decide(root):
  split = kept(root, shots=1)
  del split['digests']
  images.write(root / 'b' / '2.png', images.encode(images.pixels(77)))
  images.class_folders(root, {'a': 9})
  again = load(root, split=split)
  assert names_of(again) == {p: tuple(split[p]) for p in ('train', 'test')}
  assert not again.unused
  assert saved.split_to_json(again)['digests'].keys() >= set(split['train'])
  (root / next(iter(split['train']))).unlink()
  refused(root, split, '1 are missing')
