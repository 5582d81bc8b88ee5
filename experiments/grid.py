"""What a grid is made of: override dicts, and what joins them.

A grid is a function of the config that its points start from. It yields one
dict for each arm, `{'method.csdnet.queue': 0}`; the first is its baseline. What
a reader calls an arm goes along under ARM (`named`), and products join it; an
arm without a name is called by what it sets.

>>> queues = [{'queue': 0}, {'queue': 64}]
>>> list(product(queues, seeds(2)))[1]
{'queue': 0, 'seed': 1}
>>> list(zip_(queues, [{'margin': 0.2}, {'margin': 0.4}]))[1]
{'queue': 64, 'margin': 0.4}
>>> list(chain(queues, [{'queue': 256}]))[2]
{'queue': 256}
>>> no_ddl = named('without DDL', {'alpha': 0.0})
>>> list(product([named('CSDNet', {'name': 'csdnet'})], [no_ddl]))
[{'name': 'csdnet', 'arm': 'CSDNet, without DDL', 'alpha': 0.0}]
"""

import importlib
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import ml_collections

from csdnet_jax import methods
from csdnet_jax.config import LOGGING_KEYS, NAMED, validate
from csdnet_jax.models.weights import published
from csdnet_jax.runtime import plugins
from csdnet_jax.runtime.code import of_data
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.fields import flat, nearest
from csdnet_jax.training.command_line import resolve

Overrides = dict[str, Any]
ARM = 'arm'  # The key of an arm's name: no field of a config.
SPLIT = 'data.split_seed'
# What the runs of the other task never read.
_ONLY = {
  'classification': ('views', 'init_head', 'model.freeze_bn'),
  'segmentation': (
    'crops', 'evaluation', 'teacher', 'data.resize', 'model.width'
  ),
}  # fmt: skip


class Grid(NamedTuple):
  """A question, as runs that answer it.

  Attributes:
    arms: `(config) -> override dicts`, the first of them the baseline.
    config: the file that the points start from.
    seeds: each arm runs with seeds 0 to seeds - 1.
    part: of the images, by which its arms are judged: 'test', or 'val', the
      validation part of train, if it chooses what is then tested.
  """

  arms: Callable[[ml_collections.ConfigDict], Iterable[Overrides]]
  config: str = 'configs/folder.py'
  seeds: int = 5
  part: str = 'test'


class Point(NamedTuple):
  """One run of a grid.

  Attributes:
    grid: the grid's name, such as 'components'.
    arm: what is done, in words, without the seed and the data.
    baseline: the arm that the others are compared with.
    part: of the images, by which it is judged.
    overrides: the fields that the grid sets in this point.
    seed: of the run.
    set: the name of the data set.
    hash: 8 hexadecimal digits of the resolved config, see `identity`.
    name: of the workdir: the slug of all overrides, and the hash.
    arguments: `--config=...` and all overrides, for `csdnet_jax.main`.
  """

  grid: str
  arm: str
  baseline: str
  part: str
  overrides: tuple[str, ...]
  seed: int
  set: str
  hash: str
  name: str
  arguments: tuple[str, ...]

  def command(self, workdir: pathlib.Path, python: str = 'python') -> list[str]:
    """Returns the command that runs the point in `workdir/name`."""
    where = f'--workdir={workdir / self.name}'
    return [python, '-m', 'csdnet_jax.main', *self.arguments, where]


def product(*grids: Iterable[Overrides]) -> Iterator[Overrides]:
  """Every combination; the last grid varies fastest and overrides last."""
  return map(_merge, itertools.product(*map(list, grids)))


def zip_(*grids: Iterable[Overrides]) -> Iterator[Overrides]:
  """Side by side; a ValueError if one is longer than another."""
  return map(_merge, zip(*grids, strict=True))


def chain(*grids: Iterable[Overrides]) -> Iterator[Overrides]:
  """One after the other."""
  return itertools.chain(*grids)


def seeds(n: int, *, splits: bool = False) -> Iterator[Overrides]:
  """Seeds 0 to n - 1, each with a split of its own where it is asked."""
  for i in range(n):
    yield {SPLIT: i, 'seed': i} if splits else {'seed': i}


def field(key: str, values: Iterable[Any]) -> Iterator[Overrides]:
  """One field over its values; the values of `data` fields name no arm."""
  for value in values:
    overrides = {key: value}
    words = f'{key.rpartition(".")[2]} {_text(value, " to ")}'
    yield overrides if key.startswith('data.') else named(words, overrides)


def named(words: str, overrides: Overrides) -> Overrides:
  """Overrides with what a reader calls them."""
  return overrides | {ARM: words}


def _merge(parts: Iterable[Overrides]) -> Overrides:
  parts = list(parts)
  merged = {key: value for part in parts for key, value in part.items()}
  words = [part[ARM] for part in parts if ARM in part]
  return merged | {ARM: ', '.join(words)} if words else merged


def _text(value, between: str) -> str:
  """A value of a field: numbers as short as they are, pairs joined."""
  values = value if isinstance(value, tuple) else (value,)
  return between.join(
    f'{v:g}' if isinstance(v, float) else str(v) for v in values
  )


def slug(overrides: Overrides) -> str:
  """A name that a file may have.

  >>> slug({'method.name': 'csdnet', 'method.csdnet.hidden': (0.1, 0.3)})
  'csdnet_hidden-0.1-0.3'
  """
  words = []
  for key, value in overrides.items():
    text = _text(value, '-').replace('/', '-').lower()
    last = key.rpartition('.')[2]
    words.append(text if last == 'name' else f'{last}-{text}')
  return '_'.join(words)


