"""The command line: one command, and a mistake ends in one sentence."""

import configparser
import errno
import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import time

import jax
import pytest

from csdnet_jax import __main__ as command_line
from csdnet_jax.config import default
from csdnet_jax.inference import export
from csdnet_jax.runtime import commands
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training import command_line as of_training

import command
import images

# ----------------------------------------------------------------- its words


def _said(capsys, *argv):
  status = command_line.main(argv)
  return status, capsys.readouterr().out


def _help(capsys, *argv):
  with pytest.raises(SystemExit) as ended:
    command_line.main(argv)
  assert ended.value.code == 0
  return capsys.readouterr().out


def test_the_help_fits_a_screen_and_names_every_command(capsys):
  status, text = _said(capsys, '--help')
  lines = text.splitlines()
  assert status == 0 and len(lines) <= 23
  assert max(map(len, lines)) <= 80
  for name in command_line.COMMANDS:
    assert f'\n  {name} ' in text
  assert _said(capsys) == (2, text)


@pytest.mark.parametrize('name', list(command_line.COMMANDS))
def test_the_help_of_a_command_names_its_flags(name, capsys, monkeypatch):
  monkeypatch.setenv('COLUMNS', '80')
  text = _help(capsys, name, '--help')
  assert f'usage: csdnet {name}' in text
  assert max(map(len, text.splitlines())) <= 80
  if name not in ('train', 'cut', 'data', 'models'):
    assert '--run DIR' in text and '--checkpoint last|best' in text


def test_the_version_is_said(capsys):
  assert _said(capsys, '--version')[1].startswith('csdnet_jax ')


def test_every_format_of_the_export_can_be_asked_for():
  for name in export.FORMATS:
    args = ['export', '--run=x', '--out=y', f'--format={name}']
    assert command_line.parse(args).format == name


@pytest.mark.slow
@pytest.mark.parametrize('args', [(), ('train',), ('predict',)])
def test_help_waits_for_no_library(args):
  code = (
    'import sys; from csdnet_jax.__main__ import main\n'
    'try: main(sys.argv[1:])\n'
    "finally: assert not {'jax', 'numpy', 'rich'} & set(sys.modules)"
  )
  argv = [sys.executable, '-c', code, *args, '--help']
  start = time.monotonic()
  subprocess.run(argv, cwd=command.ROOT, check=True, stdout=subprocess.DEVNULL)
  assert time.monotonic() - start < 1


@pytest.mark.parametrize(
  ('argv', 'words'),
  [
    (['trian'], ["no command 'trian'", 'Did you mean "train"?']),
    (['train', '--wrokdir=x'], ['no flag --wrokdir', '"--workdir"']),
    (['train', '--dry-run'], ['no flag --dry-run', '"--dry_run"']),
    (['train', '--eval_only'], ['no flag --eval_only']),
    (['train', 'a', 'b'], ['unrecognized arguments: b', 'needs quotes']),
    (['predict', '--rnu=x'], ['no flag --rnu', '"--run"']),
    (['predict', '--config=x'], ['no flag --config']),
    (['predict', '--run=x'], ['--out, IMAGES', 'csdnet predict --help']),
    (['export', '--run=x', '--out=y', '--format=onx'], ["'onx'", "'onnx'"]),
    (['app', '--run=x', '--port=y'], ["'y'"]),
    (['embed', '--run=x', '--out=y', '--checkpoint=fisrt'], ["'fisrt'"]),
    (['cut', 'photos'], ['--out', 'csdnet cut --help']),
    (['data', 'grape85', '--out=x'], ["'grape85'", "'grape58'"]),
  ],
)
def test_a_mistaken_flag_is_a_sentence(argv, words, capsys):
  status, text = _said(capsys, *argv)
  assert status == 2
  assert text.startswith('error: ') and text.count('\n') == 1
  for word in words:
    assert word in text


def test_a_config_flag_may_stand_apart_from_its_value():
  args = command_line.parse(
    ['train', '--config', 'quickstart', '--config.seed', '1', '--verbose']
  )
  assert args.config == ['--config=quickstart', '--config.seed=1']
  assert args.verbose and args.folder is None
  args = command_line.parse(['train', '--config.seed=1', 'leaves'])
  assert (args.config, args.folder) == (['--config.seed=1'], 'leaves')
  args = command_line.parse(['predict', '--run=x', '--out=y', '--', '--a.png'])
  assert args.images == ['--a.png']


