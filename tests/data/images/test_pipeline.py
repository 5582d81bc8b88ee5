"""Images are prepared once and right; a batch depends on its step alone."""

import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from csdnet_jax.data import cache, decode
from csdnet_jax.data.images import pipeline, splits
from csdnet_jax.runtime.errors import UserError

import images


def split_of(encoded):
  """A split over encoded bytes; an exception in their place is raised."""

  def read(i):
    if isinstance(encoded[i], Exception):
      raise encoded[i]
    return encoded[i]

  names = tuple(f'p{i}.png' for i in range(len(encoded)))
  labels = np.arange(len(encoded), dtype=np.int32) % 3
  return splits.Split(names, labels, read)


@pytest.fixture(scope='module')
def encoded():
  return [images.encode(images.pixels(i, 10 + i, 20)) for i in range(7)]


@pytest.fixture
def split(encoded):
  return split_of(encoded)


def dataset_of(train, test, val=None):
  return splits.Dataset(
    'set', ('a', 'b', 'c'), split_of(train), val and split_of(val),
    split_of(test),
  )  # fmt: skip


def prepare(dataset, cache, canvas=12, **kw):
  digests = {
    part: pipeline.digests(s) for part, s in splits.parts_of(dataset).items()
  }
  return pipeline.prepare(
    dataset, digests, canvas=canvas, size=8, resize=9, square=False,
    cache_dir=cache, **kw,
  )  # fmt: skip


def both(split, cache, **kw):
  """One split as train and test: a file of canvases and one of views."""
  return prepare(splits.Dataset('set', (), split, None, split), cache, **kw)


def files_in(cache):
  return sorted(p.name for p in cache.iterdir())


# Preparing.


def test_canvases_are_what_decode_makes(split, tmp_path):
  prepared = both(split, tmp_path).canvases
  assert isinstance(prepared.images, np.memmap)
  assert prepared.images.shape == (7, 12, 12, 3)
  assert prepared.extents.dtype == prepared.labels.dtype == np.int32
  for i in range(7):
    image = decode.decode(split.read(i), 'x')
    canvas, extent = decode.fit_canvas(image, 12)
    np.testing.assert_array_equal(prepared.images[i], canvas)
    assert tuple(prepared.extents[i]) == extent
    assert tuple(prepared.sizes[i]) == image.shape[:2]
  np.testing.assert_array_equal(prepared.labels, split.labels)


def test_views_are_what_decode_makes(split, tmp_path):
  prepared = both(split, tmp_path).test
  image = decode.decode(split.read(3), 'x')
  np.testing.assert_array_equal(
    prepared.images[3],
    decode.eval_view(image, size=8, resize=9, square=False),
  )
  assert (prepared.extents == 8).all()


def test_second_run_decodes_nothing(split, tmp_path, monkeypatch):
  first = both(split, tmp_path)
  monkeypatch.setattr(decode, 'decode', None)
  seen = []
  again = both(split, tmp_path, progress=lambda *a: seen.append(a))
  for one, other in zip(first[:2], again[:2], strict=True):
    np.testing.assert_array_equal(one.images, other.images)
  assert seen == [(7, 14), (14, 14)]


def test_file_is_named_by_all_that_decides_its_pixels(
  encoded, tmp_path, monkeypatch
):
  import PIL

  split = split_of(encoded)
  both(split, tmp_path)
  both(split, tmp_path)
  assert len(files_in(tmp_path)) == 2
  both(split_of(encoded[:-1] + [encoded[0]]), tmp_path)
  assert len(files_in(tmp_path)) == 4
  both(split, tmp_path, canvas=13)
  assert len(files_in(tmp_path)) == 5
  monkeypatch.setattr(PIL, '__version__', '0')
  both(split, tmp_path)
  assert len(files_in(tmp_path)) == 7


@pytest.mark.parametrize('damage', [lambda b: b[:-1], lambda b: b + b'x'])
def test_file_of_the_wrong_length_is_made_again(split, tmp_path, damage):
  want = np.array(both(split, tmp_path).canvases.images)
  whole = {path: path.read_bytes() for path in tmp_path.iterdir()}
  for path, data in whole.items():
    path.write_bytes(damage(data))
  np.testing.assert_array_equal(both(split, tmp_path).canvases.images, want)
  assert {path: path.read_bytes() for path in tmp_path.iterdir()} == whole


