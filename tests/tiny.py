"""A tiny model and batch in plain JAX: tests of the step compile fast."""

import jax
import jax.numpy as jnp
import numpy as np

from csdnet_jax import config as config_lib
from csdnet_jax.models import Model, Outputs

WIDTH, CLASSES, SIZE = 12, 5, 16


def model(*, has_batch_norm: bool = False) -> Model:
  """4 x 4 patches, a dense layer, tanh, the mean, a head.

  With `has_batch_norm` the embedding is centred by the batch's mean, whose
  running average is the model state.
  """

  def init(key, size):
    del size
    keys = jax.random.split(key, 2)
    params = {
      'stem': {'kernel': 0.3 * jax.random.normal(keys[0], (48, WIDTH))},
      'head': {
        'kernel': 0.3 * jax.random.normal(keys[1], (WIDTH, CLASSES)),
        'bias': jnp.zeros(CLASSES),
      },
    }
    return params, {'mean': jnp.zeros(WIDTH)} if has_batch_norm else {}

  def apply(params, state, images, *, train, keys=None, axis=None):
    del keys
    b, h, w, _ = images.shape
    x = images.reshape(b, h // 4, 4, w // 4, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(b, h // 4, w // 4, 48) - 0.5
    features = jnp.tanh(x @ params['stem']['kernel'])
    embedding = features.mean((1, 2))
    if has_batch_norm and train:
      mean = embedding.mean(0)
      mean = mean if axis is None else jax.lax.pmean(mean, axis)
      state = {'mean': 0.9 * state['mean'] + 0.1 * mean}
      embedding = embedding - mean
    elif has_batch_norm:
      embedding = embedding - state['mean']
    logits = embedding @ params['head']['kernel'] + params['head']['bias']
    return Outputs(features, embedding, logits), state

  def head(params):
    return params['head']['kernel'], params['head']['bias']

  return Model(init, apply, head, has_batch_norm, (0.5, 0.5, 0.5))


def config(**csdnet):
  """A config for the tiny model: batch 8, a queue of 24."""
  c = config_lib.default()
  c.batch_size = 8
  c.model.size = SIZE
  c.data.canvas = SIZE + 4
  c.data.test_resize = SIZE
  c.optim.lr = 0.01
  c.method.csdnet.queue = 24
  c.method.csdnet.update(**csdnet)
  return c


def batch(seed: int, rows: int = 8):
  """A batch of random canvases."""
  rng = np.random.default_rng(seed)
  side = SIZE + 4
  return {
    'image': rng.integers(0, 256, (rows, side, side, 3), np.uint8),
    'extent': np.full((rows, 2), side, np.int32),
    'label': rng.integers(0, CLASSES, rows).astype(np.int32),
    'id': rng.integers(0, 30, rows).astype(np.int32),
  }
