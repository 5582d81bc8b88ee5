"""The hashes of code: what changes them, and what must not."""

import importlib.metadata
import pathlib
import subprocess

import pytest

import csdnet_jax
from csdnet_jax.runtime import code
from csdnet_jax.runtime.errors import UserError

PACKAGE = pathlib.Path(csdnet_jax.__file__).parent
# What makes no figure, whatever happens to it.
ELSEWHERE = {
  'configs', 'inference', 'pictures', 'runtime', '__init__.py', '__main__.py',
  'checkpoint.py', 'main.py', '__pycache__',
}  # fmt: skip


def _git(folder, *arguments):
  return subprocess.run(
    ['git', '-c', 'user.name=a', '-c', 'user.email=a@b.c', *arguments],
    cwd=folder, check=True, capture_output=True, encoding='utf-8',
  ).stdout.strip()  # fmt: skip


def _write(package):
  files = ('step', 'config', 'data/augment', 'models/vit', 'pictures/draw')
  for name in files:
    path = package / f'{name}.py'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'# {name}\n')


@pytest.fixture
def checkout(tmp_path):
  """A git checkout of something like this package, with one commit."""
  package = tmp_path / 'clone' / 'csdnet_jax'
  _write(package)
  (package.parent / '.gitignore').write_text('ignored.py\n.venv/\n')
  _git(package.parent, 'init', '-q')
  _git(package.parent, 'add', '.')
  _git(package.parent, 'commit', '-qm', 'One.')
  return package


def _of(package):
  return dict(code._of_package.__wrapped__(package))


def test_each_file_and_folder_makes_figures_or_does_not():
  there = {path.name for path in PACKAGE.iterdir()} - ELSEWHERE
  assert there == {*code._FOLDERS, *(f'{name}.py' for name in code._FILES)}


def test_of_a_clean_checkout_it_is_git_s_own_tree(checkout):
  found = _of(checkout)
  assert set(found) == {
    'csdnet_jax/data', 'csdnet_jax/models', 'csdnet_jax/*.py'
  }  # fmt: skip
  tree = _git(checkout.parent, 'rev-parse', 'HEAD:csdnet_jax/data')
  assert found['csdnet_jax/data'] == tree[:12]
  assert not code.is_dirty(found)


def test_a_commit_elsewhere_changes_nothing(checkout):
  before = _of(checkout)
  (checkout / 'pictures' / 'draw.py').write_text('x = 1\n')
  (checkout.parent / 'README.md').write_text('Read.\n')
  (checkout / 'data' / 'notes.txt').write_text('No code.\n')
  assert _of(checkout) == before
  _git(checkout.parent, 'add', 'README.md', 'csdnet_jax/pictures')
  _git(checkout.parent, 'commit', '-qm', 'Two.')
  assert _of(checkout) == before


@pytest.mark.parametrize('change', ['edit', 'add', 'remove', 'stage'])
def test_what_no_commit_has_is_marked_and_told_apart(checkout, change):
  before, path = _of(checkout), checkout / 'data' / 'augment.py'
  if change == 'remove':
    path.unlink()
    (checkout / 'data' / 'other.py').write_text('')
  else:
    path = checkout / 'data' / 'new.py' if change == 'add' else path
    path.write_text('x = 1\n')
  if change == 'stage':
    _git(checkout, 'add', '-A')
  status = _git(checkout, 'status', '--porcelain')
  found = _of(checkout)
  changed = {key for key in found if found[key] != before[key]}
  assert changed == {'csdnet_jax/data'} and code.is_dirty(found)
  assert found['csdnet_jax/data'].endswith('+dirty')
  assert _of(checkout) == found
  assert _git(checkout, 'status', '--porcelain') == status
  (checkout / 'data' / 'more.py').write_text('y = 2\n')
  more = _of(checkout)['csdnet_jax/data']
  assert more.endswith('+dirty') and more != found['csdnet_jax/data']
  # Committed, it has the hash that it had.
  (checkout / 'data' / 'more.py').unlink()
  _git(checkout, 'add', '-A')
  _git(checkout, 'commit', '-qm', 'Two.')
  after = _of(checkout)['csdnet_jax/data']
  assert after == found['csdnet_jax/data'].removesuffix('+dirty')


def test_what_git_ignores_is_no_code(checkout):
  before = _of(checkout)
  (checkout / 'data' / 'ignored.py').write_text('x = 1\n')
  assert _of(checkout) == before


def test_neither_index_nor_objects_of_the_user_change(checkout):
  (checkout / 'step.py').write_text('x = 1\n')
  git = checkout.parent / '.git'

  def files():
    return {p: p.read_bytes() for p in git.rglob('*') if p.is_file()}

  before = files()
  _of(checkout)
  assert files() == before


def test_a_hook_s_variables_lead_nowhere(checkout, tmp_path, monkeypatch):
  before = _of(checkout)
  monkeypatch.setenv('GIT_DIR', str(tmp_path / 'none'))
  monkeypatch.setenv('GIT_INDEX_FILE', str(tmp_path / 'index'))
  assert _of(checkout) == before


def test_a_wheel_is_its_version_in_whatever_repository_it_lies(checkout):
  site = checkout.parent / '.venv' / 'site-packages'
  _write(site / 'csdnet_jax')
  (site / 'csdnet_jax-0.1.0.dist-info').mkdir()
  version = importlib.metadata.version('csdnet_jax')
  assert _of(site / 'csdnet_jax') == {'csdnet_jax': version}
  assert not code.is_dirty(_of(site / 'csdnet_jax'))


def test_without_git_the_files_themselves_count(checkout, monkeypatch):
  monkeypatch.setenv('PATH', '')
  first = _of(checkout)
  assert list(first) == ['csdnet_jax'] and code.is_dirty(first)
  (checkout / 'pictures' / 'draw.py').write_text('x = 1\n')
  assert _of(checkout) == first
  (checkout / 'models' / 'vit.py').write_text('x = 1\n')
  assert _of(checkout) != first


def test_modules_from_outside_are_told_by_their_source(tmp_path, monkeypatch):
  (tmp_path / 'my_loss.py').write_text('SPEC = 1\n')
  (tmp_path / 'my_net').mkdir()
  (tmp_path / 'my_net' / '__init__.py').write_text('SPEC = 2\n')
  (tmp_path / 'my_net' / 'block.py').write_text('x = 1\n')
  monkeypatch.syspath_prepend(tmp_path)
  ours = code.of_code()
  first = code.of_code(['my_net', 'my_loss'])
  assert ours.items() < first.items() and {'my_loss', 'my_net'} <= set(first)
  (tmp_path / 'my_net' / 'block.py').write_text('x = 2\n')
  second = code.of_code(['my_loss', 'my_net'])
  assert second['my_loss'] == first['my_loss']
  assert second['my_net'] != first['my_net']
  with pytest.raises(UserError, match='module my_los has no source'):
    code.of_code(['my_los'])
