"""DINOv3 computes what transformers does with the same file."""

import numpy as np
import pytest

from csdnet_jax import models

from parity import (
  CLASSES,
  assert_same_weights,
  differences,
  ours,
  randomise,
  save,
  state_dict,
  tokens_forward,
)

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore::DeprecationWarning'),
  pytest.mark.filterwarnings('ignore::FutureWarning'),
]

WIDTH = 64


def small(name, **more):
  sizes = {'width': WIDTH, 'depth': 3, 'heads': 2, 'mlp': 256, **more}
  spec = models.find(name)
  return spec._replace(sizes=spec.sizes | sizes)


def dinov3_of(transformers, torch, gated):
  config = transformers.DINOv3ViTConfig(
    hidden_size=WIDTH,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=256,
    num_register_tokens=4,
    hidden_act='silu' if gated else 'gelu',
    use_gated_mlp=gated,
  )
  return randomise(torch, transformers.DINOv3ViTModel(config))


def round_periods(torch, net):
  """As the release, whose file has the periods in bfloat16."""
  rope = net.rope_embeddings
  rope.inv_freq = 1 / (1 / rope.inv_freq).to(torch.bfloat16).float()


@pytest.mark.parametrize('periods', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', ['vit_s16_dinov3', 'vit_splus16_dinov3'])
@pytest.mark.parametrize('size', [256, 448])
def test_dinov3(
  torch, transformers, tmp_path, monkeypatch, record, name, size, periods
):
  monkeypatch.setitem(models.KNOWN, 'parity', small(name, periods=periods))
  gated = 'plus' in name
  net = dinov3_of(transformers, torch, gated)
  path = save(torch, net, tmp_path)
  if periods == 'bfloat16':
    round_periods(torch, net)
  head = randomise(torch, torch.nn.Linear(WIDTH, CLASSES))
  forward = tokens_forward(lambda x: net(x).last_hidden_state, registers=4)
  found, report = differences(torch, net, forward, head, path, 'parity', size)
  assert not report.reshaped
  assert report.skipped == ['embeddings.mask_token [1, 1, 64]']
  kind = 'gated MLP' if gated else 'MLP'
  record(f'DINOv3, {kind}, periods {periods}', size, found)


@pytest.mark.parametrize('name', ['vit_s16_dinov3', 'vit_splus16_dinov3'])
def test_every_naming_of_dinov3_gives_the_same_weights(
  torch, transformers, tmp_path, monkeypatch, name
):
  monkeypatch.setitem(models.KNOWN, 'parity', small(name))
  net = dinov3_of(transformers, torch, 'plus' in name)
  path = save(torch, net, tmp_path)
  arrays = state_dict(net)
  first = arrays['model.layer.0.attention.q_proj.weight']
  older = {k.removeprefix('model.'): x for k, x in arrays.items()}
  other = save(torch, net, tmp_path, older)
  assert_same_weights(path, other, 'parity', 256)
  release = as_released(arrays)
  assert release['blocks.0.attn.qkv.weight'].shape == (3 * WIDTH, WIDTH)
  np.testing.assert_array_equal(
    release['blocks.0.attn.qkv.weight'][:WIDTH], first
  )
  other = save(torch, net, tmp_path, release)
  assert_same_weights(path, other, 'parity', 256)
  skipped = ours(other, 'parity', 256)[-1].skipped
  assert sorted(name.split(' ')[0].split('.')[-1] for name in skipped) == [
    'bias_mask', 'bias_mask', 'bias_mask', 'mask_token', 'periods'
  ]  # fmt: skip


def as_released(arrays):
  """A DINOv3's arrays as its release names them, the keys' biases masked."""
  names = {
    'embeddings.patch_embeddings.': 'patch_embed.proj.',
    'embeddings.register_tokens': 'storage_tokens',
    'embeddings.': '',
    'model.layer.': 'blocks.',
    'attention.o_proj': 'attn.proj',
    'layer_scale1.lambda1': 'ls1.gamma',
    'layer_scale2.lambda1': 'ls2.gamma',
    'mlp.gate_proj': 'mlp.w1',
  }
  gated = any('gate_proj' in name for name in arrays)
  names['mlp.up_proj'] = 'mlp.w2' if gated else 'mlp.fc1'
  names['mlp.down_proj'] = 'mlp.w3' if gated else 'mlp.fc2'
  new = {}
  for name, x in arrays.items():
    for theirs, released in names.items():
      name = name.replace(theirs, released)
    if '.attention.' not in name:
      new[name] = x
  for i in range(3):
    parts = {
      (part, leaf): arrays.get(f'model.layer.{i}.attention.{part}_proj.{leaf}')
      for part in 'qkv'
      for leaf in ('weight', 'bias')
    }
    parts['k', 'bias'] = np.full(WIDTH, 9, np.float32)
    for leaf in ('weight', 'bias'):
      new[f'blocks.{i}.attn.qkv.{leaf}'] = np.concatenate(
        [parts[part, leaf] for part in 'qkv']
      )
    mask = np.repeat(np.float32([1, 0, 1]), WIDTH)
    new[f'blocks.{i}.attn.qkv.bias_mask'] = mask
  new['rope_embed.periods'] = np.zeros(8, np.float32)
  return new
