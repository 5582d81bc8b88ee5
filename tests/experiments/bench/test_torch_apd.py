"""The benchmark of APD's step: its peer in PyTorch computes the same."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from csdnet_jax import methods, models, sharding
from csdnet_jax.data import augment
from csdnet_jax.methods import base
from csdnet_jax.runtime.errors import UserError
from experiments.bench import step

import command

pytestmark = pytest.mark.slow

CLASSES = 5
FIELDS = {
  'backbone': 'psp_tiny', 'size': 33, 'batch': 4, 'teacher': 'psp_tiny',
  'width': 12,
}  # fmt: skip


@pytest.fixture(scope='module')
def torch():
  return pytest.importorskip('torch')


def spread(tree, seed):
  """Random values where a head is zero or a bias is."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: np.float32(np.asarray(x) + rng.normal(0, 0.1, x.shape)), tree
  )


def nchw(torch, x):
  return torch.tensor(np.array(x)).permute(0, 3, 1, 2)


@pytest.mark.parametrize('kind', step.SEGMENTATION)
def test_the_peer_computes_our_loss(torch, kind):
  from experiments.bench import torch_apd

  config = step.make_config(**FIELDS, method=kind)
  config.model.drop_rate = 0.0
  model = models.build(
    'psp_tiny', classes=CLASSES, drop_rate=0.0, drop_path=0.0, width=12
  )
  method = methods.make(config, model)
  params, model_state = model.init(jax.random.key(0), 33)
  for i, (name, extra) in enumerate(method.extras.items()):
    params[name] = extra.init(jax.random.key(i), 12)
  params, frozen = spread(params, 0), ()
  if method.teacher is not None:
    weights, averages = method.teacher.init(jax.random.key(2), 33)
    frozen = spread(weights, 1), averages
  batch = method.views(
    sharding.row_keys(jax.random.key(1), 4, None),
    step.synthetic_batch(config, CLASSES),
  )
  context = base.Context(model_state, (), frozen, None)
  (expected, _), gradient = jax.jit(
    jax.value_and_grad(method.loss, has_aux=True)
  )(params, context, batch, jax.random.key(3))

  nets = torch_apd.build(config, params, model_state, frozen, 'cpu')
  labels = torch.tensor(np.array(batch['label'])).long()
  total = torch_apd.loss(nets, nchw(torch, batch['raw']), labels, config)
  assert abs(total.item() - float(expected)) < 1e-4
  total.backward()

  def same(weight, ours):
    kernel = weight.grad[:, :, 0, 0].T
    np.testing.assert_allclose(kernel, ours['kernel'], atol=1e-4)
    assert np.abs(ours['kernel']).max() > 1e-3

  same(nets.student.head.weight, gradient['head'])
  same(nets.student.aux_head.weight, gradient['aux_head'])
  for name, projector in nets.projectors.items():
    same(projector.out.weight, gradient[name]['out'])
  assert len(nets.projectors) == (2 if kind == 'apd' else 0)


def test_the_peer_draws_our_crops(torch):
  from experiments.bench import torch_apd

  config = step.make_config(**FIELDS, method='apd')
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (4, 40, 40, 3), np.uint8)
  masks = rng.integers(0, 9, (4, 40, 40), np.uint8)
  extents = np.array([[40, 40], [40, 25], [30, 40], [40, 40]], np.int32)
  centres = rng.uniform(10, 25, (4, 2)).astype('f')
  scales = np.float32([0.7, 1.0, 1.3, 1.9])
  keys = jax.random.split(jax.random.key(0), 4)
  crops = {'rotate': 10.0, 'flip': True, 'blur': 0.5}
  views, labels = augment.sample_pairs(
    keys, images, masks, extents, centres, scales, size=33, **crops
  )
  draws = jax.vmap(lambda key: jax.random.uniform(key, (4,)))(keys)
  arrays = (draws, images.transpose(0, 3, 1, 2), masks, extents, centres)
  theirs, their_labels = torch_apd.sample_pairs(
    *(torch.tensor(np.array(x)) for x in (*arrays, scales)),
    size=33, crops=config.crops,
  )  # fmt: skip
  close = np.abs(theirs.permute(0, 2, 3, 1).numpy() - views) < 1e-4
  assert close.mean() > 0.999
  assert (their_labels.numpy() == labels).mean() > 0.999


def test_a_network_without_a_peer_is_refused(torch):
  from experiments.bench import torch_segmentation

  with pytest.raises(UserError, match='no PyTorch peer of deeplab_resnet18'):
    torch_segmentation.build('deeplab_resnet18', classes=3)


def test_memory_is_counted_without_a_step(torch):
  from experiments.bench import memory

  config = step.make_config(**FIELDS | {'size': 65, 'batch': 2}, method='apd')
  weights = 4 * sum(
    x.size
    for x in jax.tree.leaves(
      models.build(
        'psp_tiny', classes=40, drop_rate=0.0, drop_path=0.0, width=12
      ).init(jax.random.key(0), 65)
    )
  )
  logits = 4 * 2 * 65 * 65 * 40
  # Of the peer full-size logits are kept for three entropies and the KD.
  assert memory.ours(config, 40) > 2 * weights
  assert memory.peer(config, 40) > 4 * logits


def test_a_tiny_benchmark_prints_one_line(torch, tmp_path):
  process = subprocess.run(
    [
      sys.executable, '-m', 'experiments.bench.step', '--backbone=psp_tiny',
      '--teacher=psp_tiny', '--size=33', '--batch=2', '--width=12',
      '--method=apd', '--against=apd_kd', '--pairs=2', '--steps=1',
      '--peer=torch', f'--results={tmp_path}',
    ],
    cwd=command.ROOT, env=os.environ | {'JAX_NUM_CPU_DEVICES': '1'},
    capture_output=True, text=True,
  )  # fmt: skip
  assert process.returncode == 0, process.stderr
  (line,) = process.stdout.splitlines()
  result = json.loads(line)
  assert result['teacher'] == 'psp_tiny' and result['classes'] == 19
  assert result.keys() >= {'ratio', 'time_ratio', 'peak_memory', 'width'}