def _called(overrides: Overrides) -> str:
  """What an arm without a name is called; that of its set is said beside it."""
  unsaid = ('data.name', 'data.root', ARM)
  own = {key: value for key, value in overrides.items() if key not in unsaid}
  return slug(own) or 'baseline'


def find(name: str) -> tuple[str, Grid]:
  """Returns a grid's own name and the grid.

  Args:
    name: 'csdnet:components' is `GRIDS['components']` of
      experiments/grids/csdnet.py; in place of 'csdnet' it may have the name of
      a module of yours that Python can import.

  Raises:
    UserError: if there is none of that name, or your module cannot be imported.
  """
  module, _, own = name.partition(':')
  ours = pathlib.Path(__file__).parent / 'grids' / f'{module}.py'
  grids, file = {}, f'experiments/grids/{module}.py'
  if module.isidentifier() and ours.exists():
    grids = importlib.import_module(f'experiments.grids.{module}').GRIDS
  elif plugins.exists(module):
    loaded = plugins.load(module, f'--grid={name}: importing {module}')
    grids, file = getattr(loaded, 'GRIDS', {}), module
  if not grids:
    raise UserError(
      f'--grid={name}: {file} holds no grids; say a file and a grid, such as '
      '--grid=csdnet:components, or a module of yours that defines GRIDS.'
    )
  if own not in grids:
    raise UserError(
      f'--grid={name}: {file} has no grid {own!r}; its grids are '
      f'{", ".join(grids)}.{nearest(own, grids)}'
    )
  return own, grids[own]


def expand(
  name: str,
  grid: Grid,
  arguments: Sequence[str] = (),
  *,
  seeds_of_each: int | None = None,
) -> list[Point]:
  """Returns the points of a grid, checked, those of seed 0 first.

  Args:
    name: of the grid.
    grid: to be expanded.
    arguments: `--config=FILE` in place of the grid's, and
      `--config.key=value`, which go before the grid's own overrides. With
      `--config.data.resplit=True` each seed draws its split as well.
    seeds_of_each: in place of the grid's.

  Raises:
    UserError: for a field that is unknown, of another type or out of its range;
      for one that makes two arms the same; if the grid has no arms.
  """
  if any(a.startswith('--config.seed=') for a in arguments):
    raise UserError('A grid sets config.seed; say --seeds=N for N of them.')
  if not any(a.startswith('--config=') for a in arguments):
    arguments = [f'--config={grid.config}', *arguments]
  base = resolve(arguments)
  splits = base.data.resplit
  if splits and any(a.startswith(f'--config.{SPLIT}=') for a in arguments):
    raise UserError(
      f'With config.data.resplit a grid sets config.{SPLIT}, a split for each '
      'seed; leave it out.'
    )
  arms = [{ARM: _called(x)} | x for x in grid.arms(base) or ()]
  if not arms:
    raise UserError(f'The grid {name} has no arms; let its function yield one.')
  points, arm_of = [], {}
  n = grid.seeds if seeds_of_each is None else seeds_of_each
  if n < 1:
    raise UserError(f'--seeds={n}: say 1 or more.')
  for overrides in product(seeds(n, splits=splits), arms):
    for key in (SPLIT, 'seed') if splits else ('seed',):
      overrides[key] = overrides.pop(key)  # Last in the name.
    arm = overrides.pop(ARM)
    flags_ = [f'--config.{key}={value}' for key, value in overrides.items()]
    whole = (*arguments, *flags_)
    config = resolve(whole)
    validate(config)
    digest = of_data(set_of(config), identity(config))
    points.append(
      Point(
        name, arm, arms[0][ARM], grid.part, tuple(overrides), config.seed,
        set_of(config), digest, f'{slug(overrides)}-{digest}', whole,
      )
    )  # fmt: skip
    if digest in arm_of:
      raise UserError(
        f'With what you have set {arm_of[digest]!r} and {arm!r} are the same '
        'run; leave out what the grid itself sweeps.'
      )
    arm_of[digest] = arm
  return points


def set_of(config) -> str:
  """The name of the data set, without the path of this machine."""
  if config.data.source == 'leaves':
    return 'leaves'
  return config.data.name or pathlib.Path(config.data.root).name


def identity(config) -> dict[str, Any]:
  """The flat config without what changes no figure of the run.

  That is paths, logging, what other methods, networks and sources than the
  chosen ones have as fields of their own, and what the other task reads. Of a
  table, a teacher and initial weights the name of the folder or file counts, as
  of a data set.
  """
  fields = flat(config.to_dict())
  # Whose own fields, such as `method.csdnet.*`, are read.
  chosen = {
    named.part: {plugins.section(named.of(config))} for named in NAMED.values()
  }
  chosen['model'].add(plugins.section(config.teacher.model))
  # These decide which images there are before a run has its parts.
  decide = 'data.table', 'data.unreadable'
  unread = [key for key in LOGGING_KEYS if key not in decide]
  for task, keys in _ONLY.items():
    unread += keys if task != methods.task(config) else ()

  def is_read(key: str) -> bool:
    part, *own = key.split('.')
    if len(own) > 1 and part in chosen and own[0] not in chosen[part]:
      return False
    return not any(key == k or key.startswith(k + '.') for k in unread)

  fields = {key: value for key, value in fields.items() if is_read(key)}
  fields['init_from'] = published.modern(
    fields['init_from'], fields['model.name']
  )
  for key in ('init_from', 'teacher.run', 'teacher.weights', 'data.table'):
    if key in fields:
      fields[key] = pathlib.PurePath(fields[key]).name
  return fields
