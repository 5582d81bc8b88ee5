"""What features are worth before training; kept by what they were measured on.

The linear probe of many classes takes minutes, and the runs of a grid start
from the same weights and images. The figures are therefore kept in the cache
folder, one small file for each set of weights and split.
"""

import hashlib
import json
import pathlib

import jax
import numpy as np

from csdnet_jax.config import outside
from csdnet_jax.data import cache
from csdnet_jax.data.images import saved, splits
from csdnet_jax.evaluation import probes
from csdnet_jax.runtime import writers
from csdnet_jax.runtime.code import of_code

# Functions of `probes`.
_NAMES = ('knn', 'prototypes', 'linear_probe')
# What training alone reads of the network's fields.
_OF_TRAINING = ('drop_rate', 'drop_path', 'remat', 'freeze_bn')


def measure(x, y, x_test, y_test) -> dict[str, float]:
  """Returns what features are worth, in percent of the test part.

  Args:
    x: of the train part, float32 [n, D].
    y: their labels, int32 [n].
    x_test: of the test part.
    y_test: their labels.
  """
  args = x, y, x_test, y_test
  return {name: getattr(probes, name)(*args) for name in _NAMES}


def place(config, dataset: splits.Dataset, params, model_state) -> pathlib.Path:
  """Returns the file of the baselines, by all that decides them.

  These are the weights below the head, the images and their split, how the
  network sees them, the code, and the device, which rounds in its own way.

  Args:
    config: of the run, fitted.
    dataset: with its parts.
    params: of the network, on the host or not.
    model_state: likewise.
  """
  digest = hashlib.sha256()
  below = {name: tree for name, tree in params.items() if name != 'head'}
  for leaf in jax.tree.leaves((below, model_state)):
    digest.update(np.ascontiguousarray(leaf).tobytes())
  seen = config.model.to_dict()
  read = [
    {name: x for name, x in seen.items() if name not in _OF_TRAINING},
    config.data.aspect, config.data.test_resize,
    saved.split_to_json(dataset), sorted(dataset.digests.items()),
    of_code(outside(config.to_dict()).values()), jax.__version__,
    jax.devices()[0].device_kind,
  ]  # fmt: skip
  digest.update(json.dumps(read, sort_keys=True).encode())
  name = f'{digest.hexdigest()[:32]}.json'
  return cache.cache_dir(config.data.cache) / 'baselines' / name


def read(path: pathlib.Path) -> dict[str, float] | None:
  """Returns the figures of a file; None if there is none that can be read."""
  try:
    known = json.loads(path.read_bytes())
    return {name: float(known[name]) for name in _NAMES}
  except (OSError, ValueError, TypeError, KeyError):
    return None


def write(path: pathlib.Path, figures: dict[str, float]) -> None:
  """Keeps figures; others may read and write the same file meanwhile.

  Raises:
    UserError: the cache folder cannot be written.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    writers.write_json(path, figures)
  except OSError as error:
    raise cache.cache_error(path.parent, error) from error
