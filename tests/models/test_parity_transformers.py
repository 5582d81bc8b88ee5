"""Swin, ViT and DINOv2 compute what transformers does with the same file."""

import re

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
  substitute,
  tokens_forward,
)

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore::DeprecationWarning'),
  pytest.mark.filterwarnings('ignore::FutureWarning'),
]

BLOCK_RULES = (
  (r'\.layernorm_before\.', '.norm1.'),
  (r'\.layernorm_after\.', '.norm2.'),
  (r'\.attention\.o_proj\.', '.attn.proj.'),
  (r'\.attention\.', '.attn.'),
  (r'patch_embeddings\.projection', 'patch_embed.proj'),
)


def swin_as(release, arrays):
  """A Swin's arrays as timm or Microsoft name them, with their buffers."""
  head, later = ('head.fc', 1) if release == 'timm' else ('head', 0)
  arrays = substitute(
    arrays,
    (
      (r'^swin\.(embeddings\.|encoder\.)?', ''),
      (r'relative_position_bias\.(relative_position_bias_table)', r'\1'),
      (r'^norm\.', 'patch_embed.norm.'),
      (r'^layernorm\.', 'norm.'),
      (r'^classifier', head),
      (
        r'^layers\.(\d)\.downsample',
        lambda m: f'layers.{int(m[1]) + later}.downsample',
      ),
      *BLOCK_RULES,
    ),
  )
  arrays['layers.0.blocks.1.attn_mask'] = np.zeros((4, 49, 49), np.float32)
  index = 'layers.0.blocks.0.attn.relative_position_index'
  arrays[index] = np.zeros((49, 49), np.int64)
  return arrays


def small_swin(transformers, torch, window, stages=4):
  sizes = {
    'depths': (2,) * stages,
    'heads': (1, 2, 2, 4)[:stages],
    'window': window,
  }
  spec = models.find('swin_t')._replace(sizes={'width': 16, **sizes})
  return swin_of(transformers, torch, width=16, **sizes), spec


def swin_of(transformers, torch, *, width, depths, heads, window):
  config = transformers.SwinConfig(
    embed_dim=width,
    depths=list(depths),
    num_heads=list(heads),
    window_size=window,
    num_labels=CLASSES,
  )
  net = transformers.SwinForImageClassification(config)
  return randomise(torch, net)


def swin_forward(net):
  def forward(x):
    out = net.swin(x)
    side = int(out.last_hidden_state.shape[1] ** 0.5)
    features = out.last_hidden_state.unflatten(1, (side, side))
    return features.permute(0, 3, 1, 2), out.pooler_output

  return forward


# At 200 px no map is divided by the window and one is odd.
@pytest.mark.parametrize(
  ('window', 'stages', 'size'),
  [(7, 4, 224), (7, 4, 448), (7, 4, 200), (12, 3, 224), (12, 4, 384),
   (12, 4, 448)],
)  # fmt: skip
def test_swin_of_any_window_and_size(
  torch, transformers, tmp_path, monkeypatch, record, window, stages, size
):
  net, row = small_swin(transformers, torch, window, stages)
  monkeypatch.setitem(models.KNOWN, 'parity', row)
  path = save(torch, net, tmp_path)
  found, _ = differences(
    torch, net, swin_forward(net), net.classifier, path, 'parity', size
  )
  record(f'Swin, window {window}', size, found)


def test_swin_t_as_published(torch, transformers, tmp_path, record):
  net = swin_of(transformers, torch, **models.MODELS['swin_t'].sizes)
  path = save(torch, net, tmp_path)
  found, _ = differences(
    torch, net, swin_forward(net), net.classifier, path, 'swin_t', 224
  )
  record('Swin-T', 224, found)