# ---------------------------------------------------------------- the config


def test_a_name_a_file_and_its_place_are_the_same_config(tmp_path, monkeypatch):
  given = of_training.resolve(['--config=quickstart', '--config.seed=3'])
  assert (given.name, given.seed) == ('quickstart', 3)
  monkeypatch.chdir(tmp_path)  # Where there is no configs/.
  for name in ('configs/quickstart.py', 'quickstart'):
    found = of_training.resolve(['--config.seed=3', f'--config={name}'])
    assert found.to_dict() == given.to_dict()
  assert of_training.resolve(['--config=soy_ageing:R3']).name.endswith('R3')


def test_a_file_on_disk_goes_first_and_imports_what_lies_beside(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(sys, 'path', [*sys.path])
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs' / 'beside_quickstart.py').write_text('EPOCHS = 2.5')
  (tmp_path / 'configs' / 'quickstart.py').write_text(
    'import beside_quickstart\n'
    'from csdnet_jax.config import default\n'
    'def get_config():\n'
    '  config = default()\n'
    '  config.epochs = beside_quickstart.EPOCHS\n'
    '  return config\n'
  )
  assert of_training.resolve(['--config=configs/quickstart.py']).epochs == 2.5
  assert of_training.resolve(['--config=quickstart']).epochs == 16


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('a folder', 'mine.py is no config file: .*SyntaxError'),
    ('import no_such_module', r'mine.py, line 1, is no config file: No module'),
    ('def get_config():\n  return 1 / 0\n', 'line 2, .*ZeroDivisionError'),
    ('x = 1', "is no config file: .*'get_config'"),
    ('def get_config():\n  return {}\n', 'returns a dict'),
  ],
)
def test_a_broken_config_file_is_a_sentence(text, words, tmp_path, monkeypatch):
  monkeypatch.setattr(sys, 'path', [*sys.path])
  (tmp_path / 'mine.py').write_text(text)
  with pytest.raises(UserError, match=words):
    of_training.resolve([f'--config={tmp_path}/mine.py'])


def test_a_folder_stands_for_flags(tmp_path, monkeypatch):
  (tmp_path / 'leaves').mkdir()
  monkeypatch.chdir(tmp_path)
  asked = []
  monkeypatch.setattr(
    of_training, 'verdict', lambda *args, **named: asked.append((args, named))
  )
  for folder in ('leaves', 'leaves/', f'{tmp_path}/leaves', 'leaves/../leaves'):
    args = command_line.parse(['train', folder, '--config.seed=3'])
    command.here(of_training.train, 'train', folder, '--config.seed=3')
    (config, workdir), named = asked.pop()
    assert config.data.root == str((tmp_path / 'leaves').resolve())
    assert config.data.source == 'folder'
    assert config.seed == 3 and workdir == pathlib.Path('runs/leaves')
    assert named == {'minutes': 20.0, 'given': ['seed'], 'dry_run': False}
    assert args.command == 'train'
  command.here(of_training.train, 'train', 'leaves', '--minutes=7')
  assert asked.pop()[1]['minutes'] == 7
  for flag, words in (('--profile', 'is of one training'),):
    with pytest.raises(UserError, match=words):
      command.here(of_training.train, 'train', 'leaves', flag)
  with pytest.raises(UserError, match='--minutes is of csdnet train FOLDER'):
    command.here(
      of_training.train, 'train', '--config=quickstart', '--minutes=7'
    )
  with pytest.raises(UserError, match='what to train once: .*data.root=leaves'):
    command.here(of_training.train, 'train', 'leaves', '--config=quickstart')
  with pytest.raises(UserError, match='is --config=quickstart'):
    command.here(of_training.train, 'train', 'quickstart')


# ------------------------------------------------------------------ mistakes


def test_a_full_disk_is_explained():
  error = OSError(errno.ENOSPC, 'No space left on device', 'runs/x')
  sentence = commands.explain(error)
  assert 'disk is full while writing to runs/x' in sentence
  # Of a command that trains nothing there is nothing else.
  assert 'saved' not in sentence and 'workdir' not in sentence
  assert 'saved so far is kept' in commands.explain(error, default())
  # TensorStore reports it in its own words.
  error = ValueError('Error writing "runs/x": No space left on device')
  assert 'disk is full' in commands.explain(error)


