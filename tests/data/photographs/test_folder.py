"""`csdnet cut`: a folder of photographs becomes a folder of classes."""

import csv
import errno
import pathlib

import numpy as np
import pytest
from PIL import Image

from csdnet_jax.data.images import labelled_folders, tables
from csdnet_jax.data.photographs import command as of_cut, find, folder
from csdnet_jax.runtime.errors import UserError

import command
import images
import scenes

PLACES = [(60, 40, 160), (230, 160, 180)]
SIZE = (420, 480)


def _photograph(n=2, **kw):
  return scenes.photograph(PLACES[:n], size=SIZE, **kw)[0]


@pytest.fixture
def photographs(tmp_path):
  """Three photographs of two leaves, of two classes by the table."""
  root = tmp_path / 'photos'
  for name in ('P1.png', 'P2.png', 'P3.png'):
    images.write(root / name, images.encode(_photograph()))
  images.write(root / 'notes.txt', b'')
  text = 'image\tvariety\nP1\tash\nP2\tBéclan\nP3\tash\nP9\tash\n'
  images.write(tmp_path / 'key.txt', text.encode('mac_roman'))
  return root


def _cut(root, *args, out='out'):
  out = root.parent / out
  return command.here(of_cut.main, 'cut', root, f'--out={out}', *args)


def _rows(out):
  with (out / 'leaves.csv').open(encoding='utf-8', newline='') as file:
    return list(csv.DictReader(file))


def _files(root):
  return sorted(p.relative_to(root).as_posix() for p in root.rglob('*.*'))


def test_photographs_and_their_key_become_a_folder_to_train_on(photographs):
  table = photographs.parent / 'key.txt'
  status, text = _cut(photographs, f'--table={table}', '--encoding=mac_roman')
  out = photographs.parent / 'out'
  assert status == 0
  assert _files(out) == [
    'Béclan/P2_0.jpg', 'Béclan/P2_1.jpg', 'ash/P1_0.jpg', 'ash/P1_1.jpg',
    'ash/P3_0.jpg', 'ash/P3_1.jpg', 'leaves.csv',
  ]  # fmt: skip
  rows = _rows(out)
  assert list(rows[0])[:3] == ['path', 'label', 'group']
  assert [(r['path'], r['label'], r['group']) for r in rows[1:3]] == [
    ('ash/P1_1.jpg', 'ash', 'P1.png'),
    ('Béclan/P2_0.jpg', 'Béclan', 'P2.png'),
  ]
  _, boxes = scenes.photograph(PLACES, size=SIZE)
  found = [
    [int(r[k]) for k in ('left', 'top', 'right', 'bottom')] for r in rows
  ]
  np.testing.assert_allclose(found, boxes * 3, atol=1)
  dataset = labelled_folders.open_folder(out)
  assert dataset.class_names == ('Béclan', 'ash')
  assert len(dataset.train.names) == 6
  (note,) = dataset.notes
  flags = f'--config.data.table={out}/leaves.csv --config.data.group=group'
  assert note.startswith('leaves.csv names') and note.endswith(flags)
  by_table = tables.open_table(out / 'leaves.csv', group='group')
  assert set(by_table.groups.values()) == {'P1.png', 'P2.png', 'P3.png'}
  for words in (
    'Beside the photographs, not used: 1 of unknown kind (notes.txt)',
    'without a photograph: P9.',
    'Classes with letters beyond ASCII: Béclan: if they look wrong',
    f'csdnet train {out} --config.data.table={out}/leaves.csv '
    '--config.data.group=group',
    'Leaves: 6, of photographs: 3, of classes: 2',
    'out_sheets',
  ):
    assert words in text


def test_a_cut_leaf_has_the_photographs_pixels_on_white(photographs):
  _cut(photographs)
  left, top, right, bottom = scenes.photograph(PLACES, size=SIZE)[1][0]
  picture = np.asarray(
    Image.open(photographs.parent / 'out/unlabelled/P1_0.jpg')
  ).astype(int)
  margin = round(0.04 * max(right - left, bottom - top))
  assert picture.shape[:2] == (
    bottom - top + 2 * margin,
    right - left + 2 * margin,
  )
  inner = picture[margin:-margin, margin:-margin]
  there = scenes.leaf(0, 160)[1]
  source = _photograph()[top:bottom, left:right].astype(int)
  assert np.abs(inner - source)[there].mean() < 4
  assert picture[:2].min() > 240  # JPEG rings.


