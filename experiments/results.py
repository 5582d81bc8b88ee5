"""What is kept of a finished point: one line of JSON.

Beside the config and the summary a line holds what makes averaging honest: a
digest of each module that makes figures, and for each evaluated image whether
it was right, as bits in the order of the images' names.
"""

import ast
import csv
import functools
import json
import pathlib
import re

import numpy as np

import csdnet_jax
from csdnet_jax.errors import UserError
from csdnet_jax.tasks.classification import PREDICTIONS
from experiments.grid import Point, hash_of, identity, resolve, set_of

RESULTS = pathlib.Path(__file__).parent / 'results'
_PACKAGE = pathlib.Path(csdnet_jax.__file__).parent
# What decides figures whatever is trained; docstrings and comments aside.
_MODULES = (
  'augment', 'memory', 'metrics', 'optim', 'sharding', 'state', 'step',
  'data/decode', 'data/leaves', 'data/pipeline', 'data/splits',
  'evaluators/classification', 'evaluators/probes', 'methods/base',
  'methods/cosine',
)  # fmt: skip
# Paths of the machine are nobody else's business.
_PATHS = re.compile(r'(--config\.data\.(?:root|cache)|--workdir)=\S+')


def code_of(config) -> dict[str, str]:
  """Returns {module: digest} of the code that makes a config's figures.

  Other methods do not count, so that writing one leaves these comparable.
  """
  own = _PACKAGE / 'methods' / config.method.name
  paths = [_PACKAGE / f'{name}.py' for name in _MODULES]
  paths += sorted(own.glob('*.py')) or [own.with_suffix('.py')]
  # Not the list of their names, to which others may be added.
  networks = (_PACKAGE / 'models').glob('*.py')
  paths += sorted(path for path in networks if path.stem != '__init__')
  return {
    path.relative_to(_PACKAGE).with_suffix('').as_posix(): _digest(path)
    for path in paths
  }


@functools.cache
def _digest(path: pathlib.Path) -> str:
  return digest_of(path.read_text(encoding='utf-8'))


def digest_of(source: str) -> str:
  """Returns 8 hexadecimal digits of what a Python source does.

  >>> digest_of('x = 1  # One.') == digest_of('x = (1)')
  True
  >>> digest_of('x = 1') == digest_of('x = 2')
  False
  """
  tree = ast.parse(source)
  for node in ast.walk(tree):
    body = getattr(node, 'body', None)
    if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
      text = body[0].value
      if isinstance(text, ast.Constant) and isinstance(text.value, str):
        body.pop(0)
  return hash_of(ast.dump(tree))


def record(point: Point, workdir: pathlib.Path, code: dict[str, str]) -> dict:
  """Returns the line of a finished point.

  Args:
    point: that was run.
    workdir: of its run, which is finished.
    code: `code_of` the run when it started.
  """
  summary, environment = (
    load(workdir / f'{name}.json') for name in ('summary', 'environment')
  )
  # As given: in the workdir's own some fields are fitted to the train set.
  config = resolve(point.arguments)
  starts = environment['starts']
  fields = identity(config)
  fields.pop('seed')
  row = {
    'grid': point.grid,
    'arm': point.arm,
    'baseline': point.baseline,
    'overrides': list(point.overrides),
    'set': set_of(config),
    'seed': point.seed,
    'hash': point.hash,
    'config': fields,
    'code': code,
  }
  for part, name in PREDICTIONS.items():
    if (workdir / name).exists():
      row[part] = correctness(workdir / name)
  row |= {
    'summary': summary,
    'seconds': round(sum(start['seconds'] for start in starts), 1),
    'command': _PATHS.sub(r'\1=...', starts[0]['command'].partition(' -m ')[2]),
    'devices': starts[0]['devices'],
    'packages': starts[0]['packages'],
  }
  return row


def correctness(path: pathlib.Path) -> dict:
  """Returns which images of a `predictions.csv` are right.

  Returns:
    n: images.
    images: a digest of their names and labels, sorted by name.
    correct: as hexadecimal digits, a bit for each image in that order, the
      first image the highest bit of the first byte.
  """
  with open(path, newline='', encoding='utf-8') as file:
    rows = sorted(csv.DictReader(file), key=lambda row: row['image'])
  right = np.array([row['label'] == row['prediction'] for row in rows])
  return {
    'n': len(rows),
    'images': hash_of([[row['image'], row['label']] for row in rows]),
    'correct': np.packbits(right).tobytes().hex(),
  }


def bits(part: dict) -> np.ndarray:
  """Returns bool [n]: what `correctness` packed."""
  packed = np.frombuffer(bytes.fromhex(part['correct']), np.uint8)
  return np.unpackbits(packed, count=part['n']).astype(bool)


def read(path: pathlib.Path) -> list[dict]:
  """Returns the lines of a file of results; none if it is absent.

  Lines from before there were grids get an arm, and no bits.

  Raises:
    UserError: for a line that is not one of ours.
  """
  if not path.exists():
    return []
  rows = []
  for i, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
    try:
      row = json.loads(line)
      rows.append(row if 'arm' in row else row | _old(row))
    except (TypeError, ValueError, KeyError) as error:
      raise UserError(
        f'Line {i} of {path} is no result ({error}); remove it.'
      ) from error
  return rows


def _old(row: dict) -> dict:
  """What a line lacks that was written before there were grids."""
  config = row['config']
  two_arms = {'supervised': 'supervised_views-1', 'csdnet': 'csdnet'}
  return {
    'grid': 'leaves',
    'arm': two_arms[config['method.name']],
    'baseline': 'supervised_views-1',
    'overrides': [
      'method.name', 'method.csdnet.queue', 'epochs', 'eval_every',
      'optim.warmup', 'seed',
    ],
    'hash': '',
    'code': {},
  }  # fmt: skip


def load(path: pathlib.Path):
  """Reads a JSON file."""
  return json.loads(path.read_text(encoding='utf-8'))


def append(path: pathlib.Path, row: dict) -> None:
  """Appends a line, whole or not at all as far as one write goes."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, 'a', encoding='utf-8') as file:
    file.write(json.dumps(row) + '\n')
