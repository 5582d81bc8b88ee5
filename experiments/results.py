"""What is kept of a finished point: one line of JSON.

Beside the config and the summary a line holds what makes averaging honest:
hashes of the code that makes figures, and for each evaluated image whether it
was right, as bits in the order of the images' names, or its pixels (see
`pixels`). Lines that were made before there were such hashes name a commit.
"""

import csv
import functools
import json
import os
import pathlib
import shlex
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from csdnet_jax import tasks
from csdnet_jax.config import from_flat, from_json, outside
from csdnet_jax.runtime.code import is_dirty, of_code, of_data
from csdnet_jax.runtime.errors import UserError, first_line
from csdnet_jax.runtime.terminal import say
from csdnet_jax.tasks import classification, kept, segmentation
from csdnet_jax.training.fit import fit
from experiments import pixels, uncut
from experiments.grid import Point, identity, resolve, set_of

RESULTS = pathlib.Path(__file__).parent / 'results'
# What every line has.
_KEYS = {
  'grid', 'arm', 'baseline', 'overrides', 'set', 'seed', 'config', 'code',
  'summary', 'seconds', 'command', 'devices', 'packages',
}  # fmt: skip
# Paths of the machine are nobody else's business.
_PATHS = (
  'workdir', 'config.data.root', 'config.data.table', 'config.data.cache',
  'config.teacher.run', 'config.teacher.weights', 'config.init_from',
)  # fmt: skip


def record(point: Point, workdir: pathlib.Path) -> dict:
  """Returns the line of a finished point, as it is read again.

  Args:
    point: that was run.
    workdir: of its run, which is finished.

  Raises:
    UserError: if different code began and continued it, or it has no part that
      its grid is judged by.
  """
  summary, environment = (
    load(workdir / f'{name}.json') for name in ('summary', 'environment')
  )
  # As given: in the workdir's own some fields are fitted to the train set.
  config = resolve(point.arguments)
  starts = environment['starts']
  command = starts[0]['command']
  if 'together' in starts[0]:
    # What runs the point alone, which says more than the process of many.
    command = shlex.join(point.command(workdir.parent))
  fields = identity(config)
  fields.pop('seed')
  split = load(workdir / 'split.json')
  _require_part(point, split)
  row = {
    'grid': point.grid,
    'arm': point.arm,
    'baseline': point.baseline,
    'part': point.part,
    'overrides': list(point.overrides),
    'set': set_of(config),
    'seed': point.seed,
    'hash': point.hash,
    'config': fields,
    'code': code_of(workdir),
    'split': _parts(split),
    'n_train': len(split['train']),
  }
  for part, name in kept.PREDICTIONS.items():
    if (workdir / name).exists():
      row[part] = correctness(workdir / name, split['class_names'])
      if groups := uncut.groups_of(config):
        row[part] |= uncut.known(workdir / name, split, groups, part)
  for part, name in segmentation.COUNTS.items():
    if (workdir / name).exists():
      row[part] = pixels.pack(workdir / name)
  if (workdir / 'teacher.json').exists():
    row['teacher'] = load(workdir / 'teacher.json')['sha256']
  if 'together' in starts[0]:
    row['together'] = starts[0]['together']
  row |= {
    'summary': summary,
    'seconds': round(sum(start['seconds'] for start in starts), 1),
    'command': _without_paths(command.partition(' -m ')[2]),
    'devices': starts[0]['devices'],
    'packages': starts[0]['packages'],
  }
  return json.loads(json.dumps(row))


def _without_paths(command: str) -> str:
  kept, flag = [], ''
  for word in shlex.split(command):
    value = word
    if word.startswith('-'):
      flag, _, value = word.lstrip('-').partition('=')
    if (flag in _PATHS and '/' in value) or value.startswith(('/', '~')):
      word = f'{word.removesuffix(value)}...'
    kept.append(word)
  return shlex.join(kept)


def code_of(workdir: pathlib.Path) -> dict[str, str] | None:
  """Returns the hashes of the code that made a run; None if it never started.

  Raises:
    UserError: if different code began and continued it.
  """
  path = workdir / 'environment.json'
  if not path.exists():
    return None
  starts = load(path)['starts']
  if not starts:
    return None
  first, *others = (start.get('code', {}) for start in starts)
  for other in others:
    require_same_code(workdir, first, other)
  return first


def code_now(config) -> dict[str, str]:
  """Returns the hashes of the code that would make a run of a config now."""
  modules = outside(config.to_dict())
  return of_code(modules.values())


def require_same_code(workdir, begun: dict, now: dict) -> None:
  """Raises a UserError if a run was begun by other code than this."""
  if changed := changes(begun, now):
    raise UserError(
      f'{workdir} was begun by other code ({changed}); remove it, or choose '
      'another --workdir.'
    )


def changes(one: dict[str, str], other: dict[str, str]) -> str:
  """Returns the first thing that tells one code from another, or ''."""
  for name in sorted(one.keys() | other.keys()):
    pair = [code.get(name, 'not known') for code in (one, other)]
    if pair[0] != pair[1]:
      return f'{name}: {" and ".join(pair)}'
  return ''


