"""ConvNeXt: what timm gives for the same weights, and its files' names."""

import jax
import numpy as np
import pytest

from csdnet_jax import models
from csdnet_jax.runtime.errors import UserError

import golden

SPEC = models.find('convnext_t')


# At 72 x 100 px a column or a row is left over in three of four stages.
@pytest.mark.slow
@pytest.mark.parametrize('size', [(64, 64), (72, 100)])
def test_features_are_those_of_timm(tmp_path, monkeypatch, size):
  spec = SPEC._replace(sizes={'width': 8, 'depths': (1, 1, 2, 1)})
  outputs = golden.outputs(
    tmp_path, spec, 'convnext_tiny reduced', size, monkeypatch
  )
  at = f'convnext_tiny/{size[0]}x{size[1]}'
  wanted = golden.values(f'{at}/embedding')
  np.testing.assert_allclose(outputs.embedding, wanted, atol=1e-4)
  # The map goes through the LayerNorm of its mean.
  x = golden.values(f'{at}/features').transpose(0, 2, 3, 1)
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
  drawn = golden.draw({'head.norm.weight': (64,), 'head.norm.bias': (64,)})
  x = x * drawn['head.norm.weight'] + drawn['head.norm.bias']
  np.testing.assert_allclose(outputs.features, x, atol=1e-4)


def test_timms_modules_hold_what_the_network_wants():
  theirs, ours = golden.sizes(SPEC, 'convnext_tiny', 224)
  assert theirs == ours
  assert models.find('convnext_t_dinov3') == SPEC


@pytest.mark.slow
def test_the_strict_loader_takes_a_whole_published_file(tmp_path, monkeypatch):
  arrays = golden.draw(golden.KEYS['convnext_tiny'])
  # A head for the 21,841 classes of ImageNet-22k, DINOv3's norm once more.
  arrays['head.fc.bias'] = np.zeros(21841, np.float32)
  arrays['norms.3.bias'] = arrays['head.norm.bias']
  *_, report = golden.load(tmp_path, SPEC, arrays, 384, monkeypatch)
  assert set(report.skipped) == {'head/bias [21841]', 'norms.3.bias [768]'}
  assert not report.missing + report.unexpected + report.reshaped
  assert len(report.loaded) == len(arrays) - 2


def test_an_image_smaller_than_a_place_of_the_map_gets_a_sentence():
  net = models.build('convnext_t', classes=2, drop_rate=0.0, drop_path=0.0)
  with pytest.raises(UserError, match='31 x 31 pixels .* size of 32 or more'):
    jax.eval_shape(lambda key: net.init(key, 31), jax.random.key(0))
