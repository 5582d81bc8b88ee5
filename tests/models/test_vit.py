"""ViT: the contract, its names, and the resampling of positions."""

import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax import models
from csdnet_jax.models import target, vit
from csdnet_jax.runtime.errors import UserError

import golden

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'torch_resample.npz'
CLASSES, SIZE = 5, 32


def make(name='vit_tiny', **rates):
  rates = {'drop_rate': 0.0, 'drop_path': 0.0} | rates
  model = models.build(name, classes=CLASSES, **rates)
  apply = jax.jit(model.apply, static_argnames=('train', 'axis'))
  model = model._replace(apply=apply)
  return model, *jax.jit(model.init, static_argnums=1)(jax.random.key(0), SIZE)


def images(rows, size=SIZE):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.random((rows, size, size, 3)), jnp.float32)


@pytest.mark.parametrize('name', ['vit_tiny', 'vit_tiny_gap'])
def test_outputs_and_head_have_the_promised_shapes(name):
  model, params, state = make(name)
  assert state == {}
  outputs, state = model.apply(params, state, images(3), train=True)
  assert state == {}
  chex.assert_shape(outputs.features, (3, 4, 4, 32))
  chex.assert_shape(outputs.embedding, (3, 32))
  chex.assert_shape(outputs.logits, (3, CLASSES))
  chex.assert_type(jax.tree.leaves(outputs), jnp.float32)
  kernel, bias = model.head(params)
  np.testing.assert_array_equal(kernel, np.zeros((32, CLASSES)))
  np.testing.assert_array_equal(bias, np.zeros(CLASSES))
  assert not model.has_batch_norm and model.mean == (0.5, 0.5, 0.5)
  mean = outputs.features.mean((1, 2))
  assert np.allclose(outputs.embedding, mean, atol=1e-5) == ('gap' in name)


def test_parameters_bear_the_names_of_the_original_files():
  _, params, _ = make()
  names = {
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path, _ in jax.tree.leaves_with_path(params)
  }
  block = 'Transformer/encoderblock_1/'
  assert {
    'cls',
    'embedding/kernel',
    'embedding/bias',
    'Transformer/posembed_input/pos_embedding',
    'Transformer/encoder_norm/scale',
    'head/kernel',
    'head/bias',
    *(
      f'{block}MultiHeadDotProductAttention_1/{part}/{leaf}'
      for part in ('query', 'key', 'value', 'out')
      for leaf in ('kernel', 'bias')
    ),
    f'{block}LayerNorm_0/scale',
    f'{block}LayerNorm_2/bias',
    f'{block}MlpBlock_3/Dense_0/kernel',
    f'{block}MlpBlock_3/Dense_1/bias',
  } <= names
  assert len(names) == 2 * 16 + 8


def test_the_base_model_has_the_published_size():
  model = models.build('vit_b16', classes=1000, drop_rate=0, drop_path=0)
  params, _ = jax.eval_shape(
    lambda key: model.init(key, 224), jax.random.key(0)
  )
  # 86.6 million, as Table 1 of the paper rounds.
  assert sum(x.size for x in jax.tree.leaves(params)) == 86_567_656
  attention = params['Transformer']['encoderblock_0']
  attention = attention['MultiHeadDotProductAttention_1']
  assert attention['query']['kernel'].shape == (768, 12, 64)
  assert attention['out']['kernel'].shape == (12, 64, 768)
  assert params['embedding']['kernel'].shape == (16, 16, 3, 768)


def test_patches_are_a_convolution_of_their_own_stride():
  x = images(2)
  kernel = jax.random.normal(jax.random.key(1), (8, 8, 3, 4))
  patches = vit.split_patches(x, 8).reshape(2, 4, 4, -1)
  np.testing.assert_allclose(
    patches @ kernel.reshape(-1, 4),
    jax.lax.conv_general_dilated(
      x, kernel, (8, 8), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    ),
    atol=1e-4,
  )


def test_two_views_as_one_batch_equal_each_alone():
  model, params, state = make(drop_rate=0.5, drop_path=0.5)
  params['head']['kernel'] = jnp.ones((32, CLASSES))
  x, keys = images(4), jax.random.split(jax.random.key(3), 4)

  def apply(rows):
    return model.apply(params, state, x[rows], train=True, keys=keys[rows])[0]

  both, first, second = map(apply, (slice(4), slice(2), slice(2, 4)))
  chex.assert_trees_all_close(
    both,
    jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second),
    atol=1e-5,
  )
  raw, _ = model.apply(params, state, x, train=False)
  assert not np.allclose(raw.embedding, both.embedding)


