"""Digests of the code that makes a run's figures.

A run notes them at each start (`environment.json`), so that nobody averages
what different code has made.
"""

import ast
import functools
import hashlib
import inspect
import json
import pathlib

from csdnet_jax import methods, models

_PACKAGE = pathlib.Path(__file__).parents[1]
# What decides figures whatever is trained; docstrings and comments aside.
_MODULES = (
  'memory', 'optim', 'sharding', 'state', 'step', 'data/augment',
  'data/decode', 'data/leaves', 'data/images/pipeline', 'data/images/splits',
  'evaluation/accuracy', 'evaluation/metrics', 'evaluation/probes',
  'methods/base', 'methods/losses',
)  # fmt: skip
_OF_SEGMENTATION = (
  'optim', 'sharding', 'state', 'step', 'data/augment', 'data/cache',
  'data/decode', 'data/resample', 'data/images/pipeline', 'data/masks/layouts',
  'data/masks/pairs', 'evaluation/metrics', 'evaluation/windows',
  'methods/base', 'methods/losses',
)  # fmt: skip


def of_code(config) -> dict[str, str]:
  """Returns {module: digest} of the code that makes a config's figures.

  Other methods and networks do not count, so that writing one leaves these
  comparable; nor does what loads weights and files, which tests hold fixed.
  """
  method = pathlib.Path(
    methods.find(config.method.name).make.__code__.co_filename
  )
  own = [method] if method.parent.name == 'methods' else method.parent.glob('*')
  segments = methods.task(config) == 'segmentation'
  names = _OF_SEGMENTATION if segments else _MODULES
  paths = [_PACKAGE / f'{name}.py' for name in names]
  paths += sorted(path for path in own if path.suffix == '.py')
  network = pathlib.Path(inspect.getfile(models.find(config.model.name).net))
  paths += sorted(_built_on(network))
  return {
    path.relative_to(_PACKAGE).with_suffix('').as_posix(): of_source(
      path.read_text(encoding='utf-8')
    )
    for path in paths
  }


@functools.cache
def _built_on(path: pathlib.Path) -> frozenset[pathlib.Path]:
  """A network's file and those of `models/` that it imports, directly or not.

  Not the list of all networks, to which others may be added.
  """
  names = set()
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.ImportFrom) and node.module:
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
      names.add(node.module)
  found = {path}
  for name in names:
    head, _, own = name.rpartition('.')
    other = path.with_name(f'{own}.py')
    if head == 'csdnet_jax.models' and other.exists():
      found |= _built_on(other)
  return frozenset(found)


@functools.lru_cache(256)
def of_source(source: str) -> str:
  """Returns 8 hexadecimal digits of what a Python source does.

  >>> of_source('x = 1  # One.') == of_source('x = (1)')
  True
  >>> of_source('x = 1') == of_source('x = 2')
  False
  """
  tree = ast.parse(source)
  for node in ast.walk(tree):
    body = getattr(node, 'body', None)
    if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
      text = body[0].value
      if isinstance(text, ast.Constant) and isinstance(text.value, str):
        body.pop(0)
  return of_data(ast.dump(tree))


def of_data(*parts) -> str:
  """Returns 8 hexadecimal digits of plain data."""
  text = json.dumps(parts, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]