def test_the_contact_sheet_shows_outlines_and_numbers(photographs):
  _cut(photographs, f'--sheets={photographs.parent / "look"}')
  (page,) = (photographs.parent / 'look').iterdir()
  pixels = np.asarray(Image.open(page)).astype(int)
  pink = (pixels[..., 0] - pixels[..., 1] > 120) & (pixels[..., 2] > 70)
  # Of each of the three photographs, which stand side by side.
  for column in np.array_split(pink, 3, axis=1):
    assert column.sum() > 300


def test_without_a_table_the_class_is_the_folder(tmp_path):
  root = tmp_path / 'photos'
  for name in ('ash/a.png', 'oak/1/a.png', 'oak/2/b.png', 'c.png'):
    images.write(root / name, images.encode(_photograph(1)))
  status, text = _cut(root)
  assert status == 0 and 'those in none go to unlabelled/' in text
  assert _files(tmp_path / 'out') == [
    'ash/a_0.jpg', 'leaves.csv', 'oak/a_0.jpg', 'oak/b_0.jpg',
    'unlabelled/c_0.jpg',
  ]  # fmt: skip
  assert {r['group'] for r in _rows(tmp_path / 'out')} == {
    'ash/a.png', 'oak/1/a.png', 'oak/2/b.png', 'c.png',
  }  # fmt: skip


def test_what_gives_no_leaf_is_listed_and_the_rest_is_cut(photographs):
  images.write(photographs / 'P4.png', images.encode(_photograph(0)))
  images.write(photographs / 'P5.png', images.encode(_photograph())[:999])
  images.write(photographs / 'P6.png', images.encode(_photograph()))
  rows = 'P1,ash\nP2,oak\nP3,ash\nP4,oak\nP5,oak\n'
  table = images.write(
    photographs.parent / 'k.csv', f'photograph,label\n{rows}'.encode()
  )
  status, text = _cut(photographs, f'--table={table}')
  assert status == 1
  assert 'Leaves: 6, of' in text
  for words in (
    '1: not in the table, so not cut:\n  P6.png',
    '1: cannot be read:\n  P5.png: damaged',
    '1: no leaf was found:\n  P4.png',
  ):
    assert words in text
  assert not [f for f in _files(photographs.parent / 'out') if 'P6' in f]


def test_a_photograph_is_turned_upright(tmp_path):
  upright = Image.fromarray(_photograph())
  exif = Image.Exif()
  exif[0x0112] = 6  # To be turned by 90 degrees, clockwise.
  lying = upright.transpose(Image.Transpose.ROTATE_90)
  images.write(
    tmp_path / 'photos/a.png', images.encode(lying, exif=exif.tobytes())
  )
  assert _cut(tmp_path / 'photos')[0] == 0
  box = [int(_rows(tmp_path / 'out')[0][k]) for k in ('left', 'top')]
  np.testing.assert_allclose(box, PLACES[0][:2], atol=1)


def test_leaves_that_touch_and_a_ground_that_is_not_plain_are_said(tmp_path):
  width = scenes.leaf(0, 160)[1].shape[1]
  joined, _ = scenes.photograph(
    [(60, 100, 160), (60 + width - 3, 120, 160)], size=SIZE
  )
  images.write(tmp_path / 'photos/a.png', images.encode(joined))
  rng = np.random.default_rng(0)
  pebbles = rng.integers(0, 256, (30, 40, 3), np.uint8).repeat(12, 0)
  images.write(tmp_path / 'photos/b.png', images.encode(pebbles.repeat(12, 1)))
  _, text = _cut(tmp_path / 'photos')
  assert 'Look at a.png, leaf 0: touched another leaf and was parted' in text
  assert 'Look at b.png: its ground is not plain' in text


def _refused(root, *args, **kw):
  with pytest.raises(UserError) as error:
    _cut(root, *args, **kw)
  assert '\n' not in str(error.value)
  left = [p.name for p in root.parent.iterdir() if p.name.endswith('.tmp')]
  assert not left
  return str(error.value)


