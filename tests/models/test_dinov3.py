"""DINOv3: what timm gives for the same weights, and the names of its files."""

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
  'name',
  [
    'vit_small_plus_patch16_dinov3',
    pytest.param('vit_small_patch16_dinov3', marks=SLOW),
  ],
)
def test_timms_modules_hold_what_the_network_wants(name):
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