def test_file_is_an_ordinary_npy(split, tmp_path):
  parts = both(split, tmp_path)
  loaded = [np.load(path)['image'] for path in tmp_path.iterdir()]
  loaded.sort(key=lambda x: -x.shape[1])
  for got, want in zip(loaded, (parts.canvases, parts.test), strict=True):
    np.testing.assert_array_equal(got, want.images)


def test_what_a_kill_has_left_is_removed_a_day_later(split, tmp_path):
  both(split, tmp_path)
  names = files_in(tmp_path)
  for name in names:
    (tmp_path / name).unlink()
    old, new = (
      tmp_path / f'.{name.removesuffix(".npy")}.{i}.tmp' for i in range(2)
    )
    old.write_bytes(b'half')
    new.write_bytes(b'another process is writing')
    os.utime(old, (0, 0))
  both(split, tmp_path)
  left = [name for name in files_in(tmp_path) if name.endswith('.1.tmp')]
  assert len(left) == 2 and files_in(tmp_path) == sorted([*left, *names])


def test_two_at_once_do_no_harm(split, tmp_path):
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    done = list(pool.map(lambda _: both(split, tmp_path), range(8)))
  assert len(files_in(tmp_path)) == 2
  for parts in done:
    np.testing.assert_array_equal(
      parts.canvases.images, done[0].canvases.images
    )


def test_progress_counts_every_image(split, tmp_path):
  seen = []
  both(split, tmp_path, progress=lambda *a: seen.append(a))
  # The test part is the train part again, whose views are there by then.
  assert seen == [(i, 14) for i in (*range(1, 8), 14)]


def test_a_training_image_is_decoded_once_for_both_its_views(
  split, tmp_path, monkeypatch
):
  decoded, real = [], decode.decode
  monkeypatch.setattr(
    decode,
    'decode',
    lambda data, name: decoded.append(name) or real(data, name),
  )
  first = both(split, tmp_path)
  assert sorted(decoded) == sorted(split.names)
  # Where one of the two files is gone, it alone is made again.
  whole = {path: path.read_bytes() for path in tmp_path.iterdir()}
  next(iter(whole)).unlink()
  again = both(split, tmp_path)
  assert {path: path.read_bytes() for path in tmp_path.iterdir()} == whole
  for one, other in zip(first[:2], again[:2], strict=True):
    np.testing.assert_array_equal(one.images, other.images)


def test_unreadable_images_are_listed_together(encoded, tmp_path):
  bad = [*encoded, b'', b'text', encoded[0][:50]]
  with pytest.raises(UserError) as e:
    both(split_of(bad), tmp_path)
  assert '3 in all' in str(e.value)
  for name in ('p7.png', 'p8.png', 'p9.png'):
    assert name in str(e.value)
  assert not files_in(tmp_path)


def test_a_file_that_cannot_be_read_has_no_digest(encoded):
  gone = FileNotFoundError(2, 'No such file or directory')
  *good, bad, worse = pipeline.digests(split_of([*encoded, gone, gone]))
  assert all(len(digest) == 64 for digest in good)
  assert str(bad) == 'p7.png: cannot be read (No such file or directory)'
  assert str(worse).startswith('p8.png: ')


def test_prepare_gives_all_that_a_run_reads(encoded, tmp_path):
  seen = []
  dataset = dataset_of(encoded, encoded[:3], encoded[:4])
  parts = prepare(dataset, tmp_path, progress=lambda *a: seen.append(a))
  np.testing.assert_array_equal(
    parts.canvases.images, both(dataset.train, tmp_path).canvases.images
  )
  np.testing.assert_array_equal(
    parts.train.images, both(dataset.train, tmp_path).test.images
  )
  assert len(parts.val.labels) == 4 and len(parts.test.labels) == 3
  assert seen[-1] == (14, 14) and seen == sorted(seen)
  assert prepare(dataset_of(encoded, encoded), tmp_path).val is None


def test_prepare_lists_the_unreadable_of_every_part_once(encoded, tmp_path):
  dataset = dataset_of([*encoded, b'1'], [b'2', *encoded], [b'3', b'4'])
  with pytest.raises(UserError) as e:
    prepare(dataset, tmp_path)
  named = {'p7.png', 'p0.png', 'p1.png'}
  assert all(str(e.value).count(name) == 1 for name in named)


