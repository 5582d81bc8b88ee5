"""What holds for every backbone, ours or from outside."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax import models, optim
from csdnet_jax.runtime.errors import UserError

NEWER = ('clip_tiny', 'convnext_micro', 'dinov3_tiny', 'dinov3_tiny_gated')


@pytest.mark.parametrize(
  'name',
  [
    'efficientnet_tiny', 'vit_tiny',
    *(pytest.param(name, marks=pytest.mark.slow)
      for name in (*NEWER, 'swin_micro')),
  ],
)  # fmt: skip
def test_recomputed_blocks_give_the_same_gradients(name):
  images = jax.random.uniform(jax.random.key(1), (4, 32, 32, 3))
  keys = jax.random.split(jax.random.key(2), 4)

  def gradients(remat):
    model = models.build(
      name, classes=3, drop_rate=0.1, drop_path=0.5, remat=remat
    )
    params, state = jax.jit(model.init, static_argnums=1)(jax.random.key(0), 32)

    def loss(params):
      outputs, _ = model.apply(params, state, images, train=True, keys=keys)
      # Not the sum of squares, which the last LayerNorm holds constant.
      return jnp.sum(outputs.embedding[:, ::2])

    return jax.jit(jax.grad(loss))(params)

  chex.assert_trees_all_close(
    gradients(True), gradients(False), rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize(
  'name',
  [
    'vit_tiny', 'dinov2_tiny_reg', 'swin_micro',
    *(pytest.param(name, marks=pytest.mark.slow) for name in NEWER),
  ],
)  # fmt: skip
def test_bfloat16_computes_the_same_within_its_precision(name):
  images = jax.random.uniform(jax.random.key(1), (2, 32, 32, 3))

  def run(dtype):
    model = models.build(
      name, classes=3, drop_rate=0.0, drop_path=0.0, dtype=dtype
    )
    params, state = jax.jit(model.init, static_argnums=1)(jax.random.key(0), 32)
    forward = jax.jit(lambda p: model.apply(p, state, images, train=False)[0])

    def loss(params):
      return jnp.sum(forward(params).embedding)

    gradients = jax.eval_shape(jax.grad(loss), params)
    outputs = forward(params)
    chex.assert_type(jax.tree.leaves((params, outputs, gradients)), jnp.float32)
    program = forward.lower(params).as_text()
    products = [x for x in program.splitlines() if 'dot_general' in x]
    return outputs.features, ['bf16>, tensor' in x for x in products]

  (single, none), (half, products) = run('float32'), run('bfloat16')
  # All but the head, which is the last.
  assert not any(none) and products == [True] * (len(products) - 1) + [False]
  error = np.abs(half - single).max() / np.abs(single).max()
  assert 0 < error < 0.05


@pytest.mark.slow
@pytest.mark.parametrize('name', NEWER)
def test_training_in_bfloat16_reaches_every_parameter(name):
  model = models.build(
    name, classes=3, drop_rate=0.1, drop_path=0.1, dtype='bfloat16'
  )
  params, state = jax.jit(model.init, static_argnums=1)(jax.random.key(0), 32)
  params['head']['kernel'] += 1.0
  images = jax.random.uniform(jax.random.key(1), (2, 32, 32, 3))
  keys = jax.random.split(jax.random.key(2), 2)

  def loss(params):
    outputs, _ = model.apply(params, state, images, train=True, keys=keys)
    features = (outputs.features**3).sum()
    return (outputs.embedding**3).sum() + outputs.logits[:, 0].sum() + features

  gradients = jax.jit(jax.grad(loss))(params)
  chex.assert_tree_all_finite(gradients)
  names = {
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path, x in jax.tree.leaves_with_path(gradients)
    if not np.any(x)
  }
  # The bias of the keys is nothing to softmax.
  assert all(name.endswith('/key/bias') for name in names), names


@pytest.mark.parametrize('remat', [False, True])
@pytest.mark.parametrize('name', ['efficientnet_tiny', 'resnet_tiny'])
def test_frozen_averages_are_the_same_in_training(name, remat):
  model = models.build(
    name, classes=3, drop_rate=0.0, drop_path=0.0, remat=remat, freeze_bn=True
  )
  params, state = jax.jit(model.init, static_argnums=1)(jax.random.key(0), 32)
  # As averages are that were loaded.
  state = jax.tree.map(lambda x: 0.01 + x / 2, state)
  images = jax.random.uniform(jax.random.key(1), (4, 32, 32, 3))

  def forward(params, train):
    outputs, moved = model.apply(params, state, images, train=train)
    return outputs.embedding, moved

  forward = jax.jit(forward, static_argnums=1)
  x, moved = forward(params, True)
  chex.assert_trees_all_equal(moved, state)
  np.testing.assert_allclose(x, forward(params, False)[0], rtol=1e-5)
  # Its views need not be forwarded one after the other.
  assert not model.has_batch_norm
  slopes = jax.grad(lambda params: forward(params, True)[0].sum())(params)
  norms = [x for key, x in optim.names(slopes).items() if 'bn' in key]
  assert norms and all(np.any(x) for x in norms)


def test_a_model_that_is_not_there_gets_the_nearest_name():
  sentence = "no model called 'swinb': did you mean 'swin_b'. The models are .*"
  with pytest.raises(UserError, match=sentence) as caught:
    models.build('swinb', classes=2, drop_rate=0.0, drop_path=0.0)
  assert 'swin_micro' not in str(caught.value)


def test_the_registry_says_what_a_network_is():
  assert models.find('deit_b16').sizes['exact_gelu']
  assert models.find('vit_b16').mean != models.find('deit_b16').mean
  lite = models.find('efficientnet_lite0')
  assert models.find('deeplab_efficientnet_lite0')[1:3] == lite[1:3]
  assert models.segments('psp_tiny') and not models.segments('resnet_tiny')
  assert 'vit_tiny' not in models.MODELS
  assert all(models.find(name).declared for name in models.MODELS)
  theirs = {'_fc.bias': np.ones(2), 'other': np.ones(3)}
  assert list(models.from_torch('efficientnet_tiny', theirs)) == [
    'head/bias', 'other'
  ]  # fmt: skip


OUTSIDE = """
import jax.numpy as jnp
from flax import linen as nn

