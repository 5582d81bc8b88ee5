"""What lies in a folder of images is used, or counted by reason."""

import os
import subprocess
import sys

import pytest

from csdnet_jax.data import folders, formats
from csdnet_jax.data.images import labelled_folders
from csdnet_jax.runtime.errors import UserError

import images
from images import load


def unused_of(root, **more):
  """What a folder of two classes and these files does not use."""
  images.class_folders(root, {'a': 2, 'b': 2})
  for name, data in more.items():
    images.write(root / name, data)
  return labelled_folders.open_folder(root)


@pytest.fixture
def without_heic(monkeypatch):
  known = {
    k: v for k, v in formats.known().items() if k not in ('HEIF', 'AVIF')
  }
  monkeypatch.setattr(formats, 'known', lambda: known)


# Each kind of thing.


@pytest.mark.parametrize(
  'name', ['1.jfif', '1.jpe', '1.JPE', '1.Jpeg', '1.JFIF']
)
def test_every_name_of_a_jpeg_is_taken(tmp_path, name):
  jpeg = images.encode(images.pixels(5), 'JPEG')
  dataset = unused_of(tmp_path, **{f'a/{name}': jpeg})
  assert f'a/{name}' in dataset.train.names and dataset.unused == ()


def test_pictures_that_are_not_read_are_counted_with_a_remedy(
  tmp_path, without_heic
):
  for i in range(20):
    images.write(tmp_path / f'a/IMG_{i}.{"HEIC" if i else "heic"}', b'x')
  dataset = unused_of(
    tmp_path, **{'b/1.avif': b'x', 'b/2.CR2': b'x', 'b/3.jp2': b'x'}
  )
  assert len(dataset.train.names) == 4
  assert folders.said(dataset.unused) == (
    'not used: 20 .HEIC, 1 .avif (b/1.avif), 1 .CR2 (b/2.CR2), '
    '1 .jp2 (b/3.jp2); to read .HEIC, run pip install "csdnet_jax[heic]"; '
    'to read .avif, install Pillow 11.3 or newer'
  )


def test_a_folder_of_unread_kinds_alone_says_so(tmp_path, without_heic):
  for name in ('a/1.heic', 'b/2.heic'):
    images.write(tmp_path / name, b'x')
  with pytest.raises(
    UserError, match=r'no class folders with images.*2 \.heic'
  ):
    load(tmp_path)


def test_heic_is_read_where_its_library_is(tmp_path):
  pytest.importorskip('pillow_heif')
  heic = images.encode(images.pixels(5, 64, 64), 'HEIF')
  dataset = unused_of(tmp_path, **{'a/IMG_1.HEIC': heic, 'b/1.hif': heic})
  assert len(dataset.train.names) == 6 and dataset.unused == ()


def test_files_of_unknown_kind_are_named_where_they_are_few(tmp_path):
  few = unused_of(
    tmp_path / 'few', **{'notes.txt': b'', 'a/x.doc': b'', 'b/README': b''}
  )
  assert folders.said(few.unused) == (
    'not used: 3 of unknown kind (notes.txt, a/x.doc, b/README)'
  )
  many = {f'a/{i}.txt': b'' for i in range(5)}
  assert folders.said(unused_of(tmp_path / 'many', **many).unused) == (
    'not used: 5 of unknown kind (a/0.txt, a/1.txt, a/2.txt, ...)'
  )


def test_class_folders_without_images_are_no_classes(tmp_path):
  for name in ('x', 'y', 'z'):
    (tmp_path / name).mkdir(parents=True)
  (tmp_path / 'z/deeper').mkdir()
  dataset = unused_of(tmp_path, **{'w/notes.txt': b''})
  assert dataset.class_names == ('a', 'b')
  assert folders.said(dataset.unused) == (
    'not used: 3 empty class folders (x/, y/, z/), '
    '1 class folder without images (w/), 1 of unknown kind (w/notes.txt)'
  )


