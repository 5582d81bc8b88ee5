"""What is kept of a finished point: one line of JSON.

Beside the config and the summary a line holds what makes averaging honest: a
digest of each module that makes figures, and for each evaluated image whether
it was right, as bits in the order of the images' names, or its pixels (see
`pixels`).
"""

import ast
import csv
import functools
import json
import pathlib
import re

import numpy as np

import csdnet_jax
from csdnet_jax import build, config as config_lib, methods, models
from csdnet_jax.errors import UserError
from csdnet_jax.tasks import classification, segmentation
from experiments import pixels
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
_OF_SEGMENTATION = (
  'augment', 'metrics', 'optim', 'resample', 'sharding', 'state', 'step',
  'data/cache', 'data/decode', 'data/pairs', 'data/pipeline',
  'data/segmentation', 'evaluators/segmentation', 'methods/base',
  'methods/cosine', 'methods/distill',
)  # fmt: skip
# Paths of the machine are nobody else's business.
_PATHS = re.compile(
  r'(--config\.(?:data\.(?:root|cache)|teacher\.(?:run|weights))|--workdir)=\S+'
)


def code_of(config) -> dict[str, str]:
  """Returns {module: digest} of the code that makes a config's figures.

  Other methods and networks do not count, so that writing one leaves these
  comparable.
  """
  own = _PACKAGE / 'methods' / config.method.name
  segments = methods.task(config) == 'segmentation'
  names = _OF_SEGMENTATION if segments else _MODULES
  paths = [_PACKAGE / f'{name}.py' for name in names]
  paths += sorted(own.glob('*.py')) or [own.with_suffix('.py')]
  network = pathlib.Path(models.module_of(config.model.name).__file__)
  paths += sorted(_built_on(network))
  return {
    path.relative_to(_PACKAGE).with_suffix('').as_posix(): _digest(path)
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
    'n_train': len(load(workdir / 'split.json')['train']),
  }
  for part, name in classification.PREDICTIONS.items():
    if (workdir / name).exists():
      row[part] = correctness(workdir / name)
  for part, name in segmentation.COUNTS.items():
    if (workdir / name).exists():
      row[part] = pixels.pack(workdir / name)
  if (workdir / 'teacher.json').exists():
    row['teacher'] = load(workdir / 'teacher.json')['sha256']
  row |= {
    'summary': summary,
    'seconds': round(sum(start['seconds'] for start in starts), 1),
    'command': _PATHS.sub(r'\1=...', starts[0]['command'].partition(' -m ')[2]),
    'devices': starts[0]['devices'],
    'packages': starts[0]['packages'],
  }
  return row


def again(point: Point, rows: list[dict], code: dict[str, str]) -> dict | None:
  """Returns the line of a point that was run already, as part of another.

  Two points are the same run if their configs are, once fitted to the train
  set: another grid has the same arm, or a queue is longer than what is used.

  Args:
    point: that is about to be run.
    rows: of all grids.
    code: `code_of` the point.
  """
  config = resolve(point.arguments)
  own = identity(config)
  data = {key: own[key] for key in own if key.startswith('data.')}
  for row in rows:
    same = row['set'], row['seed'], row['code']
    if same != (point.set, point.seed, code) or 'n_train' not in row:
      continue
    theirs = config_lib.from_flat(row['config'] | {'seed': row['seed']})
    theirs = identity(theirs)
    if data.items() <= theirs.items() and (
      _fitted(own, row['n_train']) == _fitted(theirs, row['n_train'])
    ):
      own.pop('seed')
      return row | {
        'grid': point.grid, 'arm': point.arm, 'baseline': point.baseline,
        'overrides': list(point.overrides), 'hash': point.hash, 'config': own,
      }  # fmt: skip
  return None


def _fitted(fields: dict, n_train: int) -> dict:
  config = config_lib.from_flat(fields)
  build.fit(config, n_train)
  return identity(config)


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


def of_images(row: dict, part: str) -> np.ndarray | None:
  """What a line holds of the images of a part, or None.

  Returns:
    float64 [n], 100 where an image is right; or `pixels.unpack`'s.
  """
  if part not in row:
    return None
  kept = row[part]
  return pixels.unpack(kept) if 'counts' in kept else 100.0 * bits(kept)


def headline(summary: dict) -> tuple[str, float]:
  """Returns what a run is judged by, and its value in percent."""
  task = segmentation if segmentation.FIGURE in summary else classification
  return task.NAME, summary[task.FIGURE]


def read(path: pathlib.Path) -> list[dict]:
  """Returns the lines of a file of results; none if it is absent.

  Raises:
    UserError: for a line that is not one of ours.
  """
  if not path.exists():
    return []
  rows = []
  for i, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
    try:
      row = json.loads(line)
      if not {'arm', 'config', 'summary'} <= row.keys():
        raise KeyError('it lacks an arm, a config or a summary')
      rows.append(row)
    except (TypeError, ValueError, KeyError) as error:
      raise UserError(
        f'Line {i} of {path} is no result ({error}); remove it.'
      ) from error
  return rows


def load(path: pathlib.Path):
  """Reads a JSON file."""
  return json.loads(path.read_text(encoding='utf-8'))


def append(path: pathlib.Path, row: dict) -> None:
  """Appends a line, whole or not at all as far as one write goes."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, 'a', encoding='utf-8') as file:
    file.write(json.dumps(row) + '\n')
