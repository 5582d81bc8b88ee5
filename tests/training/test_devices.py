"""A real network on one device and on four: the same but for rounding."""

import chex
import jax
import numpy as np
import pytest

from csdnet_jax import sharding
from csdnet_jax.training.build import build
from csdnet_jax.training.fit import fit

import runs
import tiny

STEPS, CLASSES = 3, 5


def _run(config, devices):
  """The state after some steps from random weights, fetched."""
  program = build(
    config, classes=CLASSES, n_train=30, devices=jax.devices()[:devices]
  )
  state = sharding.replicate(program.init(), program.mesh)
  order = sharding.row_order(8, program.mesh.size, 1)
  for i in range(STEPS):
    rows = {name: x[order] for name, x in tiny.batch(i, side=36).items()}
    batch = sharding.shard_batch(rows, program.mesh)
    state, _ = program.train_step(state, batch, ())
  return jax.device_get(state)


@pytest.mark.slow
@pytest.mark.parametrize('network', ['efficientnet_tiny', 'vit_tiny'])
def test_a_real_network_learns_the_same_on_four_devices(network, tmp_path):
  # Plain SGD: Adam divides by what is almost zero, and rounding grows.
  config = runs.config(
    tmp_path,
    **{
      'batch_size': 8, 'model.name': network, 'optim.name': 'sgd',
      'optim.lr': 0.05, 'method.csdnet.mode': 'none',
    },
  )  # fmt: skip
  config, _ = fit(config, 30)
  one, four = _run(config, 1), _run(config, 4)
  for name in ('labels', 'ids', 'ptr', 'count'):
    np.testing.assert_array_equal(
      getattr(one.memory, name), getattr(four.memory, name)
    )
  chex.assert_trees_all_close(one.params, four.params, atol=2e-4)
  chex.assert_trees_all_close(one.memory.keys, four.memory.keys, atol=2e-3)
