"""DINOv3: what timm gives for the same weights, and the names of its files."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax import models

import golden

SLOW = pytest.mark.slow
SMALL = {'width': 32, 'depth': 2, 'heads': 2, 'mlp': 128, 'patch': 8}
NAMES = {
  'vit_small_patch16_dinov3': 'vit_s16_dinov3',
  'vit_small_patch16_dinov3_qkvb': 'vit_s16_dinov3',
  'vit_small_plus_patch16_dinov3': 'vit_splus16_dinov3',
}


def small(name, **more):
  spec = models.find(NAMES[name])
  return spec._replace(sizes=spec.sizes | SMALL | more)


@pytest.mark.parametrize(
  ('name', 'size'),
  [
    ('vit_small_patch16_dinov3', (48, 32)),
    pytest.param('vit_small_patch16_dinov3', (32, 32), marks=SLOW),
    pytest.param('vit_small_patch16_dinov3_qkvb', (48, 48), marks=SLOW),
    pytest.param('vit_small_plus_patch16_dinov3', (32, 32), marks=SLOW),
  ],
)
def test_features_are_those_of_timm(tmp_path, monkeypatch, name, size):
  outputs = golden.outputs(
    tmp_path, small(name, periods='float32'), f'{name} reduced', size,
    monkeypatch,
  )  # fmt: skip
  height, width = size
  wanted = golden.values(f'{name}/{height}x{width}/features')
  np.testing.assert_allclose(outputs.embedding, wanted[:, 0], atol=1e-4)
  np.testing.assert_allclose(
    outputs.features,
    wanted[:, 5:].reshape(2, height // 8, width // 8, 32),
    atol=1e-4,
  )


@pytest.mark.slow
def test_periods_are_those_of_the_release_unless_told(tmp_path, monkeypatch):
  name = 'vit_small_patch16_dinov3'
  outputs = golden.outputs(
    tmp_path, small(name), f'{name} reduced', (48, 48), monkeypatch
  )
  wanted = golden.values(f'{name} bfloat16/48x48/features')
  np.testing.assert_allclose(outputs.embedding, wanted[:, 0], atol=1e-4)
  exact = golden.values(f'{name}_qkvb/48x48/features')
  assert np.abs(outputs.embedding - exact[:, 0]).max() > 1e-3


@pytest.mark.parametrize(
  'name', ['vit_small_patch16_dinov3', 'vit_small_plus_patch16_dinov3']
)
def test_published_files_hold_what_the_network_wants(name):
  theirs, ours = golden.sizes(models.find(NAMES[name]), name, 256)
  assert theirs == ours


@pytest.mark.slow
def test_the_strict_loader_takes_a_whole_published_file(tmp_path, monkeypatch):
  name = 'vit_small_plus_patch16_dinov3'
  arrays = golden.draw(golden.KEYS[name])
  spec = models.find(NAMES[name])
  *_, report = golden.load(tmp_path, spec, arrays, 448, monkeypatch)
  unwanted = report.skipped + report.missing + report.unexpected
  assert not unwanted + report.reshaped
  # timm leaves out two biases in each of twelve blocks and joins three
  # kernels.
  assert len(report.loaded) == len(arrays) + 12 * 4


@pytest.mark.slow
@pytest.mark.parametrize('name', ['dinov3_tiny', 'dinov3_tiny_gated'])
def test_training_in_bfloat16_moves_every_parameter(name):
  model = models.build(
    name, classes=3, drop_rate=0.1, drop_path=0.1, remat=True, dtype='bfloat16'
  )
  params, state = jax.jit(model.init, static_argnums=1)(jax.random.key(0), 32)
  params['head']['kernel'] += 1.0
  keys = jax.random.split(jax.random.key(1), 2)
  x = golden.pixels(32, 32)

  @jax.jit
  def gradient(params):
    def loss(params):
      outputs, _ = model.apply(params, state, x, train=True, keys=keys)
      chex.assert_shape(outputs.features, (2, 4, 4, 32))
      chex.assert_type(outputs.embedding, jnp.float32)
      return (outputs.embedding**3).sum() + outputs.logits[:, 0].sum()

    return jax.grad(loss)(params)

  found = gradient(params)
  chex.assert_tree_all_finite(found)
  still = [p for p, g in jax.tree.leaves_with_path(found) if not g.any()]
  assert not still