def test_every_naming_of_swin_gives_the_same_weights(
  torch, transformers, tmp_path, monkeypatch
):
  net, row = small_swin(transformers, torch, 7)
  monkeypatch.setitem(models.KNOWN, 'parity', row)
  path = save(torch, net, tmp_path)
  arrays = state_dict(net)
  assert 'swin.encoder.layers.0.blocks.0.attention.q_proj.weight' in arrays
  other = save(torch, net, tmp_path, arrays)
  assert_same_weights(path, other, 'parity', 224)
  for release in ('timm', 'microsoft'):
    other = save(torch, net, tmp_path, swin_as(release, arrays))
    assert_same_weights(path, other, 'parity', 224)
    report = ours(other, 'parity', 224)[-1]
    skipped = {name.split(' ')[0].split('.')[-1] for name in report.skipped}
    assert skipped == {
      'head/kernel', 'head/bias', 'attn_mask', 'relative_position_index'
    }  # fmt: skip


def test_tables_of_another_window_are_resampled_as_the_release_does(
  torch, transformers, tmp_path, monkeypatch
):
  net, _ = small_swin(transformers, torch, 7)
  _, row = small_swin(transformers, torch, 12)
  monkeypatch.setitem(models.KNOWN, 'parity', row)
  _, params, _, report = ours(save(torch, net, tmp_path), 'parity', 448)
  assert len(report.reshaped) == 8
  (table,) = (
    x
    for name, x in net.state_dict().items()
    if 'layers.1.blocks.1' in name and name.endswith('bias_table')
  )
  image = table.T.reshape(1, 2, 13, 13)
  wanted = torch.nn.functional.interpolate(image, (23, 23), mode='bicubic')
  np.testing.assert_allclose(
    params['stage_1_block_1']['attention']['relative_position_bias'],
    wanted.reshape(2, 529).T.numpy(),
    atol=1e-5,
  )


def small(family, patch):
  sizes = {'width': 64, 'depth': 3, 'heads': 2, 'mlp': 256, 'patch': patch}
  spec = models.find(family)
  return spec._replace(sizes=spec.sizes | sizes)


def vit_of(transformers, torch, sizes, size):
  config = transformers.ViTConfig(
    hidden_size=sizes['width'],
    num_hidden_layers=sizes['depth'],
    num_attention_heads=sizes['heads'],
    intermediate_size=sizes['mlp'],
    patch_size=sizes['patch'],
    image_size=size,
    num_labels=CLASSES,
    layer_norm_eps=1e-6,
    hidden_act='gelu' if sizes.get('exact_gelu') else 'gelu_pytorch_tanh',
  )
  return randomise(torch, transformers.ViTForImageClassification(config))


def tokens_of(net, registers=0, **more):
  return tokens_forward(lambda x: net(x, **more).last_hidden_state, registers)


# The table is that of 224 px: at 448 px both sides resample it.
@pytest.mark.parametrize(
  ('family', 'patch', 'size'),
  [('vit_b8', 8, 224), ('vit_b16', 16, 224), ('vit_b16', 16, 448),
   ('vit_b32', 32, 448), ('deit_b16', 16, 224), ('deit_b16', 16, 448)],
)  # fmt: skip
def test_vit_of_any_patch_and_size(
  torch, transformers, tmp_path, monkeypatch, record, family, patch, size
):
  row = small(family, patch)
  monkeypatch.setitem(models.KNOWN, 'parity', row)
  net = vit_of(transformers, torch, row.sizes, 224)
  path = save(torch, net, tmp_path)
  forward = tokens_of(net.vit, interpolate_pos_encoding=True)
  found, report = differences(
    torch, net, forward, net.classifier, path, 'parity', size
  )
  assert len(report.reshaped) == (size == 448)
  gelu = 'exact' if family == 'deit_b16' else 'tanh'
  record(f'ViT, patch {patch}, {gelu} GELU', size, found)


def test_vit_ti_as_published(torch, transformers, tmp_path, record):
  net = vit_of(transformers, torch, models.MODELS['vit_ti16'].sizes, 224)
  path = save(torch, net, tmp_path)
  found, _ = differences(
    torch, net, tokens_of(net.vit), net.classifier, path, 'vit_ti16', 224
  )
  record('ViT-Ti/16', 224, found)


