"""EfficientNet-Lite: its convolutions and the model contract."""

import contextlib
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from csdnet_jax import models, sharding
from csdnet_jax.models import dropout, efficientnet, kernels, target
from csdnet_jax.runtime.errors import UserError

CLASSES, SIZE = 5, 32


@pytest.fixture(scope='module')
def tiny():
  model = models.build(
    'efficientnet_tiny', classes=CLASSES, drop_rate=0.5, drop_path=0.5
  )
  apply = jax.jit(model.apply, static_argnames=('train', 'axis'))
  model = model._replace(apply=apply)
  return model, *jax.jit(model.init, static_argnums=1)(jax.random.key(0), SIZE)


def images(rows, seed=0, size=SIZE):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.random((rows, size, size, 3)), jnp.float32)


def keys(rows):
  return jax.random.split(jax.random.key(7), rows)


@pytest.mark.parametrize('size', [3, 5])
@pytest.mark.parametrize(
  ('stride', 'dilation'), [(1, 1), (2, 1), (1, 2), (1, 4), (2, 3)]
)
@pytest.mark.parametrize('shape', [(8, 8), (7, 9), (5, 6), (1, 2)])
def test_depthwise_is_the_convolution_in_value_and_gradients(
  size, stride, dilation, shape
):
  rng = np.random.default_rng(1)
  x = jnp.asarray(rng.normal(size=(2, *shape, 4)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(size, size, 4)), jnp.float32)

  def reference(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel[:, :, None, :],
      (stride, stride),
      'SAME',
      rhs_dilation=(dilation, dilation),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=4,
    )

  @functools.partial(jax.jit, static_argnums=0)
  def both(f, x, kernel):
    y, pull = jax.vjp(f, x, kernel)
    return y, pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

  expected = both(reference, x, kernel)
  for function in (kernels.shifted_depthwise, kernels.tapped_depthwise):

    def ours(x, kernel, function=function):
      return function(x, kernel, stride, dilation)

    chex.assert_trees_all_close(both(ours, x, kernel), expected, atol=1e-4)


@pytest.mark.parametrize(
  'around', [contextlib.nullcontext, kernels.of_many_networks]
)
def test_off_the_cpu_the_same_network_comes_out(tiny, around):
  model, params, state = tiny
  cpu, _ = model.apply(params, state, images(2), train=False)
  apply = functools.partial(model.apply.__wrapped__, train=False)
  with around(), target.compiled_for('tpu'):
    other, _ = jax.jit(apply)(params, state, images(2))
  chex.assert_trees_all_close(cpu, other, atol=1e-4)


def test_mapped_over_networks_off_the_cpu_there_is_no_convolution(tiny):
  model, params, state = tiny
  stacked = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), (params, state))

  def outputs(weights):
    apply = model.apply.__wrapped__
    return jax.vmap(lambda w: apply(*w, images(2), train=False)[0])(weights)

  with kernels.of_many_networks(), target.compiled_for('tpu'):
    text = str(jax.make_jaxpr(outputs)(stacked))
  assert 'dot_general' in text
  assert 'conv_general' not in text


def test_outputs_and_head_have_the_promised_shapes(tiny):
  model, params, state = tiny
  outputs, same = model.apply(params, state, images(2), train=False)
  chex.assert_shape(outputs.features, (2, 8, 8, 32))
  chex.assert_shape(outputs.embedding, (2, 32))
  chex.assert_shape(outputs.logits, (2, CLASSES))
  chex.assert_type(jax.tree.leaves(outputs), jnp.float32)
  np.testing.assert_allclose(
    outputs.embedding, outputs.features.mean((1, 2)), atol=1e-6
  )
  kernel, bias = model.head(params)
  chex.assert_shape(kernel, (32, CLASSES))
  np.testing.assert_array_equal(kernel, 0)
  np.testing.assert_array_equal(bias, 0)
  assert model.has_batch_norm
  chex.assert_trees_all_equal(same, state)


