"""ResNet: layout, names, and the model contract."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from csdnet_jax import models, sharding
from csdnet_jax.models import convolution, resnet

CLASSES, SIZE = 5, 33
WIDTH = 128  # Of the tiny net's last map.


def make(**options):
  options = {'drop_rate': 0.0, 'drop_path': 0.0} | options
  model = models.build('resnet_tiny', classes=CLASSES, **options)
  apply = jax.jit(model.apply, static_argnames=('train', 'axis'))
  model = model._replace(apply=apply)
  return model, *jax.jit(model.init, static_argnums=1)(jax.random.key(0), SIZE)


@pytest.fixture(scope='module')
def tiny():
  return make()


def images(rows):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.random((rows, SIZE, SIZE, 3)), jnp.float32)


def test_outputs_and_head_have_the_promised_shapes(tiny):
  model, params, state = tiny
  outputs, same = model.apply(params, state, images(2), train=False)
  chex.assert_shape(outputs.features, (2, 2, 2, WIDTH))
  chex.assert_shape(outputs.embedding, (2, WIDTH))
  chex.assert_shape(outputs.logits, (2, CLASSES))
  chex.assert_type(jax.tree.leaves(outputs), jnp.float32)
  np.testing.assert_allclose(
    outputs.embedding, outputs.features.mean((1, 2)), atol=1e-6
  )
  kernel, bias = model.head(params)
  np.testing.assert_array_equal(kernel, np.zeros((WIDTH, CLASSES)))
  np.testing.assert_array_equal(bias, np.zeros(CLASSES))
  assert model.has_batch_norm
  chex.assert_trees_all_equal(same, state)


# torchvision's documentation gives these numbers.
@pytest.mark.parametrize(
  ('name', 'count'),
  [
    ('resnet18', 11_689_512),
    ('resnet50', 25_557_032),
    ('resnet101', 44_549_160),
  ],
)
def test_sizes_of_the_published_networks(name, count):
  model = models.build(name, classes=1000, drop_rate=0.0, drop_path=0.0)
  params, state = jax.eval_shape(
    lambda key: model.init(key, 224), jax.random.key(0)
  )
  assert sum(x.size for x in jax.tree.leaves(params)) == count
  outputs, _ = jax.eval_shape(
    functools.partial(model.apply, train=False),
    params,
    state,
    jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32),
  )
  wide = 512 if name == 'resnet18' else 2048
  assert outputs.features.shape == (1, 7, 7, wide)


def strides_and_dilations(bottleneck, context):
  """(stride, dilation) of the 3 x 3 in two blocks of each layer at stride 8."""
  layers = resnet.layout((2,) * 4, bottleneck, 64, 8, context=context)
  return [
    [[c[2:] for c in block if c[0] == 3] for block in blocks]
    for blocks in layers
  ]


def test_the_two_rules_of_dilation():
  first = [[[(1, 1)]] * 2, [[(2, 1)], [(1, 1)]]]
  assert strides_and_dilations(True, False) == [
    *first,
    [[(1, 2)]] * 2,
    [[(1, 4)]] * 2,
  ]
  assert strides_and_dilations(True, True) == [
    *first,
    [[(1, 1)], [(1, 2)]],
    [[(1, 2)], [(1, 4)]],
  ]
  first = [[[(1, 1)] * 2] * 2, [[(2, 1), (1, 1)], [(1, 1)] * 2]]
  assert strides_and_dilations(False, False) == [
    *first,
    [[(1, 2), (1, 1)]] * 2,
    [[(1, 4), (1, 1)]] * 2,
  ]
  assert strides_and_dilations(False, True) == [
    *first,
    [[(1, 1), (1, 2)], [(1, 2), (1, 2)]],
    [[(1, 2), (1, 4)], [(1, 4), (1, 4)]],
  ]


def test_the_layout_at_stride_32_has_no_dilation():
  layers = resnet.layout((1, 2, 1, 1), True, 64, 32)
  assert [block[1] for blocks in layers for block in blocks] == [
    (3, 64, 1, 1),
    (3, 128, 2, 1),
    (3, 128, 1, 1),
    (3, 256, 2, 1),
    (3, 512, 2, 1),
  ]


@pytest.mark.parametrize(
  ('theirs', 'ours'),
  [
    ('conv1.weight', 'conv1/kernel'),
    ('bn1.running_var', 'bn1/var'),
    ('layer0.3.weight', 'conv2/kernel'),
    ('layer0.7.running_mean', 'bn3/mean'),
    ('layer3.22.conv2.weight', 'layer3_22/conv2/kernel'),
    ('layer2.0.downsample.0.weight', 'layer2_0/shortcut/kernel'),
    ('layer2.0.downsample.1.bias', 'layer2_0/shortcut_bn/bias'),
    (
      'resnet.encoder.stages.0.layers.2.layer.1.normalization.weight',
      'layer1_2/bn2/scale',
    ),
    (
      'encoder.stages.3.layers.0.shortcut.convolution.weight',
      'layer4_0/shortcut/kernel',
    ),
    ('resnet.embedder.embedder.normalization.running_mean', 'bn1/mean'),
    ('bn1.num_batches_tracked', 'bn1/num_batches_tracked'),
  ],
)
def test_names_of_pytorch(theirs, ours):
  shape = (2, 3, 1, 5) if ours.endswith('kernel') else (4,)
  array = np.arange(np.prod(shape)).reshape(shape)
  ((name, found),) = resnet.from_torch({theirs: array}).items()
  assert name == f'backbone/{ours}'
  wanted = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
  np.testing.assert_array_equal(found, wanted)


def test_the_head_is_turned_and_unknown_names_are_kept():
  arrays = {
    'fc.weight': np.arange(6).reshape(2, 3),
    'extra.weight': np.ones((2, 3)),
  }
  ours = resnet.from_torch(arrays)
  assert list(ours) == ['head/kernel', 'extra.weight']
  np.testing.assert_array_equal(ours['head/kernel'], [[0, 3], [1, 4], [2, 5]])
  assert ours['extra.weight'].shape == (2, 3)


@pytest.mark.parametrize('size', [4, 5])
@pytest.mark.parametrize(('stride', 'dilation'), [(1, 1), (2, 1), (1, 2)])
def test_a_convolution_is_the_sum_over_its_taps(size, stride, dilation):
  rng = np.random.default_rng(1)
  x = rng.normal(size=(2, size, size, 3)).astype(np.float32)
  kernel = rng.normal(size=(3, 3, 3, 4)).astype(np.float32)
  conv = convolution.Conv(4, 3, stride, dilation)
  y = conv.apply({'params': {'kernel': kernel}}, x)
  d = dilation
  padded = np.pad(x, ((0, 0), (d, d), (d, d), (0, 0)))
  taps = sum(
    padded[:, i * d : i * d + size, j * d : j * d + size] @ kernel[i, j]
    for i in range(3)
    for j in range(3)
  )
  np.testing.assert_allclose(y, taps[:, ::stride, ::stride], atol=1e-5)


@pytest.mark.slow
def test_two_devices_equal_one_of_double_batch():
  model, params, state = make(drop_rate=0.5, drop_path=0.5)
  params['head']['kernel'] = jnp.ones((WIDTH, CLASSES))
  x, keys = images(4), jax.random.split(jax.random.key(7), 4)
  weight = jnp.asarray(np.random.default_rng(3).normal(size=(4, CLASSES)))

  def step(params, state, x, keys, weight, axis):
    def loss(params):
      outputs, moved = model.apply(
        params, state, x, train=True, keys=keys, axis=axis
      )
      return (outputs.logits * weight).mean(), (outputs.embedding, moved)

    grads, (embedding, moved) = jax.grad(loss, has_aux=True)(params)
    return sharding.mean(grads, axis), embedding, moved

  one = functools.partial(step, axis=None)(params, state, x, keys, weight)
  two = jax.jit(
    jax.shard_map(
      functools.partial(step, axis='data'),
      mesh=sharding.make_mesh(jax.devices()[:2]),
      in_specs=(P(), P(), *(P('data'),) * 3),
      out_specs=(P(), P('data'), P()),
      check_vma=False,
    )
  )(params, state, x, keys, weight)
  chex.assert_trees_all_close(one, jax.device_get(two), atol=2e-4, rtol=1e-3)
  other, _ = model.apply(params, state, x, train=True, keys=keys[::-1])
  assert not np.allclose(other.embedding, one[1])


def test_bfloat16_computes_the_same_roughly_and_returns_float32(tiny):
  model, params, state = tiny
  half, half_params, half_state = make(dtype='bfloat16')
  chex.assert_trees_all_equal(half_params, params)
  chex.assert_trees_all_equal(half_state, state)
  whole, moved = model.apply(params, state, images(4), train=True)
  rough, half_moved = half.apply(params, state, images(4), train=True)
  chex.assert_type(jax.tree.leaves((rough, half_moved)), jnp.float32)
  difference = jnp.abs(rough.embedding - whole.embedding).max()
  assert 0 < difference < 0.1 * jnp.abs(whole.embedding).max()
  chex.assert_trees_all_close(half_moved, moved, rtol=0.1, atol=0.02)