def test_running_out_of_device_memory_names_the_keys():
  class Config:
    batch_size = 64

    class model:
      size, name = 448, 'vit_b16'

  error = jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')
  with pytest.raises(UserError) as raised, commands.explained(Config):
    raise error
  for word in ('batch_size (64)', 'model.size (448)', 'vit_b16'):
    assert word in str(raised.value)
  assert 'JAX_PLATFORMS=cpu' in commands.explain(error)


def test_a_defect_of_ours_keeps_its_traceback():
  assert commands.explain(ValueError('something else')) is None
  assert commands.explain(UserError('A sentence.')) == 'A sentence.'
  with pytest.raises(ValueError, match='else'), commands.explained():
    raise ValueError('something else')


@pytest.mark.slow
@pytest.mark.parametrize(
  ('args', 'words'),
  [
    ((), ['--config=FILE', '--config=quickstart']),
    (('--config=configs/absent.py',), ['configs/absent.py', 'quickstart']),
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
    (('--config=configs/quickstart.py', 'leaves'), ['folder leaves']),
    (('no/such',), ['There is no folder no/such; check the path.']),
    (('--config=configs/folder.py',), ['config.data.root']),
    (('--config=configs/folder.py', '--config.data.root=no/such'), ['no/such']),
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
  args = *args, f'--workdir={tmp_path / "run"}'
  status, output = command.run(*args, env={'XDG_CACHE_HOME': str(tmp_path)})
  assert status == 2
  assert 'Traceback' not in output
  for word in words:
    assert word in output
  assert not (tmp_path / 'run' / 'checkpoints').exists()


@pytest.mark.slow
def test_an_absent_run_ends_in_a_sentence():
  for name in ('evaluate', 'app'):
    status, output = command.csdnet(name, '--run=no/such')
    assert status == 2 and 'no/such is not the workdir of a run' in output
    assert 'Traceback' not in output


@pytest.mark.slow
def test_unreadable_pictures_are_all_listed(tmp_path):
  root = tmp_path / 'leaves'
  images.class_folders(root, {'a': 8, 'b': 8})
  (root / 'a' / 'cut.jpg').write_bytes(b'\xff\xd8\xff')
  (root / 'b' / 'empty.png').write_bytes(b'')
  status, output = command.csdnet(
    'train', root, '--config.batch_size=4', f'--workdir={tmp_path / "run"}',
    env={'XDG_CACHE_HOME': str(tmp_path)},
  )  # fmt: skip
  assert status == 2 and 'Traceback' not in output
  assert 'cut.jpg' in output and 'empty.png' in output


@pytest.mark.slow
def test_a_folder_of_ones_own_trains_and_is_used(tmp_path):
  root = tmp_path / 'leaves'
  images.class_folders(root, {'a': 8, 'b': 8})
  fields = command.flags(**{'data.cache': tmp_path / 'cache'})[1:]
  args = ('train', '--config=folder', '--config.name=leaves', *fields,
          '--config.data.source=folder', f'--config.data.root={root}',
          '--config.method.csdnet.queue=8')  # fmt: skip
  status, output = command.csdnet(*args, cwd=tmp_path)
  assert status == 0, output
  assert 'top-1, last epoch' in output
  assert 'Running on' not in output
  assert sum(line.startswith('step ') for line in output.splitlines()) == 10
  workdir = tmp_path / 'runs' / 'leaves'
  assert (workdir / 'summary.json').exists()
  status, output = command.csdnet('evaluate', f'--run={workdir}')
  assert status == 0 and 'test part' in output, output
  status, output = command.csdnet(
    'evaluate', f'--run={workdir}', '--checkpoint=best',
    '--config.data.root=' + str(shutil.copytree(root, tmp_path / 'others')),
  )  # fmt: skip
  assert status == 0 and 'is the best on the test part' in output, output
  status, output = command.csdnet(
    'evaluate', f'--run={workdir}', '--config.seed=4'
  )
  assert status == 2 and 'seed' in output
  status, output = command.csdnet(*args, '--dry_run')
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


# ----------------------------------------------------------------- the wheel


def _setup():
  parser = configparser.ConfigParser()
  parser.read(command.ROOT / 'setup.cfg')
  return parser


def test_every_folder_of_the_package_is_installed():
  listed = _setup()['options']['packages'].split()
  folders = {
    '.'.join(path.parent.relative_to(command.ROOT).parts)
    for path in (command.ROOT / 'csdnet_jax').rglob('*.py')
  }
  assert listed == sorted(folders | {'csdnet_jax.configs'})


def test_every_template_is_installed():
  pattern = _setup()['options.package_data']['csdnet_jax.inference']
  folder = command.ROOT / 'csdnet_jax' / 'inference'
  found = {p for p in folder.rglob('*') if p.suffix not in ('.py', '.pyc')}
  assert {p for p in found if p.is_file()} == set(folder.glob(pattern))


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
  """The folder of commands of an environment where the wheel is installed.

  It sees the libraries of this environment, but not the package of this clone.
  """
  scratch = tmp_path_factory.mktemp('wheel')
  clone = scratch / 'clone'
  for name in ('csdnet_jax', 'configs'):
    shutil.copytree(
      command.ROOT / name, clone / name,
      ignore=shutil.ignore_patterns('__pycache__'),
    )  # fmt: skip
  for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(command.ROOT / name, clone)

  def run(*args):
    done = subprocess.run(
      [sys.executable, '-m', *map(str, args)], cwd=scratch, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout

  try:  # One that makes wheels by itself; else pip fetches it.
    version = importlib.metadata.version('setuptools').split('.')
    here = ['--no-build-isolation'] if int(version[0]) > 70 else []
  except importlib.metadata.PackageNotFoundError:
    here = []
  run('pip', 'wheel', '--no-deps', *here, '--wheel-dir', scratch, clone)
  shutil.rmtree(clone)
  run('venv', '--without-pip', scratch / 'venv')
  (wheel,) = scratch.glob('*.whl')
  python = scratch / 'venv' / 'bin' / 'python'
  run('pip', '--python', python, 'install', '--no-deps', wheel)
  (site,) = (scratch / 'venv').glob('lib/python*/site-packages')
  # A path alone: what is installed as editable there stays unseen.
  (site / 'libraries.pth').write_text(sysconfig.get_path('purelib'))
  return scratch / 'venv' / 'bin'


def _in(folder, *argv):
  env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
  done = subprocess.run(
    [*map(str, argv)], cwd=folder, text=True, timeout=300,
    env=env | {'COLUMNS': '500', 'JAX_NUM_CPU_DEVICES': '1'},
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout
  return done.stdout


@pytest.mark.slow
def test_the_wheel_trains_and_serves_far_from_the_clone(installed, tmp_path):
  flags = command.flags(**{'data.cache': tmp_path / 'cache', 'epochs': 2.0})
  csdnet = installed / 'csdnet'
  said = _in(tmp_path, csdnet, 'train', '--config=quickstart', *flags[1:])
  assert 'top-1, last epoch' in said
  said = _in(
    tmp_path, csdnet, 'embed', '--run=runs/quickstart', '--out=x.npz',
    '--part=test', '--neighbours=page.html',
  )  # fmt: skip
  assert 'Nearest training leaves' in (tmp_path / 'page.html').read_text()
  where = 'import csdnet_jax.configs as c; print(c.__file__)'
  said = _in(tmp_path, installed / 'python', '-c', where)
  assert said.startswith(str(installed.parent))


@pytest.mark.slow
@pytest.mark.parametrize('start', [['csdnet'], ['python', '-m', 'csdnet_jax']])
def test_a_config_of_ones_own_imports_what_lies_beside_it(
  start, installed, tmp_path
):
  settings = tmp_path / 'settings'
  settings.mkdir()
  (settings / 'my_leaves.py').write_text('CULTIVARS = 3')
  (settings / 'mine.py').write_text(
    'import my_leaves\n'
    'from csdnet_jax.configs import quickstart\n'
    'def get_config():\n'
    '  config = quickstart.get_config()\n'
    '  config.data.leaves.cultivars = my_leaves.CULTIVARS\n'
    '  config.method.csdnet.queue = 8\n'
    '  config.init_from = ""\n'
    '  return config\n'
  )
  start = [installed / start[0], *start[1:]]
  said = _in(
    tmp_path, *start, 'train', '--config=settings/mine.py', '--dry_run',
    '--config.model.name=efficientnet_tiny', '--config.batch_size=4',
    f'--config.data.cache={tmp_path / "cache"}',
  )  # fmt: skip
  assert '3 classes' in said