@pytest.mark.parametrize(
  ('name', 'millions'),
  [
    ('efficientnet_lite0', 4.652),
    ('efficientnet_lite1', 5.417),
    ('efficientnet_lite2', 6.092),
  ],
)
def test_sizes_of_the_published_networks(name, millions):
  model = models.build(name, classes=1000, drop_rate=0.0, drop_path=0.0)
  params, state = jax.eval_shape(lambda key: model.init(key, 160), keys(1)[0])
  outputs, _ = jax.eval_shape(
    functools.partial(model.apply, train=False),
    params,
    state,
    jax.ShapeDtypeStruct((2, 160, 160, 3), jnp.float32),
  )
  assert outputs.features.shape == (2, 5, 5, 1280)
  count = sum(x.size for x in jax.tree.leaves(params))
  assert round(count / 1e6, 3) == millions


@pytest.mark.slow
def test_bfloat16_is_close_and_hands_out_float32(tiny):
  _, params, state = tiny
  rng = np.random.default_rng(4)
  kernel = jnp.asarray(rng.normal(size=(32, CLASSES)), jnp.float32)
  params = params | {'head': {'kernel': kernel, 'bias': jnp.zeros(CLASSES)}}
  x, weight = images(8), rng.normal(size=(8, CLASSES))

  def run(dtype):
    sizes = models.find('efficientnet_tiny').sizes
    net = efficientnet.Net(CLASSES, 0.0, 0.0, **sizes, dtype=dtype)

    def loss(params):
      outputs, moved = net.apply(
        {'params': params, **state},
        x,
        train=True,
        keys=None,
        axis=None,
        mutable=['batch_stats'],
      )
      return (outputs[2] * weight).mean(), (outputs, moved)

    return jax.jit(jax.grad(loss, has_aux=True))(params)

  exact, rounded = run(jnp.float32), run(jnp.bfloat16)
  chex.assert_type(jax.tree.leaves(rounded), jnp.float32)
  norm = optax.tree.norm
  # The gradients (noisy images, few of them), the outputs, the averages.
  for want, got, share in zip(
    (exact[0], *exact[1]),
    (rounded[0], *rounded[1]),
    (0.25, 0.03, 0.01),
    strict=True,
  ):
    error = norm(optax.tree.sub(got, want))
    assert 0 < error < share * norm(want)


def test_the_mean_colour_normalises_to_zero(tiny):
  model, params, state = tiny
  grey = jnp.broadcast_to(jnp.array(model.mean), (2, SIZE, SIZE, 3))
  outputs, _ = model.apply(params, state, grey, train=False)
  # Zeros go through a net without biases as zeros.
  np.testing.assert_allclose(outputs.features, 0, atol=1e-5)


