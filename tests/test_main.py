"""The command line: a mistake ends in one sentence and a non-zero status."""

import errno
import subprocess

import jax
import pytest

from csdnet_jax import main
from csdnet_jax.runtime.errors import UserError

import command
import images


def test_a_full_disk_is_explained():
  error = OSError(errno.ENOSPC, 'No space left on device', 'runs/x')
  assert 'disk is full while writing to runs/x' in main.explain(error)
  # TensorStore reports it in its own words.
  error = ValueError('Error writing "runs/x": No space left on device')
  assert 'disk is full' in main.explain(error)


def test_running_out_of_device_memory_names_the_keys():
  class Flags:
    class config:
      batch_size = 64

      class model:
        size, name = 448, 'vit_b16'

  error = jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')
  old, main.FLAGS = main.FLAGS, Flags
  try:
    sentence = main.explain(error)
  finally:
    main.FLAGS = old
  for word in ('batch_size (64)', 'model.size (448)', 'vit_b16'):
    assert word in sentence


def test_a_defect_of_ours_keeps_its_traceback():
  assert main.explain(ValueError('something else')) is None
  assert main.explain(UserError('A sentence.')) == 'A sentence.'


@pytest.mark.slow
@pytest.mark.parametrize(
  ('args', 'words'),
  [
    ((), ['--config=FILE', 'configs/quickstart.py']),
    (('--eval_only', '--workdir', 'no/such'), ['no/such']),
    (('--config=configs/absent.py',), ['configs/absent.py', 'configs/']),
    (('--config=configs',), ['There is no config file configs']),
    (('--config=README.md',), ['README.md is no config file']),
    (
      ('--config=configs/quickstart.py', '--config.epoch=3'),
      ["no field 'epoch'", 'Did you mean "epochs"?'],
    ),
    (
      ('--config=configs/quickstart.py', '--config.method.csdnet.marign=0.1'),
      ['Did you mean "method.csdnet.margin"?'],
    ),
    (
      ('--config=configs/quickstart.py', '--config.epochs=many'),
      ['config.epochs', 'many'],
    ),
    (
      ('--config=configs/quickstart.py', '--config.views.area=3'),
      ['views.area'],
    ),
    (('--config=configs/soy_ageing.py:R2',), ['R2', 'R1, R3, R4, R5, R6']),
    (('--config=configs/quickstart.py', 'leaves'), ["argument 'leaves'"]),
    (('--config=configs/quickstart.py', '--wrokdir=x'), ['wrokdir']),
    (('--config=configs/folder.py',), ['config.data.root']),
    (('--config=configs/folder.py', '--config.data.root=no/such'), ['no/such']),
    (('--eval_only',), ['--workdir']),
    (('--eval_only', '--workdir=no/such'), ['no/such']),
    (
      ('--config=configs/quickstart.py', '--config.batch_size=1000'),
      ['batch_size is 1000'],
    ),
    (
      ('--config=configs/quickstart.py', '--config.method.csdnet.queue=3'),
      ['queue is 3'],
    ),
    (('--config=configs/soy_ageing.py',), ['R1', 'anno']),
  ],
)
def test_a_mistake_ends_in_a_sentence(args, words, tmp_path):
  if args and not any('workdir' in a or 'eval_only' in a for a in args):
    args = *args, f'--workdir={tmp_path / "run"}'
  status, output = command.run(*args, env={'XDG_CACHE_HOME': str(tmp_path)})
  assert status != 0
  assert 'Traceback' not in output
  for word in words:
    assert word in output
  assert not (tmp_path / 'run' / 'checkpoints').exists()


@pytest.mark.slow
def test_unreadable_pictures_are_all_listed(tmp_path):
  root = tmp_path / 'leaves'
  images.class_folders(root, {'a': 8, 'b': 8})
  (root / 'a' / 'cut.jpg').write_bytes(b'\xff\xd8\xff')
  (root / 'b' / 'empty.png').write_bytes(b'')
  status, output = command.run(
    '--config=configs/folder.py',
    '--config.batch_size=4',
    f'--config.data.root={root}',
    f'--workdir={tmp_path / "run"}',
    env={'XDG_CACHE_HOME': str(tmp_path)},
  )
  assert status != 0 and 'Traceback' not in output
  assert 'cut.jpg' in output and 'empty.png' in output


@pytest.mark.slow
def test_a_folder_of_ones_own_trains(tmp_path):
  root = tmp_path / 'leaves'
  images.class_folders(root, {'a': 8, 'b': 8})
  args = (
    *command.flags(**{'data.cache': tmp_path / 'cache'}),
    '--config.data.source=folder', f'--config.data.root={root}',
    '--config.method.csdnet.queue=8', f'--workdir={tmp_path / "run"}',
  )  # fmt: skip
  status, output = command.run(*args)
  assert status == 0, output
  assert 'top-1, last epoch' in output
  assert (tmp_path / 'run' / 'summary.json').exists()
  status, output = command.run('--eval_only', f'--workdir={tmp_path / "run"}')
  assert status == 0 and 'test part' in output, output
  status, output = command.run(*args[:-1], '--dry_run')
  assert status == 0 and 'GiB' in output, output


@pytest.fixture
def small_disk(tmp_path):
  """A disk of 300 kB."""
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=300k', 'tmpfs', str(tmp_path)]
  if subprocess.run(mount, capture_output=True).returncode:
    pytest.skip('no file system can be mounted')
  yield tmp_path
  subprocess.run(['umount', str(tmp_path)], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_in_a_sentence(small_disk, tmp_path_factory):
  cache = tmp_path_factory.mktemp('cache')
  status, output = command.run(
    *command.flags(**{'data.cache': cache}), f'--workdir={small_disk / "run"}'
  )
  assert status == 2
  assert 'Traceback' not in output
  assert 'The disk is full' in output


@pytest.mark.slow
def test_a_read_only_disk_ends_in_a_sentence(small_disk, tmp_path_factory):
  subprocess.run(['mount', '-o', 'remount,ro', str(small_disk)], check=True)
  cache = tmp_path_factory.mktemp('cache')
  status, output = command.run(
    *command.flags(**{'data.cache': cache}), f'--workdir={small_disk / "run"}'
  )
  assert status == 2
  assert 'Traceback' not in output
  assert 'cannot be written' in output and '--workdir' in output
