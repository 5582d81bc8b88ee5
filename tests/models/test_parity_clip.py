"""CLIP's image tower computes what transformers does with the same file."""

import pytest

from csdnet_jax import models

from parity import CLASSES, differences, randomise, save, tokens_forward

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore::DeprecationWarning'),
  pytest.mark.filterwarnings('ignore::FutureWarning'),
]

WIDTH = 64


def clip_of(transformers, torch, patch, size, gelu):
  config = transformers.CLIPVisionConfig(
    hidden_size=WIDTH,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=256,
    patch_size=patch,
    image_size=size,
    hidden_act=gelu,
  )
  return randomise(torch, transformers.CLIPVisionModel(config))


# Positions of the images' own size: transformers resamples them otherwise than
# open_clip, which the golden values are of.
@pytest.mark.parametrize('size', [224, 448])
@pytest.mark.parametrize('name', ['vit_b16_bioclip', 'vit_l14_bioclip2'])
def test_clip(torch, transformers, tmp_path, monkeypatch, record, name, size):
  spec = models.find(name)
  sizes = {'width': WIDTH, 'depth': 3, 'heads': 2, 'mlp': 256}
  monkeypatch.setitem(
    models.KNOWN, 'parity', spec._replace(sizes=spec.sizes | sizes)
  )
  gelu = 'quick_gelu' if spec.sizes.get('quick_gelu') else 'gelu'
  patch = spec.sizes['patch']
  net = clip_of(transformers, torch, patch, size, gelu)
  path = save(torch, net, tmp_path)
  head = randomise(torch, torch.nn.Linear(WIDTH, CLASSES))

  def hidden(x):
    return net.post_layernorm(net(x).last_hidden_state)

  found, report = differences(
    torch, net, tokens_forward(hidden), head, path, 'parity', size
  )
  assert not report.skipped + report.reshaped
  record(f'CLIP, patch {patch}, {gelu}', size, found)
