"""A whole run in seconds: drawn leaves of 32 pixels, a tiny network."""

import contextlib
import pathlib

import jax

from csdnet_jax import sharding
from csdnet_jax.checkpoint import Checkpoints
from csdnet_jax.config import default
from csdnet_jax.training.build import build
from csdnet_jax.training.fit import fit
from csdnet_jax.training.restore import read_run


def config(cache, **fields):
  """The config of a run of 15 steps; `cache` is shared by all tests."""
  c = default()
  c.name = 'tiny'
  c.init_from = ''
  c.batch_size = 4
  c.epochs = 5.0
  c.eval_every = 2.0
  c.save_every = 4
  c.log_every = 2
  c.data.source = 'leaves'
  c.data.leaves.update(
    cultivars=4, train_per_class=3, test_per_class=2, size=40
  )
  c.data.cache = str(cache)
  c.data.canvas = 36
  c.data.test_resize = 36
  c.model.name = 'efficientnet_tiny'
  c.model.size = 32
  c.method.csdnet.queue = 24
  c.update_from_flattened_dict(fields)
  return c


def saved_state(workdir: pathlib.Path):
  """The whole state that a workdir holds, as host arrays."""
  config, split = read_run(workdir)
  config, _ = fit(config, len(split['train']))
  program = build(
    config, classes=len(split['class_names']), n_train=len(split['train']),
    devices=jax.devices()[:1],
  )  # fmt: skip
  abstract = sharding.abstract(jax.eval_shape(program.init), program.mesh)
  folder = workdir / 'checkpoints'
  with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
    return jax.device_get(checkpoints.restore(abstract))