def test_gradients_are_finite_and_the_step_traces_once():
  model, params, state = make(drop_rate=0.1, drop_path=0.1)

  @jax.jit
  @chex.assert_max_traces(n=1)
  def grads(params, x, keys):
    def loss(params):
      outputs, _ = model.apply(params, state, x, train=True, keys=keys)
      return -jax.nn.log_softmax(outputs.logits)[:, 0].mean()

    return jax.grad(loss)(params)

  keys = jax.random.split(jax.random.key(3), 2)
  g = grads(params, images(2), keys)
  chex.assert_tree_all_finite(g)
  assert np.abs(g['head']['kernel']).max() > 0
  grads(params, images(2) / 2, keys)


def test_an_image_size_that_does_not_fit_gets_a_sentence():
  model, params, state = make()
  with pytest.raises(UserError, match='multiple of 8'):
    model.apply(params, state, images(1, 36), train=False)
  with pytest.raises(UserError, match='65 tokens .* for 17'):
    model.apply(params, state, images(1, 64), train=False)


@pytest.mark.parametrize('extra', [0, 1])
def test_positions_are_resampled_as_pytorch_does(extra):
  # The golden grid is no square, so its values check the resampling alone.
  golden = np.load(GOLDEN)
  x = jnp.asarray(golden['x'].transpose(0, 2, 3, 1), jnp.float32)
  checked = 0
  for name in golden.files:
    if name.startswith('bicubic/'):
      height, width = map(int, name.partition('/')[2].split('x'))
      ours = vit.resize_bicubic(x, height, width)
      want = golden[name].transpose(0, 2, 3, 1)
      np.testing.assert_allclose(ours, want, atol=1e-5)
      checked += 1
  assert checked
  table = jax.random.normal(jax.random.key(0), (1, extra + 16, 3))
  out = vit.resample_positions(table, extra + 36, extra=extra)
  np.testing.assert_array_equal(out[:, :extra], table[:, :extra])
  np.testing.assert_allclose(
    out[:, extra:].reshape(1, 6, 6, 3),
    vit.resize_bicubic(table[:, extra:].reshape(1, 4, 4, 3), 6, 6),
  )


def test_positions_of_no_square_grid_get_a_sentence():
  with pytest.raises(UserError, match='squares'):
    vit.resample_positions(jnp.zeros((1, 13, 4)), 17, extra=1)


@pytest.mark.parametrize('platform', ['cpu', 'gpu', 'tpu'])
def test_cudnn_is_asked_only_for_what_it_can(platform):
  half, single = jnp.dtype('bfloat16'), jnp.dtype('float32')
  with target.compiled_for(platform):
    assert vit._implementation(half) is None
  with target.compiled_for('cuda'):
    assert vit._implementation(half) == 'cudnn'
    assert vit._implementation(single) is None


def test_registers_take_part_and_are_dropped():
  model, params, state = make('dinov2_tiny_reg')
  outputs, _ = model.apply(params, state, images(2), train=False)
  chex.assert_shape(outputs.features, (2, 4, 4, 32))
  # One position for the class token and each patch, none for a register.
  positions = params['Transformer']['posembed_input']['pos_embedding']
  assert positions.shape == (1, 17, 32)
  assert params['Transformer']['registers'].shape == (1, 2, 32)
  tokens = jax.random.normal(jax.random.key(1), (1, 2, 32))
  params['Transformer']['registers'] = tokens
  moved, _ = model.apply(params, state, images(2), train=False)
  assert np.abs(outputs.features - moved.features).max() > 1e-3


def test_a_layer_scale_of_zero_leaves_the_tokens_as_they_are():
  model, params, state = make('dinov2_tiny')
  for i in range(2):
    block = params['Transformer'][f'encoderblock_{i}']
    for branch in ('LayerScale_0', 'LayerScale_1'):
      np.testing.assert_array_equal(block[branch]['scale'], np.ones(32))
      block[branch]['scale'] *= 0
  outputs, _ = model.apply(params, state, images(1), train=False)
  embed = params['embedding']
  x = (images(1) - np.float32(model.mean)) / np.float32(
    models.find('dinov2_tiny').std
  )
  x = vit.split_patches(x, 8).reshape(1, 4, 4, -1)
  x = x @ embed['kernel'].reshape(-1, 32) + embed['bias']
  positions = params['Transformer']['posembed_input']['pos_embedding']
  x = x + positions[:, 1:].reshape(1, 4, 4, 32)
  x = x - x.mean(-1, keepdims=True)
  wanted = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
  np.testing.assert_allclose(outputs.features, wanted, atol=1e-4)