@pytest.mark.parametrize('size', [224, 448])
def test_the_original_npz(
  torch, transformers, tmp_path, monkeypatch, record, size
):
  row = small('vit_b16', 16)
  monkeypatch.setitem(models.KNOWN, 'parity', row)
  net = vit_of(transformers, torch, row.sizes, 224)
  path = tmp_path / 'vit.npz'
  np.savez(path, **original_names(net.vit, heads=2))
  forward = tokens_of(net.vit, interpolate_pos_encoding=True)
  found, report = differences(
    torch, net, forward, net.classifier, path, 'parity', size
  )
  assert len(report.loaded + report.reshaped) == 6 + 3 * 16
  record('ViT, patch 16, tanh GELU, original .npz', size, found)


# The names of transformers 4 and 5, in order: the first match counts.
VIT_NAMES = (
  (r'^embeddings\.cls_token$', 'cls'),
  (
    r'^embeddings\.position_embeddings$',
    'Transformer/posembed_input/pos_embedding',
  ),
  (r'^embeddings\.patch_embeddings\.projection\.', 'embedding/'),
  (r'^layernorm\.', 'Transformer/encoder_norm/'),
  (r'^(?:encoder\.layer|layers)\.(\d+)\.', r'Transformer/encoderblock_\1/'),
)
VIT_BLOCK_NAMES = (
  ('layernorm_before.', 'LayerNorm_0/'),
  ('layernorm_after.', 'LayerNorm_2/'),
  *(
    (name, f'MultiHeadDotProductAttention_1/{part}/')
    for part, names in {
      'query': ('attention.q_proj.', 'attention.attention.query.'),
      'key': ('attention.k_proj.', 'attention.attention.key.'),
      'value': ('attention.v_proj.', 'attention.attention.value.'),
      'out': ('attention.o_proj.', 'attention.output.dense.'),
    }.items()
    for name in names
  ),
  ('mlp.fc1.', 'MlpBlock_3/Dense_0/'),
  ('intermediate.dense.', 'MlpBlock_3/Dense_0/'),
  ('mlp.fc2.', 'MlpBlock_3/Dense_1/'),
  ('output.dense.', 'MlpBlock_3/Dense_1/'),
)


def original_names(net, heads):
  """The weights of a transformers ViT, named and laid out as the original."""
  arrays = {}
  for name, x in net.state_dict().items():
    x = x.numpy()
    for pattern, mine in VIT_NAMES:
      if re.search(pattern, name):
        name = re.sub(pattern, mine, name)
        break
    for theirs, mine in VIT_BLOCK_NAMES:
      if theirs in name:
        name = name.replace(theirs, mine)
        break
    if name.endswith('weight'):
      leaf = 'scale' if x.ndim == 1 else 'kernel'
      name = name.removesuffix('weight') + leaf
      x = x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T
    if re.search('/(query|key|value)/', name):
      x = x.reshape(*x.shape[:-1], heads, -1)
    elif name.endswith('/out/kernel'):
      x = x.reshape(heads, -1, x.shape[-1])
    arrays[name] = x
  return arrays


def test_every_naming_of_vit_gives_the_same_weights(
  torch, transformers, tmp_path, monkeypatch
):
  row = small('vit_b16', 16)
  monkeypatch.setitem(models.KNOWN, 'parity', row)
  net = vit_of(transformers, torch, row.sizes, 224)
  path = save(torch, net, tmp_path)
  arrays = state_dict(net)
  assert 'vit.layers.0.attention.q_proj.weight' in arrays
  other = save(torch, net, tmp_path, arrays)
  assert_same_weights(path, other, 'parity', 224)
  rules = (
    (r'^vit\.(embeddings\.)?', ''),
    (r'^position_embeddings', 'pos_embed'),
    (r'^layernorm\.', 'norm.'),
    (r'^layers\.', 'blocks.'),
    (r'^classifier', 'head'),
    *BLOCK_RULES,
  )
  other = save(torch, net, tmp_path, substitute(arrays, rules))
  assert_same_weights(path, other, 'parity', 224)
  # A bare ViTModel has no prefix, and a pooler that feeds nothing here.
  bare = {name.removeprefix('vit.'): x for name, x in arrays.items()}
  bare['pooler.dense.weight'] = np.zeros((64, 64), np.float32)
  other = save(torch, net, tmp_path, bare)
  assert_same_weights(path, other, 'parity', 224)
  assert (
    'pooler.dense.weight [64, 64]' in ours(other, 'parity', 224)[-1].skipped
  )


