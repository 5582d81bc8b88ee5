"""The code that makes a run's figures, told by hashes.

A run notes them at each start (`environment.json`), so that nobody averages
what different code has made. They are those of git's trees, as the folders lie
on the disk: a commit elsewhere in the repository changes none of them.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Iterable, Mapping

from csdnet_jax.runtime.errors import UserError

_PACKAGE = pathlib.Path(__file__).parents[1]
_FOLDERS = ('data', 'evaluation', 'methods', 'models', 'tasks', 'training')
_FILES = ('config', 'memory', 'optim', 'sharding', 'state', 'step')
_DIRTY = '+dirty'
# They would lead git elsewhere, as inside a hook.
_OF_GIT = (
  'GIT_DIR', 'GIT_WORK_TREE', 'GIT_INDEX_FILE', 'GIT_PREFIX', 'GIT_COMMON_DIR',
  'GIT_OBJECT_DIRECTORY', 'GIT_ALTERNATE_OBJECT_DIRECTORIES',
)  # fmt: skip


def of_code(modules: Iterable[str] = ()) -> dict[str, str]:
  """Returns {what: hash} of the code that makes figures.

  Args:
    modules: from outside this package, by name, see `config.outside`.

  Returns:
    In a git checkout the first 12 digits of the tree of each folder that makes
    figures and, as one, of the files beside them; what is not as the commit has
    it ends in '+dirty'. Of an installed wheel the version alone. Where neither
    is known, the version, a hash of the files, and '+dirty'. Of each module the
    first 12 digits of its source's SHA-256. The package's own are found once a
    process.

  Raises:
    UserError: for a module without a source.
  """
  return dict(_of_package(_PACKAGE)) | {
    name: _of_module(name) for name in sorted(modules)
  }


def is_dirty(code: Mapping[str, str]) -> bool:
  """Whether some of what `of_code` gives is in no commit."""
  return any(value.endswith(_DIRTY) for value in code.values())


def of_data(*parts) -> str:
  """Returns 8 hexadecimal digits of plain data."""
  text = json.dumps(parts, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]


@functools.cache
def _of_package(package: pathlib.Path) -> Mapping[str, str]:
  name = package.name
  if trees := _trees(package):
    committed, there = (_entries(name, tree) for tree in trees)
    return {
      key: value + _DIRTY * (committed.get(key) != value)
      for key, value in there.items()
    }
  try:
    version = importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    version = 'unknown'
  if any(package.parent.glob(f'{name}-*.dist-info')):
    return {name: version}
  files = [x for x in package.glob('*.py') if x.stem in _FILES]
  files += [x for folder in _FOLDERS for x in (package / folder).rglob('*.py')]
  return {name: f'{version}-{_of_files(package, files)}{_DIRTY}'}


def _entries(name: str, tree: Mapping[str, str]) -> dict[str, str]:
  """A package's tree, {file or folder: hash}, by what makes figures."""
  found = {f'{name}/{x}': tree[x][:12] for x in _FOLDERS if x in tree}
  files = [tree.get(f'{file}.py') for file in _FILES]
  digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
  return found | {f'{name}/*.py': digest[:12]}


def _trees(package: pathlib.Path) -> tuple[dict, dict] | None:
  """{file or folder: hash} of a package, as committed and as on the disk.

  None if no git repository that git can read tracks it: it may lie ignored
  inside that of somebody else.
  """
  env = {k: v for k, v in os.environ.items() if k not in _OF_GIT}

  def git(*arguments: str) -> str:
    # No daemon, and none of the user's hooks.
    command = ('git', '-c', 'core.fsmonitor=false',
               '-c', f'core.hooksPath={os.devnull}', *arguments)  # fmt: skip
    return subprocess.run(
      command, cwd=package, env=env, check=True, capture_output=True,
      encoding='utf-8',
    ).stdout  # fmt: skip

  def tree(name: str) -> dict[str, str]:
    lines = git('ls-tree', name).splitlines()
    heads, names = zip(*(line.split('\t') for line in lines), strict=True)
    return dict(zip(names, (head.split()[2] for head in heads), strict=True))

  try:
    git('ls-files', '--error-unmatch', 'step.py')
    objects = package / git('rev-parse', '--git-path', 'objects').strip()
    committed = tree('HEAD')
    # The user's index and objects stay as they are.
    with tempfile.TemporaryDirectory() as scratch:
      env['GIT_ALTERNATE_OBJECT_DIRECTORIES'] = str(objects)
      env['GIT_OBJECT_DIRECTORY'] = scratch
      env['GIT_INDEX_FILE'] = os.path.join(scratch, 'index')
      git('read-tree', 'HEAD')
      git('add', '-A', '--', '*.py')
      return committed, tree(git('write-tree').strip())
  except (OSError, ValueError, subprocess.CalledProcessError):
    return None


def _of_module(name: str) -> str:
  """The hash of a module's source; of a package that of all its sources."""
  spec = importlib.util.find_spec(name)
  if spec is None or not spec.has_location:
    raise UserError(f'The module {name} has no source file; give it one.')
  path = pathlib.Path(spec.origin)
  if spec.submodule_search_locations is None:
    return _of_files(path.parent, [path])
  return _of_files(path.parent, path.parent.rglob('*.py'))


def _of_files(folder: pathlib.Path, files: Iterable[pathlib.Path]) -> str:
  digest = hashlib.sha256()
  for path in sorted(files):
    digest.update(f'{path.relative_to(folder).as_posix()}\n'.encode())
    digest.update(path.read_bytes())
  return digest.hexdigest()[:12]
