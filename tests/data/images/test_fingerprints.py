"""Equal images and near-duplicates are found, others are not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from csdnet_jax.data import cache, leaves
from csdnet_jax.data.images import fingerprints, splits

from images import encode, pixels


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
  """Leaves of alike cultivars on white, as images."""
  folder = tmp_path_factory.mktemp('leaves')
  leaves.write(
    folder, cultivars=6, train_per_class=2, test_per_class=1, size=128
  )
  return [Image.open(p) for p in sorted(folder.rglob('*.png'))]


def of(encoded, tmp_path):
  names = tuple(f'p{i}.png' for i in range(len(encoded)))
  split = splits.Split(
    names, np.zeros(len(names), np.int32), encoded.__getitem__
  )
  digests = [cache.sha256(data) for data in encoded]
  return fingerprints.of(split, digests, tmp_path)


def jpeg(image, quality=60, scale=1.0):
  side = (round(image.width * scale), round(image.height * scale))
  file = io.BytesIO()
  image.resize(side, Image.Resampling.BICUBIC).save(
    file, 'JPEG', quality=quality
  )
  return file.getvalue()


def test_equal_pixels_are_equal_whatever_their_file(tmp_path):
  one, other = pixels(0), pixels(1)
  encoded = [
    encode(one), encode(one, compress_level=0), encode(one, 'BMP'),
    encode(other), encode(one), encode(one.reshape(16, 12, 3)),
  ]  # fmt: skip
  prints, problems = of(encoded, tmp_path)
  assert not problems
  a, b, c, d, e, f = fingerprints.equal(prints)
  assert a == b == c == e and len({a, d, f}) == 3
  assert prints['size'].tolist() == [[12, 16]] * 5 + [[16, 12]]


@pytest.mark.parametrize(
  'change',
  [
    lambda image: jpeg(image, 50),
    lambda image: jpeg(image, 90, 0.5),
    lambda image: jpeg(image, 80, 2.0),
    lambda image: encode(ImageEnhance.Brightness(image).enhance(1.1)),
  ],
)
def test_near_duplicates_are_found_and_other_leaves_are_not(
  drawn, tmp_path, change
):
  encoded = [encode(image) for image in drawn]
  n = len(encoded)
  prints, _ = of([*encoded, *map(change, drawn)], tmp_path)
  pairs = fingerprints.alike(prints)
  assert {tuple(p) for p in pairs.tolist()} == {(i, n + i) for i in range(n)}


def test_the_nearest_of_others_is_found_in_any_block(
  drawn, tmp_path, monkeypatch
):
  monkeypatch.setattr(fingerprints, '_ROWS', 5)
  others, _ = of([encode(image) for image in drawn[::3]], tmp_path)
  prints, _ = of([*map(jpeg, drawn), encode(drawn[3])], tmp_path)
  # Each third is known; those between are other leaves of its cultivar.
  want = [i // 3 if i % 3 == 0 else -1 for i in range(len(drawn))]
  assert fingerprints.alike_to(prints, others).tolist() == [*want, 1]
  kept = fingerprints.of_bytes(row.tobytes() for row in others)
  assert np.array_equal(kept, others)
  # The nearest, not the first.
  both, _ = of([jpeg(drawn[0], 20), encode(drawn[0])], tmp_path)
  assert fingerprints.alike_to(others[:1], both).tolist() == [1]


def test_plain_images_are_like_nothing(tmp_path):
  plain = [Image.new('RGB', (40, 40), (v, v, v)) for v in (0, 3, 200, 255)]
  prints, _ = of([encode(image) for image in plain], tmp_path)
  assert len(fingerprints.alike(prints)) == 0
  assert fingerprints.alike_to(prints, prints).tolist() == [-1] * 4
  assert prints['darkest'].tolist() == prints['brightest'].tolist()
  assert prints['darkest'].tolist() == [0, 3, 200, 255]


def test_blocks_of_rows_give_the_same_pairs(drawn, tmp_path, monkeypatch):
  prints, _ = of(
    [encode(i) for i in drawn] + [jpeg(i) for i in drawn], tmp_path
  )
  whole = fingerprints.alike(prints)
  monkeypatch.setattr(fingerprints, '_ROWS', 5)
  pieces = fingerprints.alike(prints)
  assert sorted(pieces.tolist()) == sorted(whole.tolist())


def test_each_file_is_decoded_once_and_found_again(tmp_path, monkeypatch):
  encoded = [encode(pixels(i)) for i in (0, 1, 1)]
  first, _ = of(encoded, tmp_path)
  monkeypatch.setattr(
    fingerprints.decode, 'decode', lambda *a: pytest.fail('decoded again')
  )
  again, _ = of(encoded[::-1], tmp_path)
  assert np.array_equal(again[::-1], first)


def test_what_cannot_be_read_is_named_each_time(tmp_path):
  encoded = [encode(pixels(0)), b'no image', b'', b'no image']
  for _ in range(2):
    prints, problems = of(encoded, tmp_path)
    assert list(problems) == [1, 2, 3]
    assert problems[1].startswith('p1.png: not an image')
    assert problems[3].startswith('p3.png: not an image')
    assert problems[2] == 'p2.png: the file is empty'
    assert prints['size'].tolist() == [[12, 16], [0, 0], [0, 0], [0, 0]]


def test_what_is_mended_is_read(tmp_path, monkeypatch):
  """A reader that was missing, say, and has been installed since."""
  real = fingerprints.decode.decode

  def missing(data, name):
    raise fingerprints.decode.ImageError(f'{name}: no reader')

  monkeypatch.setattr(fingerprints.decode, 'decode', missing)
  _, problems = of([encode(pixels(0))], tmp_path)
  assert problems == {0: 'p0.png: no reader'}
  monkeypatch.setattr(fingerprints.decode, 'decode', real)
  prints, problems = of([encode(pixels(0))], tmp_path)
  assert not problems and prints['size'].tolist() == [[12, 16]]