def test_cache_folder_that_is_none(split, tmp_path):
  file = images.write(tmp_path / 'file', b'x')
  for folder in (file, file / 'below'):
    with pytest.raises(UserError, match='file.*config.data.cache'):
      both(split, folder)


def test_full_disk_names_the_folder_and_leaves_nothing(split, tmp_path):
  resource = pytest.importorskip('resource')
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
  try:
    with pytest.raises(UserError, match='config.data.cache'):
      both(split, tmp_path)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert not files_in(tmp_path)


@pytest.fixture
def disk(monkeypatch):
  """A disk with 12 kB free, where 1 kB is much."""
  lines, usage = [], shutil.disk_usage('.')
  monkeypatch.setattr(cache, 'say', lines.append)
  monkeypatch.setattr(cache, '_MUCH', 1000)
  monkeypatch.setattr(
    shutil, 'disk_usage', lambda path: usage._replace(free=12000)
  )
  return lines


def test_a_large_cache_is_said_before_it_is_written(split, tmp_path, disk):
  both(split, tmp_path)
  size = sum(path.stat().st_size for path in tmp_path.iterdir()) / 1000
  assert disk == [f'Writing {size:.1f} kB of decoded images to {tmp_path}.']
  both(split, tmp_path)
  assert len(disk) == 1


def test_a_cache_that_does_not_fit_stops_before_it_is_begun(
  split, tmp_path, disk
):
  with pytest.raises(UserError) as e:
    both(split, tmp_path / 'cache', canvas=40)
  for words in (str(tmp_path / 'cache'), '12.0 kB free', 'config.data.cache'):
    assert words in str(e.value)
  assert not files_in(tmp_path / 'cache') and not disk


# Batches.


@pytest.fixture(scope='module')
def prepared():
  n = 10
  rng = np.random.default_rng(0)
  return pipeline.Prepared(
    rng.integers(0, 256, (n, 4, 4, 3), np.uint8),
    rng.integers(1, 5, (n, 2), np.int32),
    np.arange(n, dtype=np.int32) % 3,
    np.full((n, 2), 9, np.int32),
  )


def train(prepared, start=0, stop=12, batch=4, seed=0, **kw):
  return list(
    pipeline.train_batches(
      prepared, batch=batch, seed=seed, start=start, stop=stop, **kw
    )
  )


def same(xs, ys):
  assert len(xs) == len(ys) > 0
  for x, y in zip(xs, ys, strict=True):
    assert x.keys() == y.keys()
    for name in x:
      np.testing.assert_array_equal(x[name], y[name])


def test_batches_hold_the_rows_of_their_ids(prepared):
  for b in train(prepared):
    np.testing.assert_array_equal(b['image'], prepared.images[b['id']])
    np.testing.assert_array_equal(b['extent'], prepared.extents[b['id']])
    np.testing.assert_array_equal(b['label'], prepared.labels[b['id']])
    assert b['image'].dtype == np.uint8
    assert {b[k].dtype for k in ('extent', 'label', 'id')} == {np.dtype('i4')}


def test_every_epoch_sees_every_image_once_in_a_new_order(prepared):
  ids = np.concatenate([b['id'] for b in train(prepared, stop=10)])
  epochs = ids.reshape(4, 10)
  for epoch in epochs:
    assert sorted(epoch) == list(range(10))
  assert len({tuple(e) for e in epochs}) == 4


def test_resumed_run_sees_the_batches_of_an_unbroken_one(prepared):
  whole = train(prepared, 0, 12)
  for at in (1, 5, 11):
    same(train(prepared, at, 12), whole[at:])
  assert train(prepared, 12, 12) == []


def test_far_step_costs_no_replay(prepared):
  # A pipeline that counts up to its start would take hours.
  assert len(train(prepared, 10**12, 10**12 + 2)) == 2


def test_order_depends_on_the_seed(prepared):
  same(train(prepared, seed=3), train(prepared, seed=3))
  ids = [b['id'].tolist() for b in train(prepared, seed=3)]
  assert ids != [b['id'].tolist() for b in train(prepared, seed=4)]
  train(prepared, seed=-1)


