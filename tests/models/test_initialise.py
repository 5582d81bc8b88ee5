"""Initial parameters: declared where they are made, from one draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from csdnet_jax import models
from csdnet_jax.models import initialise

# The sum of all parameters, of 3 classes and key 3.
SUMS = {
  'efficientnet_tiny': 176.355,
  'resnet_tiny': 761.094,
  'vit_tiny': 107.944,
  'vit_tiny_gap': 107.510,
  'dinov2_tiny': 235.944,
  'dinov2_tiny_reg': 235.944,
  'psp_tiny': 111.225,
  'swin_micro': 227.209,
}


def make(name, seed=3, **options):
  model = models.build(name, classes=3, drop_rate=0.0, drop_path=0.0, **options)
  size = 33 if models.segments(name) else 32
  init = jax.jit(model.init, static_argnums=1)
  return model, size, init(jax.random.key(seed), size)


def total(params):
  return sum(np.sum(np.float64(x)) for x in jax.tree.leaves(params))


@pytest.mark.parametrize('name', SUMS)
def test_every_network_keeps_its_first_values(name):
  model, size, (params, state) = make(name)
  assert type(params) is dict
  np.testing.assert_allclose(total(params), SUMS[name], atol=2e-3)
  shapes = jax.eval_shape(lambda key: model.init(key, size), jax.random.key(0))
  assert jax.tree.structure(shapes) == jax.tree.structure((params, state))
  np.testing.assert_array_equal(params['head']['kernel'], 0)
  # One draw: each further one would take long to compile.
  program = jax.make_jaxpr(lambda key: model.init(key, size))
  assert str(program(jax.random.key(0))).count('random_bits') == 1


def test_what_is_random_has_its_deviation_and_differs_by_key():
  _, _, (params, _) = make('vit_tiny', remat=True)
  block = params['Transformer']['encoderblock_1']
  mlp = block['MlpBlock_3']['Dense_0']
  assert abs(mlp['kernel'].std() / np.sqrt(2 / (32 + 128)) - 1) < 0.05
  np.testing.assert_array_equal(mlp['bias'], 0)
  np.testing.assert_array_equal(block['LayerNorm_0']['scale'], 1)
  other = make('vit_tiny', seed=4)[2][0]
  other = other['Transformer']['encoderblock_1']['MlpBlock_3']['Dense_0']
  assert (
    abs(np.corrcoef(mlp['kernel'].ravel(), other['kernel'].ravel())[0, 1]) < 0.1
  )


class Net(nn.Module):
  """A network with one layer that is declared and one that is not."""

  classes: int
  drop_rate: float
  drop_path: float
  remat: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, *, train, keys, axis):
    plain = nn.Dense(5, name='plain')
    y = nn.Dense(
      4, kernel_init=initialise.normal(2.0), bias_init=initialise.ones
    )(plain(x))
    z = y.mean((1, 2))
    head = nn.Dense(
      self.classes, kernel_init=initialise.zeros, bias_init=initialise.zeros,
      name='head',
    )  # fmt: skip
    return y, z, head(z)


def test_a_parameter_that_is_not_declared_is_named(monkeypatch):
  spec = models.ModelSpec(Net, (0.5,) * 3, (0.5,) * 3, declared=True)
  monkeypatch.setitem(models.KNOWN, 'half', spec)
  with pytest.raises(ValueError, match='parameter plain/bias is not declared'):
    make('half')


def test_outside_networks_may_declare_some(monkeypatch):
  spec = models.ModelSpec(Net, (0.5,) * 3, (0.5,) * 3)
  monkeypatch.setitem(models.KNOWN, 'half', spec)
  _, _, (params, _) = make('half')
  assert params['plain']['kernel'].std() > 0.1
  assert params['Dense_0']['kernel'].std() > 1
  np.testing.assert_array_equal(params['Dense_0']['bias'], 1)
  np.testing.assert_array_equal(params['head']['kernel'], 0)