def dinov2_of(transformers, torch, registers):
  name = 'Dinov2WithRegisters' if registers else 'Dinov2'
  config = getattr(transformers, f'{name}Config')(
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=2,
    patch_size=14,
    image_size=518,
    **({'num_register_tokens': registers} if registers else {}),
  )
  return randomise(torch, getattr(transformers, f'{name}Model')(config))


# The table is that of 518 px, as published: both sides shrink it.
@pytest.mark.parametrize('registers', [0, 4])
@pytest.mark.parametrize('size', [224, 448])
def test_dinov2(
  torch, transformers, tmp_path, monkeypatch, record, registers, size
):
  row = small('vit_b14_dinov2_reg' if registers else 'vit_b14_dinov2', 14)
  monkeypatch.setitem(models.KNOWN, 'parity', row)
  net = dinov2_of(transformers, torch, registers)
  path = save(torch, net, tmp_path)
  head = randomise(torch, torch.nn.Linear(64, CLASSES))
  found, report = differences(
    torch, net, tokens_of(net, registers), head, path, 'parity', size
  )
  assert report.reshaped == [
    f'Transformer/posembed_input/pos_embedding [1, 1370, 64] -> '
    f'[1, {(size // 14) ** 2 + 1}, 64]'
  ]
  assert report.skipped == ['embeddings.mask_token [1, 64]']
  record(f'DINOv2, {registers} registers', size, found)


@pytest.mark.parametrize('registers', [0, 4])
def test_every_naming_of_dinov2_gives_the_same_outputs(
  torch, transformers, tmp_path, monkeypatch, registers
):
  row = small('vit_b14_dinov2_reg' if registers else 'vit_b14_dinov2', 14)
  monkeypatch.setitem(models.KNOWN, 'parity', row)
  net = dinov2_of(transformers, torch, registers)
  path = save(torch, net, tmp_path)
  arrays = state_dict(net)
  assert 'encoder.layer.0.attention.q_proj.weight' in arrays
  other = save(torch, net, tmp_path, arrays)
  assert_same_weights(path, other, 'parity', 224)
  rules = (
    (r'^embeddings\.', ''),
    (r'^position_embeddings', 'pos_embed'),
    (r'^layernorm\.', 'norm.'),
    (r'^encoder\.layer\.', 'blocks.'),
    (r'layer_scale(\d)\.lambda1', r'ls\1.gamma'),
    *BLOCK_RULES,
  )
  release = substitute(arrays, rules)
  other = save(torch, net, tmp_path, release)
  assert_same_weights(path, other, 'parity', 224)
  if registers:
    timm = dict(release)
    timm['reg_token'] = timm.pop('register_tokens')
    timm['cls_token'] = timm['cls_token'] + timm['pos_embed'][:, :1]
    timm['pos_embed'] = timm['pos_embed'][:, 1:]
    del timm['mask_token']
    other = save(torch, net, tmp_path, timm)
    pixels = np.random.default_rng(0).random((1, 224, 224, 3), np.float32)
    first, second = (
      model.apply(params, state, pixels, train=False)[0].features
      for model, params, state, _ in (
        ours(p, 'parity', 224) for p in (path, other)
      )
    )
    np.testing.assert_allclose(first, second, atol=1e-5)