from csdnet_jax.models import ModelSpec


class Net(nn.Module):
  classes: int
  drop_rate: float
  drop_path: float
  width: int
  stride: int
  remat: bool = False
  dtype: object = jnp.float32

  @nn.compact
  def __call__(self, x, *, train, keys, axis):
    step = (self.stride, self.stride)
    y = nn.relu(nn.Conv(self.width, (3, 3), step, dtype=self.dtype)(x))
    y = nn.BatchNorm(not train, axis_name=axis, name='norm')(y)
    z = y.mean((1, 2))
    return y, z, nn.Dense(self.classes, name='head')(z)


SPEC = ModelSpec(
  Net, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), sizes={'width': 6},
  has_batch_norm=True, fields={'stride': 4},
)
"""


def test_a_network_from_outside_is_found_by_its_module(tmp_path, monkeypatch):
  package = tmp_path / 'net_from_outside'
  package.mkdir()
  (package / '__init__.py').touch()
  (package / 'plain.py').write_text(OUTSIDE)
  (package / 'empty.py').touch()
  monkeypatch.syspath_prepend(tmp_path)
  name = 'net_from_outside.plain'
  assert models.find(name).fields == {'stride': 4}
  assert not models.segments(name) and not models.find(name).declared
  model = models.build(
    name, classes=3, drop_rate=0.0, drop_path=0.0, dtype='bfloat16', stride=2
  )
  init = jax.jit(model.init, static_argnums=1)
  params, state = init(jax.random.key(0), 16)
  shapes = jax.eval_shape(lambda key: model.init(key, 16), jax.random.key(0))
  chex.assert_trees_all_equal_shapes_and_dtypes((params, state), shapes)
  assert params['Conv_0']['kernel'].shape == (3, 3, 3, 6)
  # By Flax itself, which draws each parameter by its own key.
  assert 0.1 < params['Conv_0']['kernel'].std() < 0.3
  assert params['head']['kernel'].std() > 0.1
  other, _ = init(jax.random.key(1), 16)
  assert not np.allclose(params['head']['kernel'], other['head']['kernel'])
  images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
  outputs, moved = model.apply(params, state, images, train=True)
  assert outputs.features.shape == (2, 8, 8, 6)
  assert outputs.features.dtype == jnp.float32
  assert outputs.logits.shape == (2, 3)
  assert model.head(params)[0].shape == (6, 3) and model.mean == (0.5,) * 3
  assert np.any(moved['batch_stats']['norm']['mean'])
  frozen = models.build(
    name, classes=3, drop_rate=0.0, drop_path=0.0, stride=2, freeze_bn=True
  )
  with pytest.raises(UserError, match=f'{name} moves averages that .*freeze'):
    frozen.apply(params, state, images, train=True)
  same = {'unknown': np.ones(2)}
  assert models.from_torch(name, same) is same
  with pytest.raises(UserError, match='defines no SPEC = ModelSpec'):
    models.find('net_from_outside.empty')
  with pytest.raises(UserError, match='no model called .net_from_outside.no'):
    models.find('net_from_outside.no')
