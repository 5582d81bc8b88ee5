"""A run knows its pairs again by their names and their content."""

import json
import shutil

import numpy as np
import pytest

from csdnet_jax.data.masks import layouts, pairs, saved
from csdnet_jax.runtime.errors import UserError

import images
import streets


@pytest.fixture
def root(tmp_path):
  return streets.pairs(tmp_path / 'set', {'train': 3, 'test': 2})


def scanned(root):
  return pairs.scanned(streets.opened(root))


def kept(root):
  return json.loads(json.dumps(saved.split_to_json(scanned(root))))


def test_it_holds_the_masks_and_all_digests(root):
  split = kept(root)
  assert split['train']['images/train/1.png'] == 'masks/train/1.png'
  assert len(split['digests']) == 10
  assert len(set(split['digests'].values())) == 10


def test_the_same_pairs_are_found_in_their_order(root, tmp_path):
  split = kept(root)
  turned = dict(reversed(split['train'].items()))
  moved = shutil.move(root, tmp_path / 'moved')
  again = saved.apply_split(scanned(moved), split | {'train': turned})
  assert again.train.names == tuple(turned)
  assert again.scans['train'].images[0] == split['digests'][next(iter(turned))]
  image, mask = again.train.read(0)
  assert image == (moved / again.train.names[0]).read_bytes()
  assert mask == (moved / again.train.masks[0]).read_bytes()
  sizes = again.scans['train'].sizes
  np.testing.assert_array_equal(sizes, [[48, 64]] * 3, strict=False)


def test_added_pairs_are_not_used(root):
  split = kept(root)
  streets.pairs(root, {'train': 4, 'test': 2})
  again = saved.apply_split(scanned(root), split)
  assert len(again.train.names) == 3
  (unused,) = again.unused
  assert unused == ('images/train/3.png', 'added since the run began')
  assert saved.split_to_json(again) == split


def test_replaced_and_missing_pairs_are_named(root):
  split = kept(root)
  _, mask = streets.street(99)
  images.write(root / 'masks/train/1.png', streets.png(mask))
  images.write(root / 'images/test/0.png', images.encode(streets.street(98)[0]))
  for kind in ('images', 'masks'):
    (root / kind / 'train/2.png').unlink()
  words = (
    r'1 are missing \(images/train/2.png\), 2 are other pairs now '
    r'\(images/train/1.png, images/test/0.png\); .*another --workdir'
  )
  with pytest.raises(UserError, match=words):
    saved.apply_split(scanned(root), split)


def test_of_a_run_without_digests_the_names_decide(root):
  split = kept(root)
  del split['digests']
  _, mask = streets.street(99)
  images.write(root / 'masks/train/1.png', streets.png(mask))
  again = saved.apply_split(scanned(root), split)
  assert layouts.parts_of(again)['train'].names == tuple(split['train'])


def test_other_classes_are_refused(root):
  split = kept(root)
  images.write(root / 'classes.txt', '\n'.join(streets.NAMES[::-1]).encode())
  with pytest.raises(UserError, match='their order differs'):
    saved.apply_split(scanned(root), split)
