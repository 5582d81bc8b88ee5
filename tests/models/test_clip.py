"""CLIP's image tower: what open_clip gives, and the names of its files."""

import numpy as np
import pytest

from csdnet_jax import models

import golden

SMALL = {'width': 32, 'depth': 2, 'heads': 2, 'mlp': 128, 'patch': 8}
NAMES = {
  'ViT-B-16': 'vit_b16_bioclip',
  'ViT-L-14': 'vit_l14_bioclip2',
  'ViT-H-14': 'vit_h14_bioclip25',
}


# The file's positions are those of 32 px.
@pytest.mark.parametrize(
  ('kind', 'size'),
  [
    ('quick_gelu', 24),
    pytest.param('quick_gelu', 48, marks=pytest.mark.slow),
    pytest.param('quick_gelu', 32, marks=pytest.mark.slow),
    pytest.param('gelu', 32, marks=pytest.mark.slow),
  ],
)
def test_features_are_those_of_open_clip(tmp_path, monkeypatch, kind, size):
  name = 'vit_b16_bioclip' if kind == 'quick_gelu' else 'vit_l14_bioclip2'
  spec = models.find(name)
  outputs = golden.outputs(
    tmp_path, spec._replace(sizes=spec.sizes | SMALL), 'open_clip reduced',
    (size, size), monkeypatch,
  )  # fmt: skip
  wanted = golden.values(f'clip {kind}/{size}x{size}/features')
  np.testing.assert_allclose(outputs.embedding, wanted[:, 0], atol=1e-4)
  wanted = wanted[:, 1:].reshape(2, size // 8, size // 8, 32)
  np.testing.assert_allclose(outputs.features, wanted, atol=1e-4)


@pytest.mark.parametrize(
  'name',
  [
    'ViT-B-16',
    pytest.param('ViT-L-14', marks=pytest.mark.slow),
    pytest.param('ViT-H-14', marks=pytest.mark.slow),
  ],
)
def test_open_clips_modules_hold_what_the_network_wants(name):
  spec = models.find(NAMES[name])
  if name != 'ViT-B-16':
    spec = spec._replace(sizes=spec.sizes | {'depth': 3})
  theirs, ours = golden.sizes(spec, name, 224)
  assert ours.items() <= theirs.items()
  assert all(
    name == 'visual.proj' or not name.startswith('visual.')
    for name in theirs.keys() - ours.keys()
  )


@pytest.mark.slow
def test_the_strict_loader_leaves_the_texts_out(tmp_path, monkeypatch):
  arrays = golden.draw(golden.KEYS['ViT-B-16'])
  # BioCLIP 2 has two projections.
  arrays['visual.continual_proj'] = arrays['visual.proj']
  spec = models.find('vit_b16_bioclip')
  *_, report = golden.load(tmp_path, spec, arrays, 448, monkeypatch)
  assert not report.missing + report.unexpected
  assert report.reshaped == [
    'Transformer/posembed_input/pos_embedding [1, 197, 768] -> [1, 785, 768]'
  ]
  left = {name.split(' ')[0] for name in report.skipped}
  texts = {name for name in arrays if not name.startswith('visual.')}
  assert left == texts | {'visual.proj', 'visual.continual_proj'}