def of_package(code: dict[str, str]) -> dict[str, str]:
  """Returns of a line's code what is no module from outside the package."""
  return {
    name: value
    for name, value in code.items()
    if name == 'commit' or name.partition('/')[0] == 'csdnet_jax'
  }


def made_by(code: dict[str, str]) -> str:
  """Returns what a reader must know of the code of a line, or ''."""
  if commit := code.get('commit'):
    return f'commit {commit}'
  return 'code that no commit holds' if is_dirty(code) else ''


def _parts(split: dict) -> str:
  """The digest of what is in which part, by name.

  Not of the bytes: another version of Pillow draws the same leaves in others.
  """
  content = ('digests', 'prints')
  return of_data({k: v for k, v in split.items() if k not in content})


class Sizes(NamedTuple):
  """How large a split is: what runs of one program have in common.

  Attributes:
    classes: their names.
    parts: (part, images of it).
  """

  classes: tuple[str, ...]
  parts: tuple[tuple[str, int], ...]


def split_of(config) -> tuple[str, int]:
  """Returns the digest of a config's split, and its training images.

  Raises:
    UserError: if the data cannot be read.
  """
  digest, sizes = _split_of(_read_of(config))
  return digest, dict(sizes.parts)['train']


def sizes_of(config) -> Sizes:
  """Returns how large a config's split is.

  Raises:
    UserError: if the data cannot be read.
  """
  return _split_of(_read_of(config))[1]


def _read_of(config) -> str:
  fields = {'method': {'name': config.method.name}}
  return json.dumps(fields | {'data': config.data.to_dict()})


def require_judged(point: Point) -> None:
  """Refuses a point whose config leaves nothing to judge it by.

  Raises:
    UserError: if its data have no such part, or cannot be read.
  """
  _require_part(point, dict(sizes_of(resolve(point.arguments)).parts))


def _require_part(point: Point, parts) -> None:
  if point.part not in parts:
    field, like = {
      'test': ('test_fraction', 0.5),
      'val': ('val_fraction', 0.34),
    }[point.part]
    raise UserError(
      f'The grid {point.grid} is judged by the {point.part} part, which the '
      f'data of {point.arm!r} (seed {point.seed}) do not have; set '
      f'--config.data.{field}={like}, or bring data with such a part.'
    )


# Hundreds of points share a set, which is slow to list on some disks.
@functools.lru_cache
def _split_of(fields: str) -> tuple[str, Sizes]:
  config = from_json(fields)
  task = tasks.of(config)
  split = task.split_of(task.load(config))
  parts = tuple(
    (part, len(split[part])) for part in ('train', 'val', 'test')
    if part in split
  )  # fmt: skip
  return _parts(split), Sizes(tuple(split['class_names']), parts)


def find(point: Point, rows: list[dict]) -> dict | None:
  """Returns the line of a point that was run already, in whatever grid.

  Two points are the same run if their images, their code and their configs
  are, once fitted to the train set: another grid has the same arm, or a queue
  is longer than what is used. What no commit holds is never the same.

  Args:
    point: that is about to be run.
    rows: of all grids.

  Raises:
    UserError: if its data cannot be read, or are too few for its config.
  """
  config = resolve(point.arguments)
  code, (split, n_train) = code_now(config), split_of(config)
  if is_dirty(code):
    return None
  fitted = _fitted(config, n_train)
  for row in rows:
    same = row['seed'], row['code'], row.get('split')
    if same == (point.seed, code, split):
      theirs = from_flat(row['config'] | {'seed': row['seed']})
      if fitted == _fitted(theirs, n_train):
        return row
  return None


def taken(point: Point, row: dict) -> dict:
  """Returns the line of a point from that of the same run in another arm."""
  fields = identity(resolve(point.arguments))
  fields.pop('seed')
  return row | {
    'grid': point.grid, 'arm': point.arm, 'baseline': point.baseline,
    'part': point.part, 'overrides': list(point.overrides), 'set': point.set,
    'hash': point.hash, 'config': fields, 'same_as': row['arm'],
  }  # fmt: skip


def _fitted(config, n_train: int) -> dict:
  return identity(fit(config, n_train)[0])


def correctness(path: pathlib.Path, class_names: list[str]) -> dict:
  """Returns which images of a `predictions.csv` are right.

  Args:
    path: of the table.
    class_names: of the run, by label.

  Returns:
    n: images.
    images: a digest of their names and labels, as numbers, sorted by name.
    correct: as hexadecimal digits, a bit for each image in that order, the
      first image the highest bit of the first byte.
  """
  with open(path, newline='', encoding='utf-8') as file:
    rows = sorted(csv.DictReader(file), key=lambda row: row['path'])
  right = np.array([row['label'] == row['class_1'] for row in rows])
  number = {name: str(i) for i, name in enumerate(class_names)}
  return {
    'n': len(rows),
    'images': of_data([[row['path'], number[row['label']]] for row in rows]),
    'correct': np.packbits(right).tobytes().hex(),
  }


