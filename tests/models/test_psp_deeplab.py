"""Segmentation networks: the contract, sizes, dropout, names."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax import models
from csdnet_jax.models import (
  efficientnet,
  initialise,
  psp_deeplab,
  resnet,
  target,
)
from csdnet_jax.runtime.errors import UserError

CLASSES, SIZE, WIDTH = 5, 33, 16


def tiny(deeplab, **options):
  backbone = functools.partial(resnet.Backbone, (1, 1, 1, 1), False, 4, True, 8)
  options = {'drop_rate': 0.0, 'drop_path': 0.0} | options
  name = 'deeplab_resnet18' if deeplab else 'psp_resnet18'
  model = models.build(
    name, classes=CLASSES, backbone=backbone, width=WIDTH, **options
  )
  apply = jax.jit(model.apply, static_argnames=('train', 'axis'))
  model = model._replace(apply=apply)
  return model, *jax.jit(model.init, static_argnums=1)(jax.random.key(0), SIZE)


def images(rows):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.random((rows, SIZE, SIZE, 3)), jnp.float32)


@pytest.mark.parametrize('deeplab', [False, True])
def test_outputs_and_heads_have_the_promised_shapes(deeplab):
  model, params, state = tiny(deeplab)
  outputs, same = model.apply(params, state, images(2), train=False)
  chex.assert_shape(outputs.features, (2, 5, 5, WIDTH))
  chex.assert_shape(outputs.embedding, (2, WIDTH))
  chex.assert_shape((outputs.logits, outputs.aux), (2, 5, 5, CLASSES))
  chex.assert_type(jax.tree.leaves(outputs), jnp.float32)
  np.testing.assert_allclose(
    outputs.embedding, outputs.features.mean((1, 2)), atol=1e-6
  )
  kernel, bias = model.head(params)
  np.testing.assert_array_equal(kernel, np.zeros((WIDTH, CLASSES)))
  np.testing.assert_array_equal(bias, np.zeros(CLASSES))
  chex.assert_trees_all_equal(same, state)


# Of the networks that APD released, in millions, at 19 classes.
@pytest.mark.parametrize(
  ('name', 'without', 'with_aux'),
  [
    ('psp_resnet18', 16.3, 16.9),
    ('psp_resnet50', 46.7, 49.1),
    ('psp_resnet101', 65.7, 68.1),
  ],
)
def test_sizes_of_the_released_networks(name, without, with_aux):
  for aux, millions in ((False, without), (True, with_aux)):
    model = models.build(
      name, classes=19, drop_rate=0.1, drop_path=0.0, aux=aux
    )
    params, state = jax.eval_shape(
      lambda key, model=model: model.init(key, 65), jax.random.key(0)
    )
    count = sum(x.size for x in jax.tree.leaves(params))
    assert round(count / 1e6, 1) == millions
  outputs, _ = jax.eval_shape(
    functools.partial(model.apply, train=False),
    params,
    state,
    jax.ShapeDtypeStruct((1, 473, 473, 3), jnp.float32),
  )
  assert outputs.logits.shape == outputs.aux.shape == (1, 60, 60, 19)
  assert outputs.features.shape == (1, 60, 60, 512)


NAMES = [name for name in models.MODELS if name.startswith(('psp', 'deeplab'))]


@pytest.mark.parametrize('name', NAMES)
def test_every_network_keeps_stride_8(name):
  model = models.build(name, classes=3, drop_rate=0.0, drop_path=0.0)
  params, state = jax.eval_shape(
    lambda key: model.init(key, 65), jax.random.key(0)
  )
  outputs, _ = jax.eval_shape(
    functools.partial(model.apply, train=False),
    params,
    state,
    jax.ShapeDtypeStruct((1, 65, 57, 3), jnp.float32),
  )
  assert outputs.logits.shape == outputs.aux.shape == (1, 9, 8, 3)


@pytest.mark.parametrize(
  ('name', 'channels'),
  [('lite0', (192, 320)), ('lite1', (192, 320)), ('lite2', (208, 352))],
)
def test_lite_keeps_stride_8_and_hands_out_its_maps(name, channels):
  net = psp_deeplab.LITE_BACKBONES[f'efficientnet_{name}']()
  image = jax.ShapeDtypeStruct((1, 177, 177, 3), jnp.float32)
  run = functools.partial(
    net.init_with_output, train=False, keys=None, axis=None
  )
  maps, _ = jax.eval_shape(run, jax.random.key(0), image)
  assert [x.shape for x in maps] == [(1, 23, 23, c) for c in channels]


def test_dilated_lite_off_the_cpu_is_the_same():
  # A block for each stage and dilation, all narrow.
  stages = tuple((1, *stage[1:4], 8) for stage in efficientnet.STAGES)
  net = efficientnet.Backbone(stages=stages, stem=8)
  run = functools.partial(net.apply, train=False, keys=None, axis=None)
  init = functools.partial(net.init, train=False, keys=None, axis=None)
  variables = jax.jit(init)(jax.random.key(0), images(1))
  params = initialise.draw(jax.random.key(1), variables['params'])
  variables = variables | {'params': params}
  here = jax.jit(run)(variables, images(2))
  with target.compiled_for('tpu'):
    there = jax.jit(lambda *x: run(*x))(variables, images(2))
  chex.assert_trees_all_close(here, there, atol=1e-4)


def test_lite_colours_are_those_of_its_weights():
  lite, ours = (
    models.build(name, classes=2, drop_rate=0.0, drop_path=0.0)
    for name in ('psp_efficientnet_lite0', 'efficientnet_lite0')
  )
  assert lite.mean == ours.mean and lite.has_batch_norm


def test_the_tiny_one_is_tiny():
  model = models.build('psp_tiny', classes=3, drop_rate=0.1, drop_path=0.0)
  params, state = jax.eval_shape(
    lambda key: model.init(key, SIZE), jax.random.key(0)
  )
  assert sum(x.size for x in jax.tree.leaves(params)) < 15_000
  outputs, _ = jax.eval_shape(
    functools.partial(model.apply, train=False), params, state, images(1)
  )
  assert outputs.features.shape == (1, 5, 5, 16)
  assert outputs.logits.shape == outputs.aux.shape == (1, 5, 5, 3)


def test_whole_channels_are_dropped_the_same_in_any_batch():
  x = 1 + images(4)[:, :3, :3].repeat(20, -1)
  keys = jax.random.split(jax.random.key(1), 4)
  y = psp_deeplab.channel_dropout(x, keys, 0.5)
  ratio = np.asarray(y / x)
  assert set(np.unique(ratio.round(5))) == {0.0, 2.0}
  np.testing.assert_allclose(ratio, ratio[:, :1, :1] + 0 * ratio, rtol=1e-5)
  np.testing.assert_array_equal(
    y[2:], psp_deeplab.channel_dropout(x[2:], keys[2:], 0.5)
  )


def test_training_drops_channels_and_evaluation_does_not():
  model, params, state = tiny(False, drop_rate=0.5)
  keys = jax.random.split(jax.random.key(1), 2)
  trained, moved = model.apply(params, state, images(2), train=True, keys=keys)
  dropped = (trained.features == 0).all((1, 2)).mean()
  assert 0.2 < dropped < 0.95
  assert not np.allclose(
    moved['batch_stats']['aux']['bn']['mean'],
    state['batch_stats']['aux']['bn']['mean'],
  )


def test_a_size_that_does_not_fit_gets_a_sentence():
  model, params, state = tiny(False)
  with pytest.raises(UserError, match='64 x 65 pixels .* 8 k \\+ 1'):
    model.apply(params, state, jnp.zeros((1, 64, 65, 3)), train=False)


def test_semseg_and_the_apd_release_name_the_same_network():
  apd = {
    'module.ppm.merge.0.weight': np.zeros((8, 16, 3, 3)),
    'module.ppm.merge.1.running_var': np.zeros(8),
    'module.cls.0.weight': np.zeros((5, 8, 1, 1)),
    'module.cls.0.bias': np.zeros(5),
    'module.ppm.features.3.1.weight': np.zeros((4, 16, 1, 1)),
    'module.layer0.6.weight': np.zeros((16, 8, 3, 3)),
    'module.aux.4.weight': np.zeros((5, 256, 1, 1)),
  }
  semseg = {
    name.replace('cls.0', 'cls.4').replace('ppm.merge', 'cls'): x
    for name, x in apd.items()
  }
  ours = psp_deeplab.from_torch(apd)
  assert {name: x.shape for name, x in ours.items()} == {
    'context/merge/conv/kernel': (3, 3, 16, 8),
    'context/merge/bn/var': (8,),
    'head/kernel': (8, 5),
    'head/bias': (5,),
    'context/bin_6/conv/kernel': (1, 1, 16, 4),
    'backbone/conv3/kernel': (3, 3, 8, 16),
    'aux_head/kernel': (256, 5),
  }
  chex.assert_trees_all_equal(psp_deeplab.from_torch(semseg), ours)
  assert list(psp_deeplab.from_torch({'other.x': np.ones(1)})) == ['other.x']
