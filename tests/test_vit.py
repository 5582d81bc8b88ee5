"""ViT: the contract, its names, and the resampling of positions."""

import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax import models
from csdnet_jax.errors import UserError
from csdnet_jax.models import vit

GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'torch_resample.npz'
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
