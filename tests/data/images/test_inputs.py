"""The pictures that a command is given, found and read."""

import os

import numpy as np
import pytest

from csdnet_jax.data import decode
from csdnet_jax.data.images import inputs
from csdnet_jax.runtime.errors import UserError

import images


@pytest.fixture
def leaves(tmp_path, monkeypatch):
  """Pictures at two depths, with things that are none."""
  monkeypatch.chdir(tmp_path)
  for i, name in enumerate(
    ['b.png', 'a.JPG', 'deep/er/c.png', '.hidden.png', '.git/d.png', 'e[1].png']
  ):
    images.write(tmp_path / 'in' / name, images.encode(images.pixels(i)))
  images.write(tmp_path / 'in' / 'notes.txt', b'words')
  return tmp_path / 'in'


IN_FOLDER = ['in/a.JPG', 'in/b.png', 'in/deep/er/c.png', 'in/e[1].png']


@pytest.mark.parametrize(
  ('given', 'found'),
  [
    (['in'], IN_FOLDER),
    (['in/'], IN_FOLDER),
    (['in/**'], IN_FOLDER),
    (['in/*.png'], ['in/b.png', 'in/e[1].png']),
    (['in/e[1].png'], ['in/e[1].png']),
    (['in/d*'], ['in/deep/er/c.png']),
    (['in/notes.txt'], ['in/notes.txt']),
    (['in/b.png', './in/b.png', 'in/*.png'], ['in/b.png', 'in/e[1].png']),
  ],
)  # fmt: skip
def test_files_folders_and_globs(given, found, leaves):
  split = inputs.find(given).split
  assert list(split.names) == found
  assert split.labels.tolist() == [-1] * len(found)
  assert [len(split.read(i)) for i in range(len(found))]


@pytest.mark.parametrize('given', ['absent', 'in/*.gif', 'empty', ''])
def test_what_names_nothing_is_said(given, leaves):
  (leaves.parent / 'empty').mkdir()
  with pytest.raises(UserError, match='holds no pictures'):
    inputs.find(['in', given])


def test_a_circle_of_links_ends_and_is_counted(leaves):
  (leaves / 'again').symlink_to(leaves)
  found = inputs.find(['in'])
  assert list(found.split.names) == IN_FOLDER
  assert ('in/again', 'links') in found.unused


@pytest.mark.parametrize(
  ('given', 'unused'),
  [
    (['in'], {'in/.hidden.png', 'in/.git', 'in/notes.txt', 'in/w.CR2'}),
    (['in', 'in/notes.txt'], {'in/.hidden.png', 'in/.git', 'in/w.CR2'}),
    (['in', './in/w.CR2', 'in/.hidden.png'], {'in/.git', 'in/notes.txt'}),
    (['in/*'], {'in/notes.txt', 'in/w.CR2'}),
    (['in/*.png', 'in/n*'], None),
    (['in/[bn]*'], {'in/notes.txt'}),
    (['in/*.png'], set()),
    (['in/deep'], set()),
  ],
)  # fmt: skip
def test_what_is_passed_by_in_folders_and_globs_is_named(given, unused, leaves):
  images.write(leaves / 'w.CR2', b'x')
  images.write(leaves / 'deep/Thumbs.db', b'x')
  if unused is None:
    with pytest.raises(
      UserError, match=r'not used: 1 of unknown kind \(in/not'
    ):
      inputs.find(given)
  else:
    assert {path for path, _ in inputs.find(given).unused} == unused


def test_links_to_files_anywhere_are_pictures(leaves):
  (leaves / 'link.png').symlink_to(
    images.write(leaves.parent / 'out.png', images.encode(images.pixels(9)))
  )
  (leaves / 'gone.png').symlink_to('nowhere')
  found = inputs.find(['in'])
  assert 'in/link.png' in found.split.names
  assert ('in/gone.png', 'links') in found.unused


def test_a_pipe_is_refused_by_name_and_counted_in_a_folder(leaves):
  os.mkfifo(leaves / 'pipe.png')
  for given in ('in/pipe.png', '/dev/null'):
    with pytest.raises(
      UserError, match=f'^{given} is a pipe, a socket or a de'
    ):
      inputs.find([given])
  for given in ('in', 'in/*'):
    unused = inputs.find([given]).unused
    assert ('in/pipe.png', 'pipes, sockets or devices') in unused
  with pytest.raises(decode.ImageError, match='cannot be read .it is a pipe'):
    inputs.decoded(inputs.of_paths(['in/pipe.png']), 0)


def test_home_is_known_in_quoted_paths(leaves, monkeypatch):
  monkeypatch.setenv('HOME', str(leaves.parent))
  for given in ('~/in/b.png', '~/in/b*'):
    assert inputs.find([given]).split.names == (str(leaves / 'b.png'),)
  assert len(inputs.find(['~/in']).split.names) == len(IN_FOLDER)
  assert inputs.decoded(inputs.of_paths(['~/in/b.png']), 0).shape[2] == 3


def test_names_with_quotes_newlines_and_other_scripts(leaves):
  odd = ['in/it\'s "1".png', 'in/two\nlines.png', 'in/лист 叶.png']
  for i, name in enumerate(odd):
    images.write(leaves.parent / name, images.encode(images.pixels(20 + i)))
  split = inputs.find(['in']).split
  assert set(split.names) == {*IN_FOLDER, *odd}
  assert all(inputs.decoded(split, i).size for i in range(len(split.names)))


def test_a_name_that_is_not_utf8_can_be_printed(leaves):
  path = os.fsencode(leaves) + b'/\xff.png'
  try:
    os.rename(leaves / 'b.png', path)
  except OSError:
    pytest.skip('the file system takes UTF-8 names only')
  split = inputs.find(['in']).split
  assert 'in/\\xff.png' in split.names
  split.names[0].encode()
  assert all(split.read(i) for i in range(len(split.names)))


@pytest.mark.parametrize('batch', [1, 3, 100])
def test_every_picture_comes_once_and_bad_ones_are_named(batch, leaves):
  images.write(leaves / 'deep' / 'cut.png', b'\x89PNG')
  split = inputs.of_paths([*inputs.find(['in']).split.names, 'in/gone.png'])
  rows, views, errors = [], [], []
  for some, view, bad in inputs.batches(split, lambda x: x[:8, :8], batch):
    assert 0 < len(some) + len(bad) <= batch
    assert (view is None) == (not some)
    rows += some
    views += [] if view is None else list(view)
    errors += bad
  assert [split.names[i] for i in rows] == IN_FOLDER
  for i, view in zip(rows, views, strict=True):
    np.testing.assert_array_equal(view, inputs.decoded(split, i)[:8, :8])
  assert [str(e).partition(':')[0] for e in errors] == [
    'in/deep/cut.png', 'in/gone.png'
  ]  # fmt: skip


def test_a_defect_in_the_view_is_not_a_bad_picture(leaves):
  with pytest.raises(ZeroDivisionError):
    list(inputs.batches(inputs.find(['in']).split, lambda x: 1 / 0, 2))


def test_a_file_that_cannot_be_read_says_why(leaves):
  with pytest.raises(decode.ImageError, match=r'^x\.png: cannot be read'):
    inputs.decoded(inputs.of_paths(['x.png']), 0)
