"""Swin: the contract, windows against a NumPy reference, mixed precision."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import meta

from csdnet_jax import models
from csdnet_jax.models import swin
from csdnet_jax.runtime.errors import UserError

CLASSES, SIZE = 5, 40


def make(**options):
  options = {'drop_rate': 0.0, 'drop_path': 0.0} | options
  model = models.build('swin_micro', classes=CLASSES, **options)
  apply = jax.jit(model.apply, static_argnames=('train', 'axis'))
  model = model._replace(apply=apply)
  return model, *jax.jit(model.init, static_argnums=1)(jax.random.key(0), SIZE)


def images(rows, size=SIZE):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.random((rows, size, size, 3)), jnp.float32)


def test_outputs_and_head_have_the_promised_shapes():
  model, params, state = make()
  assert state == {} and not model.has_batch_norm
  outputs, state = model.apply(params, state, images(3), train=True)
  assert state == {}
  # 40 / 4 = 10 places a side, halved once.
  chex.assert_shape(outputs.features, (3, 5, 5, 32))
  chex.assert_shape(outputs.embedding, (3, 32))
  chex.assert_shape(outputs.logits, (3, CLASSES))
  chex.assert_type(jax.tree.leaves(outputs), jnp.float32)
  mean = outputs.features.mean((1, 2))
  np.testing.assert_allclose(outputs.embedding, mean, atol=1e-5)
  kernel, bias = model.head(params)
  np.testing.assert_array_equal(kernel, np.zeros((32, CLASSES)))
  np.testing.assert_array_equal(bias, np.zeros(CLASSES))
  assert model.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
  ('name', 'size'),
  # Microsoft's table says 28, 50, 88 and 197 million.
  [
    ('swin_t', 28_288_354),
    ('swin_s', 49_606_258),
    ('swin_b', 87_768_224),
    ('swin_l', 196_532_476),
  ],
)
def test_the_models_have_the_published_sizes(name, size):
  model = models.build(name, classes=1000, drop_rate=0, drop_path=0)
  params, _ = jax.eval_shape(
    lambda key: model.init(key, 224), jax.random.key(0)
  )
  assert sum(x.size for x in jax.tree.leaves(params)) == size


def test_windows_are_split_and_joined():
  x = np.arange(2 * 6 * 9 * 5).reshape(2, 6, 9, 5)
  windows = swin.split_windows(x, 3)
  assert windows.shape == (2, 6, 9, 5)
  np.testing.assert_array_equal(windows[1, 4].reshape(3, 3, 5), x[1, 3:6, 3:6])
  np.testing.assert_array_equal(swin.join_windows(windows, 6, 9), x)


def test_relative_positions_are_differences_of_places():
  index = swin.relative_positions(3)
  assert index.shape == (9, 9)
  for q in range(9):
    for k in range(9):
      dy, dx = q // 3 - k // 3, q % 3 - k % 3
      assert index[q, k] == (dy + 2) * 5 + dx + 2


def reference(params, x, heads, window, shift):
  """Windowed attention, place by place, on one map [H, W, C]."""
  height, width, c = x.shape
  rows, columns = (-(-n // window) * window for n in (height, width))
  padded = np.zeros((rows, columns, c))
  padded[:height, :width] = x
  qkv = np.einsum('yxc,cphd->yxphd', padded, params['qkv']['kernel'])
  qkv = qkv + params['qkv']['bias']
  table = params['relative_position_bias']
  out = np.zeros((height, width, heads, c // heads))

  def window_of(y, x):
    # The window of a rolled map, and the side of the seam within it.
    (a, b), (y, x) = ((y < shift), (x < shift)), (y - shift, x - shift)
    return (y % rows) // window, (x % columns) // window, a, b

  for y in range(height):
    for x in range(width):
      mates = [
        (v, u)
        for v in range(rows)
        for u in range(columns)
        if window_of(v, u) == window_of(y, x)
      ]
      for h in range(heads):
        scores = []
        for v, u in mates:
          # Places wrap around, so differences are those of the window.
          dy = (y - shift) % rows - (v - shift) % rows
          dx = (x - shift) % columns - (u - shift) % columns
          row = (dy + window - 1) * (2 * window - 1) + dx + window - 1
          score = qkv[y, x, 0, h] @ qkv[v, u, 1, h] / np.sqrt(c // heads)
          scores.append(score + table[row, h])
        weights = np.exp(scores - np.max(scores))
        weights /= weights.sum()
        values = [qkv[v, u, 2, h] for v, u in mates]
        out[y, x, h] = weights @ np.asarray(values)
  kernel = params['out']['kernel']
  return np.einsum('yxhd,hdc->yxc', out, kernel) + params['out']['bias']


@pytest.mark.parametrize(
  ('height', 'width', 'window', 'shift'),
  [(6, 6, 3, 0), (6, 9, 3, 1), (4, 8, 4, 2), (5, 7, 3, 1), (5, 7, 3, 0)],
)
def test_windowed_attention_is_the_reference_place_by_place(
  height, width, window, shift
):
  net = swin.WindowAttention(2, window, shift, jnp.float32)
  x = jax.random.normal(jax.random.key(0), (2, height, width, 8))
  shapes = jax.eval_shape(net.init, jax.random.key(0), x)['params']
  shapes = meta.unbox(shapes)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda s: rng.standard_normal(s.shape) / 2, shapes)
  ours = jax.jit(net.apply)({'params': jax.tree.map(jnp.float32, params)}, x)
  for i in range(2):
    wanted = reference(params, np.float64(x[i]), 2, window, shift)
    np.testing.assert_allclose(ours[i], wanted, atol=1e-5)


def test_a_map_no_larger_than_the_window_is_one_window():
  model, params, state = make()
  # 8 px: maps of 2 and 1 places under a window of 3.
  small, _ = jax.jit(model.init, static_argnums=1)(jax.random.key(0), 8)
  table = small['stage_0_block_0']['attention']['relative_position_bias']
  assert table.shape == (9, 2)
  outputs, _ = model.apply(small, state, images(1, 8), train=False)
  chex.assert_shape(outputs.features, (1, 1, 1, 32))
  with pytest.raises(UserError, match='windows of 2 x 2 .* 25 rows, not 9'):
    model.apply(params, state, images(1, 8), train=False)
  with pytest.raises(UserError, match='multiple of 4'):
    model.apply(params, state, images(1, 42), train=False)


def test_another_image_size_needs_no_other_weights():
  model, params, state = make()
  outputs, _ = model.apply(params, state, images(1, 56), train=False)
  chex.assert_shape(outputs.features, (1, 7, 7, 32))


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


def test_tables_of_one_size_are_unchanged_and_others_keep_a_constant():
  table = jax.random.normal(jax.random.key(0), (169, 3))
  np.testing.assert_allclose(swin.resample_biases(table, 169), table, atol=1e-6)
  np.testing.assert_allclose(
    swin.resample_biases(jnp.ones((169, 3)), 529), np.ones((529, 3)), rtol=1e-6
  )


@pytest.mark.slow
def test_a_picture_of_the_mean_colour_has_a_finite_gradient():
  """As SSDP makes it: random weights, and patches that are exactly zero."""
  model = models.build('swin_micro', classes=3, drop_rate=0.0, drop_path=0.0)
  params, state = model.init(jax.random.key(0), 48)
  image = jnp.broadcast_to(jnp.asarray(model.mean), (1, 48, 48, 3))

  def loss(params):
    outputs, _ = model.apply(params, state, image, train=True)
    return jnp.sum(outputs.embedding[:, 0])

  gradient = jax.jit(jax.grad(loss))(params)
  assert float(optax.tree.norm(gradient)) < 1e3
