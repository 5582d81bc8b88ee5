"""Where images lie is no part of what a run is."""

import json
import shutil

import pytest

from csdnet_jax.config import default, from_json, to_json
from csdnet_jax.data import folders, sources
from csdnet_jax.data.images import saved, splits
from csdnet_jax.runtime import terminal
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training import places
from csdnet_jax.training.workdir import require_same

import images


def config_of(**fields):
  config = default()
  config.data.update(fields)
  return config


@pytest.fixture
def here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  images.write(tmp_path / 'leaves' / 'key.csv', b'')
  return tmp_path


def test_paths_are_written_from_the_root(here, monkeypatch):
  monkeypatch.setenv('HOME', str(here))
  for root in ('leaves', 'leaves/', './leaves', '~/leaves', here / 'leaves'):
    made = places.from_root(config_of(root=str(root), table='leaves/key.csv'))
    assert made.data.root == str(here / 'leaves')
    assert made.data.table == str(here / 'leaves' / 'key.csv')
  # Of a store, of a source from outside, and of none.
  for root in ('gs://bucket/leaves', 'the second year', ''):
    assert places.from_root(config_of(root=root)).data.root == root


def test_weights_are_written_from_the_root(here):
  (here / 'run').mkdir()
  images.write(here / 'blobs' / '5f2c', b'')
  images.write(here / 'w.npz', b'')
  (here / 'model.safetensors').symlink_to(here / 'blobs' / '5f2c')
  (here / 'imagenet').write_text('')
  for given, whole in {
    'run': 'run', 'run/': 'run', '../' + here.name + '/run': 'run',
    './w.npz': 'w.npz', 'gone/w.npz': 'gone/w.npz',
    'model.safetensors': 'model.safetensors',
  }.items():  # fmt: skip
    config = config_of()
    config.init_from = config.teacher.run = config.teacher.weights = given
    made = places.from_root(config)
    found = {made.init_from, made.teacher.run, made.teacher.weights}
    assert found == {str(here / whole)}
  for name in ('', 'imagenet', 'gs://bucket/w.npz'):
    config.init_from = name
    assert places.from_root(config).init_from == name


def test_a_run_is_the_same_from_another_folder(
  folder_run, tmp_path, monkeypatch
):
  workdir = shutil.copytree(folder_run[0], tmp_path / 'run')
  (tmp_path / 'first').mkdir()
  (tmp_path / 'far').mkdir()
  config = from_json((workdir / 'config.json').read_text())
  monkeypatch.chdir(tmp_path / 'far')
  config.init_from = '../first'
  (workdir / 'config.json').write_text(to_json(places.from_root(config)))
  monkeypatch.chdir(tmp_path)
  for same in ('first', 'first/', str(tmp_path / 'first')):
    config.init_from = same
    assert require_same(config, workdir)
  # As a run of an earlier version has it.
  (workdir / 'config.json').write_text(to_json(config))
  assert require_same(config, workdir)
  config.init_from = 'far'
  with pytest.raises(UserError, match='another config .init_from'):
    require_same(config, workdir)


def test_images_are_found_where_they_are_now(here):
  run = here / 'run'
  before = config_of(root='/gone/leaves', table='/gone/leaves/key.csv')
  with pytest.raises(UserError, match=r'not at /gone/leaves .*--data_root=DIR'):
    places.found(before, run)
  now = places.found(before, run, 'leaves').data
  assert (now.root, now.table) == ('leaves', 'leaves/key.csv')
  # A table beside no root is in its own folder; another stays where it is.
  now = places.found(config_of(table='/gone/key.csv'), run, 'leaves').data
  assert (now.root, now.table) == ('leaves', 'leaves/key.csv')
  there = str(here / 'leaves' / 'key.csv')
  now = places.found(config_of(root='/gone', table=there), run, '.').data
  assert (now.root, now.table) == ('.', there)


