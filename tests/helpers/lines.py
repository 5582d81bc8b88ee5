"""Lines of results that nobody ran."""

import numpy as np

from csdnet_jax.config import default
from experiments.grid import identity

IMAGES = 40
CODE = {'csdnet_jax/models': '1', 'csdnet_jax/*.py': '1'}


def first(n):
  """Right on the first n images alone."""
  return np.arange(IMAGES) < n


def judged(right):
  """What a line holds of the images of a part."""
  packed = np.packbits(np.asarray(right, bool)).tobytes().hex()
  return {'n': len(right), 'images': 'abc', 'correct': packed}


def line(arm, seed, right, *, code=CODE, set_='grape58', **fields):
  """The line of an arm under a seed, with fields of its config."""
  config = default()
  config.update_from_flattened_dict(fields)
  known = identity(config)
  known.pop('seed')
  return {
    'grid': 'made up', 'arm': arm, 'baseline': 'base', 'part': 'test',
    'set': set_, 'seed': seed,
    'overrides': ['method.csdnet.beta', 'seed', 'data.name'],
    'hash': '', 'config': known, 'code': code, 'test': judged(right),
    'summary': {'top1': 100 * np.mean(right), 'n_test': len(right)},
    'seconds': 1.0, 'command': 'x', 'devices': 'cpu', 'packages': {},
  }  # fmt: skip


def split_anew(arm, seed, right, images='', **fields):
  """A line whose seed has drawn its split, with test images of its own."""
  row = line(arm, seed, right, **{'data.split_seed': seed} | fields)
  row['overrides'].append('data.split_seed')
  row['split'] = f'split {seed}'
  row['test']['images'] = images or f'images {seed}'
  return row