def test_what_operating_systems_leave_is_not_mentioned(tmp_path):
  junk = (
    '.DS_Store', 'a/Thumbs.db', 'a/thumbs.db', 'b/desktop.ini', 'a/._0.png',
    '__MACOSX/a/._0.png', 'a/.ipynb_checkpoints/0-checkpoint.png',
    '@eaDir/0.png', 'lost+found/x', '.Trash-1000/files/0.png', 'b/.nfs0001',
  )  # fmt: skip
  dataset = unused_of(tmp_path, **dict.fromkeys(junk, b'x'))
  assert dataset.unused == () and dataset.class_names == ('a', 'b')


def test_other_hidden_things_are_counted_and_not_looked_into(tmp_path):
  dataset = unused_of(
    tmp_path, **{'.git/config': b'', 'a/.1.png': b'', '.gitignore': b''}
  )
  assert folders.said(dataset.unused) == (
    'not used: 3 hidden (.git, .gitignore, a/.1.png)'
  )


@pytest.mark.slow
def test_a_pipe_never_hangs_a_command(tmp_path):
  """In a process of its own, which can be ended if it does."""
  images.class_folders(tmp_path / 'set', {'a': 2, 'b': 2})
  os.mkfifo(tmp_path / 'set/a/pipe.png')
  done = subprocess.run(
    [
      sys.executable, '-c',
      'from csdnet_jax.data.images import labelled_folders as f, inputs\n'
      'print(f.open_folder("set").unused, inputs.find(["set"]).unused)\n'
      'inputs.decoded(inputs.of_paths(["set/a/pipe.png"]), 0)',
    ],
    cwd=tmp_path, capture_output=True, text=True, timeout=120,
  )  # fmt: skip
  assert done.stdout.count('pipes, sockets or devices') == 2
  assert 'set/a/pipe.png: cannot be read (it is a pipe' in done.stderr


def test_what_is_no_file_is_counted_and_never_opened(tmp_path):
  (tmp_path / 'b').mkdir()
  os.mkfifo(tmp_path / 'b/pipe.png')
  os.mkfifo(tmp_path / 'fifo')
  dataset = unused_of(tmp_path)
  assert folders.said(dataset.unused) == (
    'not used: 2 pipes, sockets or devices (fifo, b/pipe.png)'
  )


def test_a_name_that_breaks_a_line_does_not_break_the_sentence(tmp_path):
  dataset = unused_of(tmp_path, **{'a/two\nlines.txt': b'', 'b/лист.txt': b''})
  assert folders.said(dataset.unused) == (
    'not used: 2 of unknown kind (a/two\\nlines.txt, b/лист.txt)'
  )


def test_names_that_are_not_utf8_and_not_used_are_counted(tmp_path):
  images.write(tmp_path / os.fsdecode(b'a/caf\xe9.txt'), b'')
  assert folders.said(unused_of(tmp_path).unused) == (
    'not used: 1 of unknown kind (a/caf\\udce9.txt)'
  )


def test_a_read_only_folder_is_read(tmp_path):
  unused_of(tmp_path, **{'notes.txt': b''})
  for path in (tmp_path / 'a', tmp_path / 'b', tmp_path):
    path.chmod(0o555)
  try:
    assert len(labelled_folders.open_folder(tmp_path).train.names) == 4
  finally:
    tmp_path.chmod(0o755)


# What lies beside the files that a list names.


def test_the_rest_of_a_root(tmp_path):
  for name in ('in/1.png', 'in/2.png', 'in/sub/3.png', 'out/4.png', 'list.txt'):
    images.write(tmp_path / name, b'')
  rest = folders.rest(tmp_path, ['in/1.png', 'list.txt'], 'images left')
  assert rest == (
    ('in/2.png', 'images left'), ('in/sub/', 'folders'), ('out/', 'folders')
  )  # fmt: skip
  assert folders.said(rest) == (
    'not used: folders in/sub/, out/, 1 image left (in/2.png)'
  )
  each = folders.rest(tmp_path, ['in/1.png'], 'images left', each_in='in')
  assert folders.counts(each) == {
    'images left': 2, 'of unknown kind': 1, 'folders': 1
  }  # fmt: skip
