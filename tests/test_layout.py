"""The house: rooms import downwards, no circle, files of a readable length."""

import ast
import graphlib
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / 'csdnet_jax'

# From the ground up; rooms of one floor do not import each other.
FLOORS = [
  {'runtime'},
  {'memory', 'sharding', 'state'},
  {'checkpoint', 'data', 'optim'},
  {'models'},
  {'methods'},
  {'config', 'evaluation'},
  {'step'},
  {'pictures'},
  {'tasks'},
  {'training'},
  {'inference'},
  {'__init__', '__main__'},
  {'main'},
]
# The maths, which outsiders import: of JAX alone.
MATHS = (
  'memory', 'methods/losses', 'methods/csdnet/ssdp', 'methods/csdnet/scene',
  'methods/csdnet/ddl', 'methods/csdnet/ssdt',
  'methods/apd/perspective', 'methods/apd/distill',
  'evaluation/metrics', 'data/resample',
)  # fmt: skip


def _modules():
  """{dotted name: path} of every file of the package."""
  names = {}
  for path in PACKAGE.rglob('*.py'):
    parts = path.relative_to(ROOT).with_suffix('').parts
    names['.'.join(parts)] = path
  return names


def _imports(path, names):
  """The files of the package that a file imports, also late.

  `import csdnet_jax` alone is none: its version is everybody's.
  """

  def file_of(module):
    return next((n for n in (module, f'{module}.__init__') if n in names), None)

  found = set()
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.ImportFrom):
      found |= {
        file_of(f'{node.module}.{alias.name}') or file_of(node.module)
        for alias in node.names
      }
    elif isinstance(node, ast.Import):
      found |= {file_of(a.name) for a in node.names if a.name != 'csdnet_jax'}
  return found - {None}


def _room(name):
  return name.split('.')[1]


def _floor(room):
  (floor,) = (i for i, rooms in enumerate(FLOORS) if room in rooms)
  return floor


def test_the_package_has_few_files_and_folders_at_its_top():
  listed = subprocess.run(
    ['git', 'ls-files', 'csdnet_jax'], cwd=ROOT, check=True,
    capture_output=True, text=True,
  ).stdout.splitlines()  # fmt: skip
  files = {path for path in listed if path.count('/') == 1}
  folders = {path.split('/')[1] for path in listed if path.count('/') > 1}
  assert len(files) <= 10, files
  assert len(folders) <= 9, folders
  rooms = {pathlib.PurePath(path).stem for path in files} | folders
  assert rooms == set().union(*FLOORS)


def test_rooms_import_downwards_only():
  names, upwards = _modules(), []
  for name, path in names.items():
    for other in _imports(path, names):
      here, there = _room(name), _room(other)
      if here != there and _floor(there) >= _floor(here):
        upwards.append(f'{name} -> {other}')
  assert not upwards


def test_no_files_import_each_other_in_a_circle():
  names = _modules()
  graph = {name: _imports(path, names) - {name} for name, path in names.items()}
  # A CycleError names the circle.
  assert list(graphlib.TopologicalSorter(graph).static_order())


def test_no_file_is_over_400_lines():
  lengths = {
    name: len(path.read_text(encoding='utf-8').splitlines())
    for name, path in _modules().items()
  }
  assert not {name: n for name, n in lengths.items() if n > 400}


def test_the_maths_imports_no_framework():
  allowed = {'jax', 'numpy', 'optax', 'functools', 'math', 'typing'}
  rooms = {'memory', 'methods', 'data'}
  for name in MATHS:
    tree = ast.parse((PACKAGE / f'{name}.py').read_text(encoding='utf-8'))
    for node in ast.walk(tree):
      if isinstance(node, ast.ImportFrom):
        modules = [node.module]
      elif isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
      else:
        continue
      for module in modules:
        first, *rest = module.split('.')
        ours = first == 'csdnet_jax' and rest and rest[0] in rooms
        assert first in allowed or ours, f'{name} imports {module}'


def test_only_models_see_flax_modules():
  for name, path in _modules().items():
    if _room(name) != 'models':
      assert 'flax.linen' not in path.read_text(encoding='utf-8'), name
      assert 'from flax import linen' not in path.read_text(encoding='utf-8'), (
        name
      )
