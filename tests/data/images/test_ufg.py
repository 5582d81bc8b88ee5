"""The UFG release through TFDS: prepared and read back, or refused by name."""

import sys

import jax
import numpy as np
import pytest

from csdnet_jax import sharding
from csdnet_jax.data import decode
from csdnet_jax.data.images import labelled_folders, pipeline
from csdnet_jax.runtime.errors import UserError

import images


@pytest.fixture
def ufg(monkeypatch):
  from csdnet_jax.data.images import ufg

  # The fixture's release: 2 classes, 2 + 1 images.
  for name, release in ufg.RELEASES.items():
    monkeypatch.setitem(
      ufg.RELEASES, name, release._replace(classes=2, train=4, test=2)
    )
  return ufg


def make(root, prefix=''):
  train = {f'{prefix}{c}_{i}_train.png': c for c in (1, 2) for i in (1, 3)}
  return images.ufg_layout(
    root, train, {f'{prefix}{c}_2_test.png': c for c in (1, 2)}
  )


@pytest.mark.parametrize(
  'name, folder',
  [
    ('cotton80', 'COTTON'),
    ('soy_local', 'SoyLocal/soybean200'),
    ('soy_gene', 'soybean_gene'),
    ('soy_global', 'soybean2000'),
    ('soy_ageing/R1', 'SoyAgeing/SoyAgeing-R1/R1'),
    ('soy_ageing/R6', 'soybean_aging_R6'),
  ],
)
def test_gives_back_the_files(tmp_path, ufg, name, folder):
  root = make(tmp_path / 'downloads' / 'manual' / folder)
  grey = np.full((4, 6), 7, np.uint8)
  images.write(root / 'images' / '1_1_train.png', images.encode(grey))
  palette = images.Image.fromarray(images.pixels(99)).quantize(8)
  images.write(root / 'images' / '2_2_test.png', images.encode(palette))

  dataset = ufg.load(name, data_dir=str(tmp_path))
  again = ufg.load(name, data_dir=str(tmp_path))

  as_it_lies = labelled_folders.open_folder(root, name)
  for part in ('train', 'test'):
    got, want = getattr(dataset, part), getattr(as_it_lies, part)
    assert got.names == want.names == getattr(again, part).names
    np.testing.assert_array_equal(got.labels, want.labels)
    assert pipeline.digests(got) == pipeline.digests(want)
  assert dataset.class_names == ('1', '2')
  decoded = decode.decode(dataset.train.read(0), 'x')
  np.testing.assert_array_equal(decoded, np.full((4, 6, 3), 7))


def test_needs_no_tensorflow(tmp_path, ufg):
  make(tmp_path / 'downloads/manual/COTTON')
  ufg.load('cotton80', data_dir=str(tmp_path)).train.read(0)
  assert 'tensorflow' not in sys.modules


def test_absent_set_names_the_folder_and_the_link(tmp_path, ufg):
  with pytest.raises(UserError) as e:
    ufg.load('soy_ageing/R3', data_dir=str(tmp_path))
  assert str(tmp_path / 'downloads/manual/R3') in str(e.value)
  assert 'https://' in str(e.value)


def test_unknown_name_is_refused_with_the_names(ufg):
  with pytest.raises(UserError, match='soy_ageing/R6'):
    ufg.load('soy_ageing', data_dir='')


def test_missing_files_stop_with_their_names(tmp_path, ufg):
  root = make(tmp_path / 'downloads/manual/COTTON')
  (root / 'images' / '2_3_train.png').unlink()
  with pytest.raises(UserError, match='2_3_train.png'):
    ufg.load('cotton80', data_dir=str(tmp_path))


def test_label_beyond_the_table_stops_with_its_file(tmp_path, ufg):
  root = make(tmp_path / 'downloads/manual/COTTON')
  images.write(root / 'images' / '3_1_train.png', b'x')
  with (root / 'anno' / 'train.txt').open('a') as f:
    f.write('3_1_train.png 3\n')
  with pytest.raises(UserError, match='3_1_train.png'):
    ufg.load('cotton80', data_dir=str(tmp_path))


def test_counts_that_disagree_stop_with_both(tmp_path, ufg):
  root = make(tmp_path / 'downloads/manual/COTTON')
  images.write(root / 'images' / '1_5_train.png', b'x')
  with (root / 'anno' / 'train.txt').open('a') as f:
    f.write('1_5_train.png 1\n')
  with pytest.raises(UserError, match='2 classes, 5 images.* 2, 4 and 2'):
    ufg.load('cotton80', data_dir=str(tmp_path))
  # Nothing half-prepared stays behind to be taken for the release.
  images.ufg_layout(root, {}, {})
  make(root)
  assert len(ufg.load('cotton80', data_dir=str(tmp_path)).train.names) == 4


def test_of_several_processes_the_first_prepares(tmp_path, ufg, monkeypatch):
  make(tmp_path / 'downloads/manual/COTTON')
  barriers = []

  def barrier(name):
    barriers.append(name)
    assert not (tmp_path / 'cotton80').exists()
    with monkeypatch.context() as m:
      m.setattr(jax, 'process_index', lambda: 0)
      m.setattr(sharding, 'barrier', barriers.append)
      ufg.load('cotton80', data_dir=str(tmp_path))

  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  monkeypatch.setattr(sharding, 'barrier', barrier)
  dataset = ufg.load('cotton80', data_dir=str(tmp_path))
  assert dataset.train.read(0)
  # Both came to the same one.
  assert len(barriers) == 2 and len(set(barriers)) == 1


def test_no_process_waits_for_a_first_one_that_failed(
  tmp_path, ufg, monkeypatch
):
  barriers = []
  monkeypatch.setattr(sharding, 'barrier', barriers.append)
  with pytest.raises(UserError, match='is not at'):
    ufg.load('cotton80', data_dir=str(tmp_path))
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  with pytest.raises(UserError, match='not there on process 1; .*share'):
    ufg.load('cotton80', data_dir=str(tmp_path))
  assert len(barriers) == 2


def test_a_set_that_another_program_prepared_is_refused(tmp_path, ufg):
  make(tmp_path / 'downloads/manual/COTTON')
  ufg.load('cotton80', data_dir=str(tmp_path))
  (tmp_path / 'cotton80' / '1.0.0' / 'metadata.json').unlink()
  with pytest.raises(UserError, match='remove it'):
    ufg.load('cotton80', data_dir=str(tmp_path))


def test_the_table_is_the_published_one():
  from csdnet_jax.data.images import ufg

  stages = [r for n, r in ufg.RELEASES.items() if n.startswith('soy_ageing/')]
  assert sum(r.train + r.test for r in ufg.RELEASES.values()) == 47114
  assert [r[:3] for r in stages] == [(198, 990, 990)] * 5
  others = sum(r.classes for r in ufg.RELEASES.values()) - 5 * 198
  assert others + 198 == 3526


def test_load_dispatches_to_the_release(tmp_path, ufg):
  make(tmp_path / 'downloads/manual/R4')
  dataset = images.load(tmp_path, source='ufg', name='soy_ageing/R4', shots=1)
  assert np.bincount(dataset.train.labels).tolist() == [1, 1]
  assert (
    dataset.train.read(0)
    == (
      tmp_path / 'downloads/manual/R4/images' / dataset.train.names[0]
    ).read_bytes()
  )