def bits(part: dict, key: str = 'correct') -> np.ndarray:
  """Returns bool [n]: what `correctness` packed, or `uncut.known`."""
  packed = np.frombuffer(bytes.fromhex(part[key]), np.uint8)
  if len(packed) != -(-part['n'] // 8):
    raise ValueError(f'there are not {part["n"]} bits in {part[key]}')
  return np.unpackbits(packed, count=part['n']).astype(bool)


def of_images(row: dict, part: str, *, whole: bool = True) -> np.ndarray | None:
  """What a line holds of the images of a part, or None of a test part.

  Args:
    row: the line.
    part: 'test' or 'val'.
    whole: all of it; else the images of `uncut` classes, which it must know.

  Returns:
    float64 [n], 100 where an image is right; or `pixels.unpack`'s.

  Raises:
    UserError: if the run has no validation part and it is asked for.
  """
  if part not in row:
    if part == 'val':
      raise UserError(
        f'{row["arm"]} (seed {row["seed"]}) has no validation part; train with '
        '--config.data.val_fraction=0.34.'
      )
    return None
  kept = row[part]
  images = pixels.unpack(kept) if 'counts' in kept else 100.0 * bits(kept)
  return images if whole else images[bits(kept, 'uncut')]


def figure(images: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
  """Returns `(sums over n images, n) -> percent` of what `of_images` gives."""
  return pixels.miou if images.ndim > 1 else lambda sums, n: sums / n


def value(row: dict, images: np.ndarray | None) -> float:
  """Returns what a run is judged by, in percent, of what `of_images` gives."""
  if images is None:
    return row['summary'][_task(row).FIGURE]
  return float(figure(images)(images.sum(0), len(images)))


def name_of_figure(row: dict) -> str:
  """Returns what a run is judged by, 'top-1' or 'mIoU'."""
  return _task(row).NAME


def _task(row):
  segments = segmentation.FIGURE in row['summary']
  return segmentation if segments else classification


def read(path: pathlib.Path) -> list[dict]:
  """Returns the lines of a file of results; none if it is absent.

  Each has the config that it was made with, whatever fields there are today.

  Raises:
    UserError: for a line that is not one of ours.
  """
  if not path.exists():
    return []
  rows = []
  try:
    lines = path.read_text(encoding='utf-8').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'{path} is no file of results: {error}.') from error
  for i, line in enumerate(lines, 1):
    try:
      row = json.loads(line)
      lacks = _KEYS - row.keys()
      if lacks:
        raise KeyError(f'it lacks {", ".join(sorted(lacks))}')
      # The first lines were judged by nothing else.
      rows.append({'part': 'test'} | row)
      _require_figures(rows[-1])
    except (
      AttributeError, TypeError, ValueError, KeyError, zlib.error
    ) as error:  # fmt: skip
      raise UserError(
        f'Line {i} of {path} is no result ({first_line(error)}); remove it.'
      ) from error
  return rows


def _require_figures(row: dict) -> None:
  """Raises what a damaged line raises once its figures are used."""
  images = None
  for part in ('val', 'test'):
    if part in row:
      images = of_images(row, part)
      if not isinstance(row[part]['images'], str):
        raise ValueError(f'the images of {part} are no digest')
      if 'uncut' in row[part]:
        bits(row[part], 'uncut')
  value(row, images)
  if not row['code'] or not all(map(str.isascii, row['code'].values())):
    raise ValueError('it does not say by what code it was made')
  if 'method.name' not in row['config']:
    raise ValueError('its config is incomplete')
  if not all(map(str.isascii, row['overrides'])):
    raise ValueError('its overrides are no fields')
  if not row['seconds'] >= 0:
    raise ValueError('its seconds are no time')


def beside(path: pathlib.Path) -> list[dict]:
  """Returns the lines of the other files of results in the folder of one."""
  rows = []
  for other in sorted(path.parent.glob('*.jsonl')):
    try:
      rows += read(other) if other != path else []
    except UserError as error:
      say(f'{other.name} is left aside: {error}')
  return rows


def load(path: pathlib.Path):
  """Reads a JSON file.

  Raises:
    UserError: if it holds none.
  """
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise UserError(f'{path} cannot be read ({error}); remove it.') from error


def append(path: pathlib.Path, row: dict) -> None:
  """Appends a line, whole or not at all as far as one write goes."""
  path.parent.mkdir(parents=True, exist_ok=True)
  line = json.dumps(row).encode() + b'\n'
  with open(path, 'ab+', buffering=0) as file:
    if file.seek(0, os.SEEK_END):
      file.seek(-1, os.SEEK_END)
      # Else a line that was cut by a kill would spoil this one.
      line = line if file.read() == b'\n' else b'\n' + line
    file.write(line)
    os.fsync(file.fileno())
