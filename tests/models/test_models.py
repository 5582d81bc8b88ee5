"""What holds for every backbone."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax import models
from csdnet_jax.runtime.errors import UserError


@pytest.mark.parametrize(
  'name',
  [
    'efficientnet_tiny', 'vit_tiny',
    pytest.param('swin_micro', marks=pytest.mark.slow),
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


@pytest.mark.parametrize('name', ['vit_tiny', 'dinov2_tiny_reg', 'swin_micro'])
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


def test_a_model_that_is_not_there_gets_the_nearest_name():
  with pytest.raises(UserError, match="mean 'swin_b'"):
    models.build('swinb', classes=2, drop_rate=0.0, drop_path=0.0)