def test_a_table_that_is_gone_is_no_reason_to_stop(here):
  root = images.class_folders(here / 'set', {'ash': 4, 'oak': 4})
  rows = [f'{c}/{i}.png,{c.upper()}' for c in ('ash', 'oak') for i in range(4)]
  images.write(here / 'key.csv', '\n'.join(['path,label', *rows]).encode())
  config = places.from_root(config_of(root='set', table='key.csv'))
  config.data.shots = 1
  split = saved.split_to_json(sources.load_images(config.data))
  (here / 'key.csv').unlink()
  shutil.move(root / 'ash' / '0.png', root / 'oak' / '0 of ash.png')
  images.write(root / 'new.png', images.encode(images.pixels(7777)))
  shutil.move(root, here / 'moved')
  now = places.found(config, here / 'run', 'moved')
  with terminal.console.capture() as said:
    again = sources.load_images(now.data, split=split)
  words = ' '.join(said.get().split())
  assert 'There is no table' in words and 'told by their content' in words
  assert again.class_names == ('ASH', 'OAK')
  assert folders.counts(again.unused) == {
    'images that the run does not know': 1
  }
  for part, held in splits.parts_of(again).items():
    assert held.labels.tolist() == list(split[part].values())
    renamed = [n.replace('oak/0 of ash', 'ash/0') for n in held.names]
    assert renamed == list(split[part])
  # Beside no root the images are in the folder where the table lay.
  beside = config_of(table=str(here / 'moved' / 'key.csv'))
  again = places.found(beside, here / 'run')
  assert len(sources.load_images(again.data, split=split).test.names) == 4
  # An older run knows its images by the table alone.
  del split['digests']
  with pytest.raises(UserError, match=r'data\.table=.*key\.csv is no file'):
    sources.load_images(now.data, split=split)


def test_a_mistaken_place_is_said(here):
  with pytest.raises(UserError, match='--data_root=absent is not a folder'):
    places.found(config_of(root='/gone'), here / 'run', 'absent')
  drawn = config_of(source='leaves')
  with pytest.raises(UserError, match="reads no folder .*'leaves'"):
    places.found(drawn, here / 'run', 'leaves')
  assert places.found(drawn, here / 'run').data.root == ''


def test_a_run_keeps_its_root_and_any_other_is_the_same_run(folder_run):
  workdir, root = folder_run
  kept = json.loads((workdir / 'config.json').read_text())
  assert kept['data']['root'] == str(root)
  config = from_json((workdir / 'config.json').read_text())
  for other in ('elsewhere', f'{root}/', ''):
    config.data.root = other
    assert require_same(config, workdir)
  config.data.split_seed = 9
  with pytest.raises(UserError, match='split_seed'):
    require_same(config, workdir)


def test_a_run_needs_no_images_to_be_the_same(folder_run, tmp_path):
  workdir = shutil.copytree(folder_run[0], tmp_path / 'run')
  config = from_json((workdir / 'config.json').read_text())
  config.data.root = str(tmp_path / 'nowhere')
  assert require_same(config, workdir)


@pytest.mark.parametrize('rooted', [True, False])
def test_a_table_moves_with_its_images(here, rooted):
  root = images.class_folders(here / 'set', {'ash': 4, 'oak': 4})
  rows = [f'{c}/{i}.png,{c.upper()}' for c in ('ash', 'oak') for i in range(4)]
  images.write(root / 'key.csv', '\n'.join(['path,label', *rows]).encode())
  config = places.from_root(
    config_of(root='set' if rooted else '', table='set/key.csv')
  )
  split = saved.split_to_json(sources.load_images(config.data))
  shutil.move(root, here / 'moved')
  with pytest.raises(UserError, match='--data_root=DIR'):
    places.found(config, here / 'run')
  now = places.found(config, here / 'run', str(here / 'moved'))
  again = sources.load_images(now.data, split=split)
  assert again.class_names == ('ASH', 'OAK')
  assert saved.split_to_json(again) == split
