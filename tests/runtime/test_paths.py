"""Runs and data at gs://, in a bucket that lives in memory."""

import contextlib
import functools
import os
import pathlib

import fsspec
import jax
import pytest
from etils.epath import backend
from fsspec.implementations import memory
from fsspec.registry import _registry

from csdnet_jax import checkpoint
from csdnet_jax.config import default
from csdnet_jax.data import cache
from csdnet_jax.data.images import labelled_folders
from csdnet_jax.evaluation import calibration, neighbours, unknown
from csdnet_jax.inference import trained as run_lib
from csdnet_jax.models.weights import pretrained
from csdnet_jax.runtime import paths, writers
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training import restore, train

import images
import runs


class Bucket(memory.MemoryFileSystem):
  """gcsfs as far as epath sees it: no folders, no appending."""

  protocol = ('gs', 'gcs')
  store = {}
  pseudo_dirs = ['']

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(str(path).partition('://')[2] or path)

  def mkdir(self, path, create_parents=True, **kwargs):
    """A bucket has none: a folder is there while something is in it."""

  def makedirs(self, path, exist_ok=False):
    """As `mkdir`."""

  def open(self, path, mode='rb', **kwargs):
    assert 'a' not in mode, 'an object store cannot append'
    return super().open(path, mode, **kwargs)


@pytest.fixture
def bucket(monkeypatch):
  for name in ('gs', 'gcs'):
    monkeypatch.setitem(_registry, name, Bucket)
  backend.fsspec_backend._get_filesystem.cache_clear()
  Bucket.store.clear()
  yield paths.of('gs://bucket')
  backend.fsspec_backend._get_filesystem.cache_clear()


def test_a_path_of_the_disk_is_pathlib_s(tmp_path):
  assert paths.of(str(tmp_path)) == tmp_path
  assert type(paths.of('runs')) is type(tmp_path)
  assert paths.of('~/runs') == pathlib.Path.home() / 'runs'


def test_other_stores_and_absent_libraries_are_refused(monkeypatch):
  with pytest.raises(UserError, match='neither a folder nor a gs:// path'):
    paths.of('http://host/runs')

  def absent(protocol):
    raise ImportError(protocol)

  monkeypatch.setattr(fsspec, 'get_filesystem_class', absent)
  with pytest.raises(UserError, match=r'pip install "csdnet_jax\[gcs\]"'):
    paths.of('gs://bucket/runs')


def test_what_waits_for_a_writer_is_read_by_nobody(tmp_path):
  assert paths.read_bytes(images.write(tmp_path / 'f', b'abc')) == b'abc'
  with pytest.raises(FileNotFoundError):
    paths.read_bytes(tmp_path / 'absent')
  pipe = tmp_path / 'weights.npz'
  os.mkfifo(pipe)
  with pytest.raises(OSError, match='it is a pipe'):
    paths.read_bytes(pipe)
  with pytest.raises(UserError, match=r'weights.npz cannot be read .*a pipe'):
    pretrained.load(str(pipe), 'vit_tiny', {}, {}, classes=2)
  os.mkfifo(tmp_path / 'config.json')
  with pytest.raises(UserError, match=r'config.json .*cannot be read .*a pipe'):
    restore.read_run(tmp_path)
  for module in (calibration, neighbours, unknown):
    os.mkfifo(tmp_path / module.FILE)
    with pytest.raises(UserError, match=r'cannot be read .*a pipe.*remove it'):
      module.read(tmp_path)


def test_the_cache_must_be_on_a_disk():
  with pytest.raises(UserError, match='config.data.cache=gs://b/c must be'):
    cache.cache_dir('gs://b/c')


@pytest.mark.parametrize('layout', ['class folders', 'train and test', 'ufg'])
def test_a_folder_in_a_bucket_is_read_as_on_a_disk(bucket, tmp_path, layout):
  if layout == 'ufg':
    images.ufg_layout(
      tmp_path, {'a/1.png': 1, 'b/2.png': 2}, {'a/3.png': 1, 'b/4.png': 2}
    )
  else:
    for part in ('train', 'test') if layout == 'train and test' else ('',):
      for name in ('oak/1.png', 'oak/wet/2.JPG', 'ash/3.png', 'ash/.no.png'):
        images.write(tmp_path / part / name, images.encode(images.pixels(4)))
  for file in tmp_path.rglob('*'):
    if file.is_file():
      there = bucket / 'set' / file.relative_to(tmp_path)
      there.write_bytes(file.read_bytes())
  local = labelled_folders.open_folder(tmp_path, 'x')
  remote = labelled_folders.open_folder('gs://bucket/set', 'x')
  assert remote.class_names == local.class_names
  for part in ('train', 'test'):
    got, want = getattr(remote, part), getattr(local, part)
    assert got.names == want.names
    assert got.labels.tolist() == want.labels.tolist()
    assert [got.read(i) for i in range(len(got.names))] == [
      want.read(i) for i in range(len(want.names))
    ]


def test_records_in_a_bucket_are_written_by_flush(bucket):
  workdir = bucket / 'run'
  writer = writers.Writer(workdir, default(), step=0)
  writer.write('train', 1, {'loss': 0.5})
  writer.flush()
  writer.write('train', 2, {'loss': 0.25})
  path = workdir / 'metrics.jsonl'
  assert [r['step'] for r in writers.read_records(path)] == [1]
  writer.close()
  assert [r['step'] for r in writers.read_records(path)] == [1, 2]
  writers.Writer(workdir, default(), step=1).close()
  assert [r['step'] for r in writers.read_records(path)] == [1]


@pytest.mark.slow
def test_a_run_in_a_bucket_stops_continues_and_predicts(
  bucket, tmp_path, monkeypatch
):
  # TensorStore talks to Google itself: the arrays alone stay on the disk.
  class Local(checkpoint.Checkpoints):
    def __init__(self, folder, **kwargs):
      assert str(folder) == 'gs://bucket/run/checkpoints'
      (folder / 'placeholder').write_bytes(b'')
      super().__init__(tmp_path / 'checkpoints', **kwargs)

  for user in (train, restore):
    monkeypatch.setattr(user, 'Checkpoints', Local)
  fields = {'epochs': 2.0, 'data.val_fraction': 0.34}
  config = functools.partial(runs.config, tmp_path / 'cache', **fields)
  devices, workdir = jax.devices()[:1], bucket / 'run'

  def stop_after_three():
    yield lambda step: step == 3

  with monkeypatch.context() as m:
    m.setattr(train, 'stopper', contextlib.contextmanager(stop_after_three))
    assert train.train(config(), workdir, devices=devices) is None
  summary = train.train(config(), workdir, devices=devices)

  names = {path.name for path in workdir.iterdir()}
  assert {
    'config.json', 'split.json', 'metrics.jsonl', 'summary.json', 'start.json',
    'environment.json', 'confusion.csv', 'weights.json', 'data_report.json',
    'class_names.json', 'pictures',
  } <= names  # fmt: skip
  assert '.lock' not in names
  assert train.train(config(), workdir, devices=devices) == summary
  with pytest.raises(UserError, match='holds a run of another config'):
    train.train(config(seed=1), workdir, devices=devices)
  trained = run_lib.load_run('gs://bucket/run')
  assert trained.calibration.step == summary['steps']
  assert (workdir / 'calibration.json').exists()
  image = images.pixels(4)
  assert trained.predict([image]).probabilities.shape == (1, 4)