PLANTCLEF = 'vit_base_patch14_reg4_dinov2'


# The file's positions are those of 48 px.
@pytest.mark.slow
@pytest.mark.parametrize('size', [48, 24, 72])
def test_plantclef_computes_what_timm_does(tmp_path, monkeypatch, size):
  spec = models.find('vit_b14_plantclef')
  sizes = {'width': 32, 'depth': 2, 'heads': 2, 'mlp': 128, 'patch': 8}
  outputs = golden.outputs(
    tmp_path, spec._replace(sizes=spec.sizes | sizes), f'{PLANTCLEF} reduced',
    (size, size), monkeypatch,
  )  # fmt: skip
  wanted = golden.values(f'{PLANTCLEF}/{size}x{size}/features')
  np.testing.assert_allclose(outputs.embedding, wanted[:, 0], atol=1e-4)
  wanted = wanted[:, 5:].reshape(2, size // 8, size // 8, 32)
  np.testing.assert_allclose(outputs.features, wanted, atol=1e-4)


def test_plantclefs_file_holds_what_the_network_wants():
  spec = models.find('vit_b14_plantclef')
  theirs, ours = golden.sizes(spec, PLANTCLEF, 518)
  assert theirs == ours


@pytest.mark.slow
def test_the_strict_loader_leaves_plantclefs_species_out(tmp_path, monkeypatch):
  arrays = golden.draw(golden.KEYS[PLANTCLEF])
  arrays['head.weight'] = np.zeros((7806, 768), np.float32)
  arrays['head.bias'] = np.zeros(7806, np.float32)
  spec = models.find('vit_b14_plantclef')
  *_, report = golden.load(tmp_path, spec, arrays, 224, monkeypatch)
  assert not report.missing + report.unexpected
  skipped = {'head/kernel [768, 7806]', 'head/bias [7806]'}
  assert set(report.skipped) == skipped
  assert report.reshaped == [
    'Transformer/posembed_input/pos_embedding [1, 1370, 768] -> [1, 257, 768]'
  ]


@pytest.mark.parametrize('shape', [(3, 3), (9, 9)])
def test_resampling_without_aliasing_is_a_wider_cubic(shape):
  # PyTorch's antialiased bicubic, weight by weight: a = -0.5, the width of
  # the cubic grows as the image shrinks.
  x = np.random.default_rng(0).standard_normal(6)
  scale = max(6 / shape[0], 1)
  rows = []
  for i in range(shape[0]):
    t = np.abs((np.arange(6) + 0.5 - (i + 0.5) * 6 / shape[0]) / scale)
    w = np.where(
      t < 1,
      1.5 * t**3 - 2.5 * t**2 + 1,
      np.where(t < 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0),
    )
    rows.append(w / w.sum())
  matrix = np.asarray(rows)
  image = np.outer(x, x)[None, :, :, None]
  ours = vit.resize_bicubic(jnp.float32(image), *shape, antialias=True)
  wanted = np.outer(matrix @ x, matrix @ x)
  np.testing.assert_allclose(ours[0, :, :, 0], wanted, atol=1e-5)


@pytest.mark.parametrize('tokens', [16, 17])
def test_a_padded_token_changes_no_attention(tokens, monkeypatch):
  rng = np.random.default_rng(0)
  parts = rng.standard_normal((3, 2, tokens, 4, 8)).astype(np.float32)
  weights = rng.standard_normal(parts.shape[1:])
  attention = jax.nn.dot_product_attention
  lengths = []

  def as_xla(*parts, implementation, **more):
    lengths.append((parts[0].shape[1], *more))
    return attention(*parts, implementation='xla', **more)

  monkeypatch.setattr(jax.nn, 'dot_product_attention', as_xla)

  def run(implementation):
    def loss(*parts):
      y = vit.attend(*parts, implementation)
      return (y * weights).sum(), y

    return jax.grad(loss, (0, 1, 2), has_aux=True)(*parts)

  chex.assert_trees_all_close(run('cudnn'), run(None), atol=1e-5)
  masks = ('query_seq_lengths', 'key_value_seq_lengths')
  assert lengths == [(18, *masks) if tokens == 17 else (16,), (tokens,)]
