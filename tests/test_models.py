"""What holds for every backbone."""

import chex
import jax
import jax.numpy as jnp
import pytest

from csdnet_jax import models


@pytest.mark.parametrize('name', ['efficientnet_tiny', 'vit_tiny'])
def test_recomputed_blocks_give_the_same_gradients(name):
  images = jax.random.uniform(jax.random.key(1), (4, 32, 32, 3))
  keys = jax.random.split(jax.random.key(2), 4)

  def gradients(remat):
    model = models.build(
      name, classes=3, drop_rate=0.1, drop_path=0.5, remat=remat
    )
    params, state = model.init(jax.random.key(0), 32)

    def loss(params):
      outputs, _ = model.apply(params, state, images, train=True, keys=keys)
      return jnp.sum(outputs.embedding**2)

    return jax.jit(jax.grad(loss))(params)

  chex.assert_trees_all_close(
    gradients(True), gradients(False), rtol=1e-4, atol=1e-5
  )