@pytest.mark.parametrize('hosts', [2, 4])
def test_hosts_share_each_global_batch(prepared, hosts):
  shares = [train(prepared, host=h, hosts=hosts) for h in range(hosts)]
  joined = [
    {k: np.concatenate([share[k] for share in step]) for k in step[0]}
    for step in zip(*shares, strict=True)
  ]
  same(joined, train(prepared))


def test_batch_that_does_not_fit(prepared):
  with pytest.raises(UserError, match='batch of 11 .*10 images'):
    train(prepared, batch=11)
  assert len(train(prepared, batch=10)) == 12
  with pytest.raises(UserError, match='3 hosts'):
    train(prepared, hosts=3)


@pytest.mark.parametrize(
  'batch, hosts', [(4, 1), (4, 2), (4, 4), (10, 1), (16, 2)]
)
def test_evaluation_sees_every_image_once(prepared, batch, hosts):
  shares = [
    list(pipeline.eval_batches(prepared, batch=batch, host=h, hosts=hosts))
    for h in range(hosts)
  ]
  assert {len(s) for s in shares} == {-(-10 // batch)}
  seen = []
  for share in shares:
    for b in share:
      mask = b['mask']
      assert mask.dtype == bool and len(mask) == batch // hosts
      assert {len(x) for x in b.values()} == {batch // hosts}
      assert (b['id'][~mask] == -1).all()
      np.testing.assert_array_equal(
        b['image'][mask], prepared.images[b['id'][mask]]
      )
      np.testing.assert_array_equal(
        b['label'][mask], prepared.labels[b['id'][mask]]
      )
      seen += b['id'][mask].tolist()
  assert sorted(seen) == list(range(10))


def test_evaluation_batch_must_fit_the_hosts(prepared):
  with pytest.raises(UserError, match='3 hosts'):
    pipeline.eval_batches(prepared, batch=4, hosts=3)


@pytest.mark.slow
def test_batches_need_no_parsed_flags_and_are_equal_over_processes(tmp_path):
  program = """
import hashlib, numpy as np
from csdnet_jax.data.images import pipeline
rows = np.arange(50, dtype=np.int32)
prepared = pipeline.Prepared(
  np.zeros((50, 2, 2, 3), np.uint8), np.ones((50, 2), np.int32), rows,
  np.ones((50, 2), np.int32))
ids = [b['id'] for b in pipeline.train_batches(
  prepared, batch=8, seed=1, start=3, stop=40)]
print(hashlib.sha256(np.concatenate(ids).tobytes()).hexdigest())
"""
  outputs = {
    subprocess.run(
      [sys.executable, '-c', program],
      env={**os.environ, 'PYTHONHASHSEED': seed},
      cwd=pathlib.Path(pipeline.__file__).parents[3],
      capture_output=True,
      text=True,
      check=True,
    ).stdout
    for seed in ('1', '2')
  }
  assert len(outputs) == 1


@pytest.mark.slow
def test_two_processes_may_prepare_at_once(tmp_path):
  images.class_folders(tmp_path / 'set', {'a': 6, 'b': 6})
  program = """
import sys, pathlib
from csdnet_jax.data.images import labelled_folders, pipeline
dataset = labelled_folders.open_folder(sys.argv[1])
digests = pipeline.digests(dataset.train)
p = pipeline.prepare(
  dataset._replace(test=dataset.train),
  {'train': digests, 'test': digests},
  canvas=16, size=8, resize=9, square=False,
  cache_dir=pathlib.Path(sys.argv[2]))
print(int(p.canvases.images.astype(int).sum()))
"""
  cache = tmp_path / 'cache'
  runs = [
    subprocess.Popen(
      [sys.executable, '-c', program, str(tmp_path / 'set'), str(cache)],
      cwd=pathlib.Path(pipeline.__file__).parents[3],
      stdout=subprocess.PIPE,
      text=True,
    )
    for _ in range(3)
  ]
  outputs = {run.communicate()[0] for run in runs}
  assert [run.returncode for run in runs] == [0, 0, 0]
  assert len(outputs) == 1 and len(files_in(cache)) == 2


def test_a_batch_of_one_is_as_good_as_any(prepared):
  ids = [int(batch['id'][0]) for batch in train(prepared, stop=20, batch=1)]
  n = len(prepared.labels)
  assert sorted(ids[:n]) == list(range(n))
