"""A tiny model and batch in plain JAX: tests of the step compile fast."""

import jax
import jax.numpy as jnp
import numpy as np

from csdnet_jax import methods, optim, sharding
from csdnet_jax.config import default
from csdnet_jax.models import Model, Outputs
from csdnet_jax.state import TrainState
from csdnet_jax.step import make_train_step

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
  c = default()
  c.batch_size = 8
  c.model.size = SIZE
  c.data.canvas = SIZE + 4
  c.data.test_resize = SIZE
  c.optim.lr = 0.01
  c.method.csdnet.queue = 24
  c.method.csdnet.update(**csdnet)
  return c


def batch(seed: int, rows: int = 8, side: int = SIZE + 4):
  """A batch of random canvases."""
  rng = np.random.default_rng(seed)
  return {
    'image': rng.integers(0, 256, (rows, side, side, 3), np.uint8),
    'extent': np.full((rows, 2), side, np.int32),
    'label': rng.integers(0, CLASSES, rows).astype(np.int32),
    'id': rng.integers(0, 30, rows).astype(np.int32),
  }


def setup(config, *, devices=1, has_batch_norm=False):
  """Returns the step, its first state on some devices, and their mesh."""
  tiny_model = model(has_batch_norm=has_batch_norm)
  method = methods.make(config, tiny_model)
  mesh = sharding.make_mesh(jax.devices()[:devices])
  params, model_state = tiny_model.init(jax.random.key(0), SIZE)
  tx = optim.make(config.optim, params, steps=50, warmup_steps=0)
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model_state=model_state,
    opt_state=tx.init(params),
    memory=method.init_memory(WIDTH),
    ema=(params, model_state) if config.ema else (),
  )
  step = make_train_step(
    method, tx, seed=3, ema=config.ema, accumulate=config.accumulate,
    axis=sharding.axis_of(mesh),
  )  # fmt: skip
  return step, sharding.replicate(state, mesh), mesh


def run(config, steps, **kwargs):
  """Returns the state and the figures after some steps."""
  step, state, mesh = setup(config, **kwargs)
  compiled = sharding.compile_step(
    step, mesh, donate=True, parallel=config.parallel
  )
  order = sharding.row_order(8, mesh.size, config.accumulate)
  for i in range(steps):
    rows = {name: x[order] for name, x in batch(i).items()}
    state, figures = compiled(state, sharding.shard_batch(rows, mesh), ())
  return jax.device_get(state), jax.device_get(figures)
