"""What a config makes, also where JAX traces its numbers."""

import jax
import numpy as np
import pytest

from csdnet_jax import optim
from csdnet_jax.config import default
from csdnet_jax.runtime.fields import Values
from csdnet_jax.training.build import build, parts

import tiny

OPTIM = {'lr': 0.02, 'weight_decay': 0.1, 'clip': 0.7, 'label_smoothing': 0.2}
VIEWS = {'area': (0.5, 0.9), 'rotate': 30.0, 'contrast': 0.2}
METHODS = {
  'supervised': {},
  'supcon': {'weight': 0.5, 'temperature': 0.3},
  'csdnet': {'alpha': 0.7, 'margin': 0.2, 'temperature': 2.0, 'mode': 'none'},
}


def _config(name):
  config = default()
  config.batch_size, config.epochs = 8, 5.0
  config.model.size = tiny.SIZE
  config.data.canvas = tiny.SIZE + 4
  config.method.name = name
  config.method.csdnet.queue = 24
  return config.to_dict()


def _after_three_steps(name, ema, optim, views, own, multiplier, seed):
  """The state of the tiny model, after three steps with these numbers."""
  config = _config(name)
  config['ema'] = ema
  config['optim']['name'] = 'sgd'  # Adam would amplify rounding.
  groups = (('^head/', multiplier, True), ('bias', 0.0, True))
  config['optim'] |= optim | {'groups': groups}
  config['views'] |= views
  config['method'][name] |= own
  made = parts(
    Values(config), tiny.model(), n_train=20, seed=seed, platform='cpu'
  )
  state = made.init(*tiny.model().init(jax.random.key(0), tiny.SIZE))
  for i in range(3):
    state, _ = made.train_step(state, tiny.batch(i), ())
  return state


@pytest.mark.parametrize('name', METHODS)
def test_a_traced_number_does_what_the_number_does(name):
  mode = {k: v for k, v in METHODS[name].items() if isinstance(v, str)}
  own = {k: v for k, v in METHODS[name].items() if k not in mode}

  def run(ema, optim, views, own, multiplier, seed):
    own = own | mode
    return _after_three_steps(name, ema, optim, views, own, multiplier, seed)

  numbers = 0.9, OPTIM, VIEWS, own, 3.0, 7
  as_numbers = jax.jit(lambda: run(*numbers))()
  traced = jax.jit(run)(*numbers)
  for one, other in zip(
    jax.tree.leaves(as_numbers), jax.tree.leaves(traced), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_the_values_of_a_method_are_read_and_never_set():
  config = Values(_config('csdnet'))
  assert config.method.csdnet.hidden == (0.15, 0.45)
  assert config['method']['csdnet']['alpha'] == 1.0
  with pytest.raises(AttributeError, match='change the config'):
    config.method.csdnet.alpha = 2.0
  with pytest.raises(AttributeError, match='no field .alfa.'):
    _ = config.method.csdnet.alfa


def _step_of(tune, accumulate):
  """A step of the tiny ViT, compiled, its first state and a batch."""
  config = default()
  config.batch_size, config.model.size, config.data.canvas = 16, 32, 32
  config.accumulate, config.method.name = accumulate, 'supervised'
  config.model.update(name='vit_tiny', drop_rate=0.0)
  config.optim.update(tune=tune, warmup=0.0)
  program = build(config, classes=3, n_train=64, devices=jax.devices()[:1])
  state = program.init()
  rng = np.random.default_rng(0)
  batch = {
    'image': rng.integers(0, 256, (16, 32, 32, 3), np.uint8),
    'extent': np.full((16, 2), 32, np.int32),
    'label': rng.integers(0, 3, 16).astype(np.int32),
    'id': np.arange(16, dtype=np.int32),
  }
  return program.train_step.lower(state, batch, ()).compile(), state, batch


def _changed(old, new):
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), old, new)
  return {name for name, on in optim.names(moved).items() if on}


@pytest.mark.slow
@pytest.mark.parametrize('accumulate', [1, 2])
def test_what_is_frozen_costs_neither_gradients_nor_a_state(accumulate):
  needed, moved = {}, {}
  for tune in ('all', 'norms', 'head'):
    step, state, batch = _step_of(tune, accumulate)
    held = sum(x.nbytes for x in jax.tree.leaves(state.opt_state))
    needed[tune] = held, step.memory_analysis().temp_size_in_bytes
    before = jax.device_get(state.params)
    # The head starts at zero, through which nothing learns in the first step.
    after, figures = step(step(state, batch, ())[0], batch, ())
    moved[tune] = _changed(before, jax.device_get(after.params))
    assert figures['grad_norm'] > 0
  # Two moments of a head of 32 x 3 and 3, and counters.
  assert needed['head'][0] < 8 * (32 * 3 + 3) + 32
  assert needed['head'][0] < needed['norms'][0] < 0.1 * needed['all'][0]
  # Backpropagation keeps nothing of what is below a frozen head.
  assert needed['head'][1] < 0.5 * needed['all'][1]
  assert needed['norms'][1] < needed['all'][1]
  assert moved['head'] == {'head/kernel', 'head/bias'}
  assert moved['head'] < moved['norms'] < moved['all']
  assert {name.split('/')[-2] for name in moved['norms']} == {
    'head', 'encoder_norm', 'LayerNorm_0', 'LayerNorm_2'
  }  # fmt: skip