def test_running_averages_move_in_training_only(tiny):
  model, params, state = tiny
  x = images(4)
  outputs, moved = model.apply(params, state, x, train=True, keys=keys(4))
  before = state['batch_stats']['top_bn']
  after = moved['batch_stats']['top_bn']
  assert not np.allclose(before['mean'], after['mean'])
  # r <- 0.9 r + 0.1 m, of the stem, whose input is at hand.
  pixels = (255 * x - 127) / 128
  y = jax.lax.conv_general_dilated(
    pixels,
    params['stem']['kernel'],
    (2, 2),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  stem = moved['batch_stats']['stem_bn']
  np.testing.assert_allclose(stem['mean'], 0.1 * y.mean((0, 1, 2)), atol=1e-5)
  np.testing.assert_allclose(
    stem['var'], 0.9 + 0.1 * y.var((0, 1, 2)), atol=1e-4
  )
  assert np.isfinite(outputs.logits).all()


def test_two_devices_equal_one_of_double_batch(tiny):
  model, params, state = tiny
  params = params | {
    'head': {'kernel': jnp.ones((32, CLASSES)), 'bias': jnp.zeros(CLASSES)}
  }
  x, k = images(4), keys(4)
  weight = jnp.asarray(np.random.default_rng(3).normal(size=(4, CLASSES)))

  def step(params, state, x, k, weight, axis):
    def loss(params):
      outputs, moved = model.apply(
        params, state, x, train=True, keys=k, axis=axis
      )
      return (outputs.logits * weight).mean(), (outputs.embedding, moved)

    grads, (embedding, moved) = jax.grad(loss, has_aux=True)(params)
    if axis:
      grads = jax.lax.pmean(grads, axis)
    return grads, embedding, moved

  one = jax.jit(functools.partial(step, axis=None))(params, state, x, k, weight)
  mesh = sharding.make_mesh(jax.devices()[:2])
  two = jax.jit(
    jax.shard_map(
      functools.partial(step, axis='data'),
      mesh=mesh,
      in_specs=(P(), P(), P('data'), P('data'), P('data')),
      out_specs=(P(), P('data'), P()),
      check_vma=False,
    )
  )(params, state, x, k, weight)
  chex.assert_trees_all_close(one, jax.device_get(two), atol=2e-4, rtol=1e-3)


def test_a_rows_draw_does_not_depend_on_its_batch():
  x, k = jnp.ones((6, 40)), keys(6)
  whole = dropout.dropout(x, k, 0.5)
  np.testing.assert_array_equal(
    whole[2:4], dropout.dropout(x[2:4], k[2:4], 0.5)
  )
  assert set(np.unique(whole)) == {0.0, 2.0}
  paths = dropout.path_scales(k, (0.0, 0.5, 0.75))
  np.testing.assert_array_equal(
    paths[:, 2:4], dropout.path_scales(k[2:4], (0.0, 0.5, 0.75))
  )
  np.testing.assert_array_equal(paths[0], 1)


def test_dropout_and_drop_path_draw_apart_from_equal_keys():
  k = keys(4000)
  paths = dropout.path_scales(k, (0.5,))[0] == 0
  dropped = dropout.dropout(jnp.ones((4000, 1)), k, 0.5)[:, 0] == 0
  assert abs(float((paths & dropped).mean()) - 0.25) < 0.03


def test_drops_share_is_the_rate_and_the_mean_stays():
  k = keys(4000)
  paths = dropout.path_scales(k, (0.25, 0.5))
  np.testing.assert_allclose((paths == 0).mean(1), [0.25, 0.5], atol=0.03)
  np.testing.assert_allclose(paths.mean(1), 1, atol=0.06)
  dropped = dropout.dropout(jnp.ones((4000, 2)), k, 0.25)
  assert abs(float((dropped == 0).mean()) - 0.25) < 0.03


def test_evaluation_draws_nothing_and_training_asks_for_keys(tiny):
  model, params, state = tiny
  with pytest.raises(ValueError, match='keys'):
    model.apply(params, state, images(2), train=True)
  x, k = images(8), keys(16)
  first, _ = model.apply(params, state, x, train=True, keys=k[:8])
  other, _ = model.apply(params, state, x, train=True, keys=k[8:])
  assert not np.allclose(first.features, other.features)


def test_gradients_are_finite_and_the_step_traces_once(tiny):
  model, params, state = tiny

  @jax.jit
  @chex.assert_max_traces(n=1)
  def grads(params, state, x, k):
    def loss(params):
      outputs, moved = model.apply(params, state, x, train=True, keys=k)
      return -jax.nn.log_softmax(outputs.logits)[:, 0].mean(), moved

    return jax.grad(loss, has_aux=True)(params)

  x, k = images(4), keys(4)
  g, moved = grads(params, state, x, k)
  chex.assert_tree_all_finite((g, moved))
  assert np.abs(g['head']['kernel']).max() > 0
  grads(params, moved, images(4, seed=1), k)


def test_initial_values_differ_by_key_and_have_the_wanted_deviation():
  model = models.build(
    'efficientnet_lite0', classes=2, drop_rate=0.0, drop_path=0.0
  )
  init = jax.jit(model.init, static_argnums=1)
  (params, _), (other, _) = (init(jax.random.key(i), 32) for i in range(2))
  kernel = params['top']['kernel']
  assert abs(float(kernel.std()) / np.sqrt(2 / 1280) - 1) < 0.02
  assert abs(float(kernel.mean())) < 1e-3
  assert not np.allclose(kernel, other['top']['kernel'])
  first, second = (params[f'block_{i}']['depthwise']['kernel'] for i in (6, 7))
  assert first.shape == second.shape and not np.allclose(first, second)


def test_a_wrong_name_gets_a_sentence_without_the_models_of_the_tests():
  with pytest.raises(UserError) as e:
    models.build('efficientnet_lite_0', classes=2, drop_rate=0, drop_path=0)
  assert "did you mean 'efficientnet_lite0'" in str(e.value)
  assert 'vit_b16' in str(e.value) and 'tiny' not in str(e.value)
