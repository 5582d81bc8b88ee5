"""Pairs decoded once into files: what is kept, and what is refused."""

import re

import numpy as np
import pytest
from PIL import Image

from csdnet_jax.data import cache, decode, report
from csdnet_jax.data.masks import pairs
from csdnet_jax.runtime.errors import UserError

import images
import streets

SIZE, CANVAS = 33, 80


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Six streets to train on, one of another size, and three to test."""
  root = streets.pairs(
    tmp_path_factory.mktemp('streets'), {'train': 6, 'val': 1, 'test': 3}
  )
  image, mask = streets.street(9, 30, 90)
  images.write(root / 'images/train/2.png', images.encode(image))
  images.write(root / 'masks/train/2.png', streets.png(mask))
  return root


def test_pairs_are_kept_pixel_by_pixel(root, tmp_path):
  told = []
  parts = streets.prepared(
    root, tmp_path, progress=lambda done, total: told.append((done, total))
  )
  for part, name in ((parts.train, 'train'), (parts.test, 'test')):
    for i in range(len(part.sizes)):
      image = np.asarray(Image.open(root / f'images/{name}/{i}.png'))
      mask = np.asarray(Image.open(root / f'masks/{name}/{i}.png'))
      np.testing.assert_array_equal(part.image(i), image)
      np.testing.assert_array_equal(part.mask(i), mask)
      assert tuple(part.sizes[i]) == mask.shape
      np.testing.assert_array_equal(
        part.counts[i], np.bincount(mask.ravel(), minlength=256)
      )
  assert len(parts.val.sizes) == 1 and told[-1] == (10, 10)
  assert not parts.train.pixels.flags.writeable


def test_files_are_written_once_and_anew_when_anything_changes(root, tmp_path):
  streets.prepared(root, tmp_path)
  first = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
  streets.prepared(root, tmp_path)
  assert first == {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
  streets.prepared(root, tmp_path, resize=40)
  assert len(list(tmp_path.iterdir())) == len(first) + 1  # The train part.
  dataset = pairs.scanned(streets.opened(root))
  mapped = dataset._replace(ids=np.where(dataset.ids == 4, 255, dataset.ids))
  again = pairs.prepare(mapped, resize=0, cache_dir=tmp_path)
  assert len(list(tmp_path.iterdir())) == len(first) + 4
  assert again.test.counts[:, 4].sum() == 0


def test_only_training_pairs_are_shrunk_and_stay_aligned(root, tmp_path):
  whole, small = (
    streets.prepared(root, tmp_path),
    streets.prepared(root, tmp_path, resize=24),
  )
  assert tuple(small.train.extents[0]) == (24, 32)
  assert tuple(small.train.sizes[0]) == (48, 64)
  assert tuple(small.train.extents[2]) == (24, 72)
  np.testing.assert_array_equal(small.test.mask(0), whole.test.mask(0))
  image = whole.train.image(0).astype(float)
  half = image.reshape(24, 2, 32, 2, 3).mean((1, 3))
  np.testing.assert_allclose(small.train.image(0), half, atol=0.51)
  np.testing.assert_array_equal(
    small.train.mask(0), whole.train.mask(0)[1::2, 1::2]
  )
  np.testing.assert_array_equal(small.train.counts, whole.train.counts)


def test_unusable_pairs_are_all_named_with_what_is_wrong(root, tmp_path):
  streets.pairs(tmp_path / 's', {'train': 6, 'test': 2})
  folder = tmp_path / 's/masks'
  mask = np.zeros((48, 64), np.uint8)
  mask[3, 4], mask[5, 6] = 77, 5
  images.write(folder / 'train/1.png', streets.png(mask))
  colour = Image.fromarray(images.pixels(0, 48, 64))
  images.write(folder / 'train/3.png', images.encode(colour))
  images.write(folder / 'test/0.png', streets.png(mask + 100))
  with pytest.raises(cache.UnreadableError) as error:
    streets.prepared(tmp_path / 's', tmp_path / 'cache')
  text = str(error.value)
  assert len(error.value.problems) == 3
  assert re.search(r'train/1\.png: holds ids outside .*\(5, 77\)', text)
  assert '0 to 4 and 255' in text
  assert 'train/3.png: a mask in colour' in text and 'test/0.png' in text
  assert not list((tmp_path / 'cache').glob('*.npy*')) or all(
    p.suffix == '.npy' for p in (tmp_path / 'cache').iterdir()
  )


def test_unusable_pairs_are_left_out_and_listed(root, tmp_path, capsys):
  streets.pairs(tmp_path, {'train': 6, 'test': 2})
  mask = np.zeros((48, 64), np.uint8)
  mask[3, 4] = 77
  images.write(tmp_path / 'masks/train/1.png', streets.png(mask))
  images.write(tmp_path / 'masks/train/2.png', streets.png(mask[:20]))
  (tmp_path / 'images/test/0.png').write_bytes(b'no image')
  dataset = pairs.usable(streets.opened(tmp_path))
  assert dataset.train.names == tuple(
    f'images/train/{i}.png' for i in (0, 3, 4, 5)
  )
  assert dataset.test.masks == ('masks/test/1.png',)
  assert [u.path for u in dataset.unused] == [
    'images/train/1.png', 'images/train/2.png', 'images/test/0.png'
  ]  # fmt: skip
  said = capsys.readouterr().out
  assert 'Skipped, 3 pairs' in said and 'a mask of 20 x 64 pixels' in said
  # The rest is as it was.
  parts = pairs.prepare(
    pairs.scanned(dataset), resize=0, cache_dir=tmp_path / 'cache'
  )
  np.testing.assert_array_equal(
    parts.train.mask(1), np.asarray(Image.open(tmp_path / 'masks/train/3.png'))
  )
  (tmp_path / 'images/test/1.png').write_bytes(b'')
  with pytest.raises(UserError, match='No pair of the test part'):
    pairs.usable(streets.opened(tmp_path))


def test_a_mask_of_another_size_is_named_before_anything_is_decoded(tmp_path):
  streets.pairs(tmp_path, {'train': 2, 'test': 1})
  image, mask = streets.street(0, 20, 30)
  images.write(tmp_path / 'masks/train/0.png', streets.png(mask))
  (tmp_path / 'images/train/1.png').write_bytes(b'no image')
  with pytest.raises(cache.UnreadableError) as error:
    pairs.scan(streets.opened(tmp_path).train)
  text = str(error.value)
  assert 'a mask of 20 x 30 pixels for an image of 48 x 64' in text
  assert 'images/train/1.png: not an image' in text


def test_the_report_counts_pixels_pairs_and_equal_files(root, tmp_path):
  dataset = pairs.scanned(streets.opened(root))
  scanned = dataset.scans
  parts = streets.prepared(root, tmp_path)
  counts = {name: getattr(parts, name).counts for name in scanned}
  checked = report.pairs_report(dataset, scanned, counts)
  train = parts.train.counts.sum(0)
  assert checked.figures['parts']['train']['left_out_percent'] == (
    pytest.approx(100 * train[255] / train.sum())
  )
  shares = checked.figures['classes']
  assert sum(c['train'] for c in shares.values()) == pytest.approx(100)
  assert shares['car']['train'] == pytest.approx(
    100 * train[3] / train[:5].sum()
  )
  assert 'WARNING' not in checked.text and 'lamp post' in checked.text
  assert '30 x 90' in checked.details


def test_the_report_warns_and_when_strict_stops(tmp_path):
  root = streets.pairs(tmp_path / 's', {'train': 2, 'test': 2})
  same = (root / 'images/train/0.png').read_bytes()
  (root / 'images/test/1.png').write_bytes(same)
  images.write(
    root / 'classes.txt', '\n'.join([*streets.NAMES, 'unicorn']).encode()
  )
  nothing = np.full((48, 64), 255, np.uint8)
  images.write(root / 'masks/test/0.png', streets.png(nothing))
  dataset = pairs.scanned(streets.opened(root))
  parts = streets.prepared(root, tmp_path / 'cache')
  args = (
    dataset, dataset.scans,
    {'train': parts.train.counts, 'test': parts.test.counts},
  )  # fmt: skip
  text = report.pairs_report(*args).text
  assert 'images/train/0.png (train) = images/test/1.png (test)' in text
  assert '1 class has no pixel in train (unicorn)' in text
  assert '1 pair without any label' in text
  with pytest.raises(UserError, match='unicorn.*config.data.strict'):
    report.pairs_report(*args, strict=True)


def test_a_file_that_is_gone_is_named(root, tmp_path):
  dataset = streets.opened(streets.pairs(tmp_path, {'train': 1, 'test': 1}))
  (tmp_path / 'masks/train/0.png').unlink()
  with pytest.raises(cache.UnreadableError, match=r'train/0\.png.*No such'):
    pairs.scan(dataset.train)
  assert issubclass(cache.UnreadableError, UserError)
  assert issubclass(decode.ImageError, UserError)
