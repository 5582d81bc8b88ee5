"""BatchNorm: its values, its averages, its gradient on one device and more."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from csdnet_jax import sharding
from csdnet_jax.models.batch_norm import BatchNorm, batch_norm


@pytest.mark.parametrize('epsilon', [1e-5, 1e-3])
@pytest.mark.parametrize('relu6', [False, True])
def test_it_normalises_and_moves_its_averages(relu6, epsilon):
  rng = np.random.default_rng(2)
  x = (5 + 2 * rng.normal(size=(4, 3, 5, 6))).astype(np.float32)
  scale, bias, mean, var = (abs(rng.normal(size=6)) for _ in range(4))
  scale *= 4
  variables = {
    'params': {'scale': scale, 'bias': bias},
    'batch_stats': {'mean': mean, 'var': var},
  }

  def wanted(m, v):
    y = (x - m) / np.sqrt(v + epsilon) * scale + bias
    return np.clip(y, 0, 6) if relu6 else y

  y, moved = BatchNorm(True, None, relu6, epsilon).apply(
    variables, x, mutable=['batch_stats']
  )
  m, v = x.mean((0, 1, 2)), x.var((0, 1, 2))
  np.testing.assert_allclose(y, wanted(m, v), atol=1e-4)
  chex.assert_trees_all_close(
    moved['batch_stats'],
    {'mean': 0.9 * mean + 0.1 * m, 'var': 0.9 * var + 0.1 * v},
    rtol=1e-4,
  )
  # Where they may not move they stand in training too.
  for train in (False, True):
    y = BatchNorm(train, None, relu6, epsilon).apply(variables, x)
    np.testing.assert_allclose(y, wanted(mean, var), rtol=1e-4, atol=1e-4)


def plain(x, scale, bias, weight, epsilon, relu6):
  m = x.mean((0, 1, 2))
  v = ((x - m) ** 2).mean((0, 1, 2))
  y = (x - m) / jnp.sqrt(v + epsilon) * scale + bias
  return (weight * (jnp.clip(y, 0, 6) if relu6 else y)).sum()


@pytest.mark.parametrize('devices', [1, 4])
@pytest.mark.parametrize('epsilon', [1e-5, 1e-3])
@pytest.mark.parametrize('relu6', [False, True])
def test_the_gradient_is_the_derived_one(relu6, epsilon, devices):
  rng = np.random.default_rng(2)
  shape = (4, 3, 5, 6)
  x, scale, bias = 2 + 3 * rng.normal(size=shape), *1 + rng.normal(size=(2, 6))
  x[..., 0] = 7  # A channel that says nothing.
  weight = rng.normal(size=shape)
  axis = 'data' if devices > 1 else None

  def gradients(x, scale, bias, weight):
    def loss(x, scale, bias):
      y, _, _ = batch_norm(x, scale, bias, epsilon, relu6, axis)
      return (weight * y).sum()

    dx, *shared = jax.grad(loss, (0, 1, 2))(x, scale, bias)
    return dx, *(shared if axis is None else jax.lax.psum(shared, axis))

  if devices > 1:
    gradients = jax.shard_map(
      gradients,
      mesh=sharding.make_mesh(jax.devices()[:devices]),
      in_specs=(P('data'), P(), P(), P('data')),
      out_specs=(P('data'), P(), P()),
      check_vma=False,
    )
  with jax.enable_x64(True):
    derived = functools.partial(plain, epsilon=epsilon, relu6=relu6)
    wanted = jax.grad(derived, (0, 1, 2))(x, scale, bias, weight)
    found = jax.jit(gradients)(x, scale, bias, weight)
    chex.assert_type(found, jnp.float64)
    chex.assert_trees_all_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_bfloat16_keeps_its_moments_in_float32():
  x = jax.random.normal(jax.random.key(0), (8, 9, 9, 4), jnp.bfloat16)
  one = jnp.ones(4)
  y, m, v = batch_norm(x, one, one, 1e-5, False, None)
  chex.assert_type([y, m, v], [jnp.bfloat16, jnp.float32, jnp.float32])
  np.testing.assert_allclose(m, np.float32(x).mean((0, 1, 2)), atol=1e-5)
  np.testing.assert_allclose(v, np.float32(x).var((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize('epsilon', [1e-5, 1e-3])
def test_a_constant_stays_finite(epsilon):
  x = jnp.full((2, 3, 3, 4), 1e3)
  one = jnp.ones(4)
  y, m, v = batch_norm(x, one, one, epsilon, False, None)
  chex.assert_trees_all_close((y, m, v), (jnp.ones_like(y), m * 0 + 1e3, 0 * v))
