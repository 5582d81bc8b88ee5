"""Which runs can share a program, and the numbers in which they differ.

Python reads a config while a program is traced: the method, the network, what
is left out since it is zero. Runs of one program agree in all of that. A number
that is not zero may differ in these parts of the config, and is then an
argument of the program; so are the seed, and the split as rows of the images. A
number of a method may be zero in some of them: what it weighs is computed, and
a program less to compile is worth more than that. Whole numbers are shapes.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from csdnet_jax import methods
from csdnet_jax.runtime.errors import UserError, preview
from csdnet_jax.runtime.fields import Values, flat

_MAY_DIFFER = ('ema', 'method', 'optim', 'views')
# Of them, since steps are counted by it while tracing.
_COUNTED = ('optim.warmup',)
_FREE = ('name', 'seed', 'init_head', 'data.split_seed', 'data.resplit')
# Counted in epochs: runs of unequal train sets take equally many steps in
# unequally many of them.
_IN_EPOCHS = ('epochs', 'eval_every', 'optim.warmup')
# Of the data, what decides how an image is seen.
_OF_IMAGES = ('data.canvas', 'data.test_resize', 'data.aspect')


def groups(
  configs: Sequence[ml_collections.ConfigDict], sizes: Sequence[Hashable]
) -> list[list[int]]:
  """Returns which runs can be trained in one program.

  >>> from csdnet_jax.config import default
  >>> def run(**fields):
  ...   config = default()
  ...   config.update_from_flattened_dict(fields)
  ...   return config
  >>> runs = run(), run(seed=1), run(ema=0.9), run(**{'optim.lr': 0.1})
  >>> groups(runs, [()] * 4)
  [[0, 1, 3], [2]]

  Args:
    configs: of the runs, fitted to their data.
    sizes: what else must be equal: the number of images in each part, the
      names of the classes.

  Returns:
    Indices of the runs, each once: those of a group in order, the groups in
    the order of their first runs. A run that `alone` is a group of its own.
  """
  found = {}
  for i, (config, size) in enumerate(zip(configs, sizes, strict=True)):
    key = (i,) if alone(config) else (_read_by_python(config), size)
    found.setdefault(key, []).append(i)
  return list(found.values())


def alone(config) -> str:
  """Returns why a run cannot share a program whatever the others, or ''."""
  if methods.task(config) != 'classification':
    return 'segmentation reads crops, not whole images, from the disk'
  if methods.fitted(config):
    return 'its head is fitted, and there are no steps to share'
  if config.teacher.run or config.teacher.weights:
    return 'it has a teacher'
  if config.wandb.project:
    return 'W&B follows one run of a process'
  return ''


def require_shared(configs: Sequence[ml_collections.ConfigDict]) -> None:
  """Refuses runs of which Python reads different things.

  Runs of `groups` never differ so. Those whose train sets are unequal may have
  other `epochs`, `eval_every` and `optim.warmup`.

  Args:
    configs: of the runs, fitted to their data.

  Raises:
    UserError: names what differs.
  """
  first, *others = (
    {
      key: rest
      for key, *rest in _read_by_python(config)
      if key not in _IN_EPOCHS
      and (key in _OF_IMAGES or not key.startswith('data.'))
    }
    for config in configs
  )
  differ = {
    f'config.{key}'
    for other in others
    for key in first.keys() | other.keys()
    if first.get(key) != other.get(key)
  }
  if differ:
    raise UserError(
      'Runs of one program are alike in all that decides its shapes, but these '
      f'differ in {preview(sorted(differ))}; give them one value, or train '
      'them one by one.'
    )


def differing(
  configs: Sequence[ml_collections.ConfigDict],
) -> dict[str, np.ndarray]:
  """Returns the numbers in which the runs of a group differ.

  >>> from csdnet_jax.config import default
  >>> one, other = default(), default()
  >>> other.views.area = (0.5, 1.0)
  >>> {key: x.tolist() for key, x in differing([one, other]).items()}
  {'views.area/0': [0.6700000166893005, 0.5]}

  Args:
    configs: R of them, of one of `groups`.

  Returns:
    float32 [R] under the name of each field, and the place in it.
  """
  tables = [_numbers(config) for config in configs]
  return {
    key: np.array([table[key] for table in tables], np.float32)
    for key in tables[0]
    if len({table[key] for table in tables}) > 1
  }


def with_numbers(config, numbers: Mapping[str, Any]) -> Values:
  """Returns a config with numbers of a run, which JAX may trace.

  Args:
    config: of any run of the group.
    numbers: of the run, as of `differing`.
  """
  nested = config.to_dict()
  for key, value in flat(nested).items():
    leaves, structure = jax.tree.flatten(value)
    changed = [numbers.get(f'{key}/{i}', leaf) for i, leaf in enumerate(leaves)]
    *path, last = key.split('.')
    part = nested
    for name in path:
      part = part[name]
    part[last] = jax.tree.unflatten(structure, changed)
  return Values(nested)


def _numbers(config) -> dict[str, float]:
  """{'views.area/0': 0.67} of every number that may differ."""
  return {
    f'{key}/{i}': leaf
    for key, value in flat(config.to_dict()).items()
    for i, leaf in enumerate(jax.tree.leaves(value))
    if _is_argument(key, leaf)
  }


def _read_by_python(config) -> Hashable:
  """All of a config but the numbers that may differ."""
  fields = flat(config.to_dict())
  for key in _FREE:
    del fields[key]
  return tuple(
    (key, jax.tree.structure(value), *_leaves(key, value))
    for key, value in sorted(fields.items())
  )


def _leaves(key, value):
  for leaf in jax.tree.leaves(value):
    yield '' if _is_argument(key, leaf) else repr(leaf)


def _is_argument(key: str, leaf) -> bool:
  part = key.partition('.')[0]
  may = part in _MAY_DIFFER and key not in _COUNTED
  return may and isinstance(leaf, float) and (part == 'method' or leaf != 0)