def test_a_refusal_says_nothing_of_the_key(photographs, monkeypatch):
  said = []
  monkeypatch.setattr(of_cut, 'say', said.append)
  table = photographs.parent / 'key.txt'
  args = (f'--table={table}', '--encoding=mac_roman')
  assert 'make it first' in _refused(photographs, *args, out='a/b')
  assert 'P9' not in ''.join(said)
  _cut(photographs, *args)
  assert 'P9' in ''.join(said)


def test_what_is_there_is_never_written_over(photographs):
  images.write(photographs.parent / 'out/mine.txt', b'')
  assert 'not empty' in _refused(photographs)
  images.write(photographs.parent / 'file', b'')
  assert 'no folder' in _refused(photographs, out='file')
  assert 'make it first' in _refused(photographs, out='a/b')
  assert 'among the photographs' in _refused(photographs, out='photos/leaves')
  inside = photographs.parent / 'new' / 'sheets'
  (photographs.parent / 'new').mkdir()
  words = _refused(photographs, f'--sheets={inside}', out='new')
  assert 'would pass for a class' in words


def test_an_empty_folder_may_be_there(photographs):
  (photographs.parent / 'out').mkdir()
  assert _cut(photographs)[0] == 0


def test_a_folder_without_photographs_is_a_sentence(tmp_path):
  assert 'not a folder' in _refused(tmp_path / 'none')
  images.write(tmp_path / 'photos/a.txt', b'')
  assert 'no photographs' in _refused(tmp_path / 'photos')


def test_a_folder_that_cannot_name_a_class_is_a_sentence(tmp_path):
  name = 'photos/train/ash/a.png'
  images.write(tmp_path / name, images.encode(_photograph(1)))
  assert "train/ has the label 'train'" in _refused(tmp_path / 'photos')


def test_a_table_of_other_photographs_is_a_sentence(photographs):
  table = images.write(
    photographs.parent / 'k.csv', b'photograph,label\nX1,ash\n'
  )
  words = _refused(photographs, f'--table={table}')
  assert 'names none' in words and 'X1' in words and 'P1.png' in words


def test_equal_names_are_refused_before_the_work(tmp_path):
  for name in ('oak/a.png', 'oak/1/a.png'):
    images.write(tmp_path / 'photos' / name, images.encode(_photograph(1)))
  assert 'oak/1/a.png and oak/a.png' in _refused(tmp_path / 'photos')


def test_a_full_disk_is_a_sentence_and_leaves_nothing(photographs, monkeypatch):
  def full(self, data):
    raise OSError(errno.ENOSPC, 'No space left on device', str(self))

  monkeypatch.setattr(pathlib.Path, 'write_bytes', full)
  assert 'No space left on device' in _refused(photographs)
  assert sorted(p.name for p in photographs.parent.iterdir()) == [
    'key.txt', 'photos',
  ]  # fmt: skip


def test_an_interrupt_leaves_nothing(photographs, monkeypatch):
  def interrupt(pixels):
    raise KeyboardInterrupt

  monkeypatch.setattr(find, 'find', interrupt)
  with pytest.raises(KeyboardInterrupt):
    _cut(photographs)
  assert sorted(p.name for p in photographs.parent.iterdir()) == [
    'key.txt', 'photos',
  ]  # fmt: skip


def test_a_missing_library_is_named_with_its_extra(photographs, monkeypatch):
  from csdnet_jax.runtime import commands

  monkeypatch.setattr(commands.importlib.util, 'find_spec', lambda name: None)
  assert 'pip install "csdnet_jax[cut]"' in _refused(photographs)


def test_many_photographs_fill_several_sheets(tmp_path):
  small, _ = scenes.photograph([(20, 20, 80)], size=(120, 160), ruler=False)
  for i in range(13):
    images.write(tmp_path / f'photos/{i}.png', images.encode(small))
  report = folder.write(
    tmp_path / 'photos',
    {f'{i}.png': 'ash' for i in range(13)},
    tmp_path / 'out',
    tmp_path / 'sheets',
  )
  assert report.leaves == 13
  assert _files(tmp_path / 'sheets') == ['001.jpg', '002.jpg']
