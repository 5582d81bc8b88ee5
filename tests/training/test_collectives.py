"""What a step sends between devices, read from its program ahead of time."""

import json
import os
import subprocess
import sys

import jax
import pytest

from csdnet_jax.config import default
from experiments.bench import collectives

import command

DEVICES = 8
# The loss, its terms, the accuracy, and the two counts of pairs.
SCALARS = 4 * 16


def _config(name, queue):
  config = default()
  config.model.name = name
  config.model.size = 32
  config.data.update(canvas=36, test_resize=36)
  config.method.csdnet.queue = queue
  return config


def _count(name, queue=64):
  compiled, state = collectives.compile_step(
    _config(name, queue), classes=5, n_train=1000,
    devices=jax.devices()[:DEVICES],
  )  # fmt: skip
  return collectives.count(compiled.as_text()), state


def _check(found, *, gradients, batch, width, moments=0):
  """Everything that a step may send, and nothing else."""
  keys, labels_and_ids = 4 * 2 * batch * width, 2 * 4 * 2 * batch
  assert set(found) == {'all-gather', 'all-reduce', 'reduce-scatter'}
  assert found['all-gather'] == {'count': 3, 'bytes': keys + labels_and_ids}
  assert found['reduce-scatter'] == {'count': 1, 'bytes': keys}
  rest = found['all-reduce']['bytes'] - gradients
  assert 0 < rest <= SCALARS + moments


@pytest.mark.slow
@pytest.mark.parametrize('name', ['vit_tiny', 'swin_micro'])
def test_a_transformer_sends_gradients_keys_and_scalars(name):
  found, state = _count(name)
  gradients = sum(4 * x.size for x in jax.tree.leaves(state.params))
  _check(found, gradients=gradients, batch=16, width=32)
  # XLA joins the gradients of all leaves.
  assert found['all-reduce']['count'] == 2


@pytest.mark.slow
def test_batch_norm_sends_its_moments_too():
  found, state = _count('efficientnet_tiny')
  gradients = sum(4 * x.size for x in jax.tree.leaves(state.params))
  # Two views, forward and backward, at most three vectors of channels each.
  channels = sum(x.size for x in jax.tree.leaves(state.model_state)) // 2
  moments = 4 * 2 * 2 * 3 * channels
  _check(found, gradients=gradients, batch=16, width=32, moments=moments)


@pytest.mark.slow
def test_nothing_grows_with_the_queue():
  assert _count('vit_tiny', queue=64)[0] == _count('vit_tiny', queue=1024)[0]


def test_bytes_are_counted_by_shape_and_type():
  program = """
  %a = f32[8,4]{1,0} fusion(%x)
  %b = (f32[8,4]{1,0}, pred[3]{0}) all-reduce(%a, %c), channel_id=1
  %c = pred[3]{0} fusion(%y)
  %d = f32[64,4]{1,0} all-gather(%a), channel_id=2, dimensions={0}
  %e = f32[1,4]{1,0} reduce-scatter(%a), channel_id=3
  %f = bf16[2]{0} collective-permute-start(%g)
  """
  assert collectives.count(program) == {
    'all-reduce': {'count': 1, 'bytes': 8 * 4 * 4 + 3},
    'all-gather': {'count': 1, 'bytes': 64 * 4 * 4},
    'reduce-scatter': {'count': 1, 'bytes': 8 * 4 * 4},
    'collective-permute': {'count': 1, 'bytes': 4},
  }


@pytest.mark.slow
def test_the_papers_step_on_8_and_256_devices():
  """At 448 px, two images a device; the bytes are those of the global batch."""
  for devices in (8, 256):
    environment = dict(os.environ)
    environment.pop('JAX_NUM_CPU_DEVICES')
    output = subprocess.run(
      [
        sys.executable, '-m', 'experiments.bench.collectives',
        '--config=configs/soy_ageing.py', '--config.model.name=vit_b16',
        f'--devices={devices}', f'--config.batch_size={2 * devices}',
      ],
      cwd=command.ROOT, env=environment, check=True, capture_output=True,
      text=True,
    ).stdout  # fmt: skip
    record = json.loads(output)
    _check(
      record['collectives'],
      gradients=4 * record['parameters'], batch=2 * devices, width=768,
    )  # fmt: skip
