"""CSDNet's second view: which map, mask and filling make it."""

import functools

import jax
import numpy as np
import pytest

from csdnet_jax import methods, models
from csdnet_jax.methods.base import Context
from csdnet_jax.methods.csdnet import scene
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.fields import Values

import tiny


def test_a_network_gives_its_last_map_of_stride_8():
  config = tiny.config(map='fine')
  images = np.zeros((2, 64, 64, 3), np.float32)
  for name, stride in (('efficientnet_lite0', 8), ('efficientnet_tiny', 4)):
    model = models.build(name, classes=5, drop_rate=0.0, drop_path=0.0)
    methods.make(config, model)
    params, state = jax.eval_shape(
      lambda m=model: m.init(jax.random.key(0), 64)
    )
    found, _ = jax.eval_shape(
      lambda p, s, m=model: m.apply(p, s, images, train=False), params, state
    )
    channels = 40 if stride == 8 else 16
    assert found.fine.shape == (2, 64 // stride, 64 // stride, channels)


def test_a_network_without_that_map_is_refused():
  model = models.build('vit_tiny', classes=5, drop_rate=0.0, drop_path=0.0)
  with pytest.raises(UserError, match=r"gives no map of stride 8.*map='last'"):
    methods.make(tiny.config(map='fine'), model)
  methods.make(tiny.config(map='fine', mode='none'), model)


@functools.partial(jax.jit, static_argnames=('mode', 'fill'))
def _second_views(batch, hidden, *, mode, fill):
  """The second view as the network sees it, and what `views` drew for it."""
  nested = tiny.config(mode=mode, fill=fill).to_dict()
  nested['method']['csdnet']['hidden'] = hidden
  model, seen = tiny.model(has_batch_norm=True), []

  def apply(params, state, images, **kwargs):
    seen.append(images)
    return model.apply(params, state, images, **kwargs)

  method = methods.make(Values(nested), model._replace(apply=apply))
  params, state = model.init(jax.random.key(1), tiny.SIZE)
  keys = jax.random.split(jax.random.key(9), len(batch['id']))
  batch = method.views(keys, batch)
  context = Context(state, (), (), None)
  method.loss(params, context, batch, jax.random.key(0))
  return seen[1], batch['aug']


def _views(hidden, mode='spotlight', fill='colour'):
  return _second_views(
    tiny.batch(0, 32), (hidden, hidden), mode=mode, fill=fill
  )


def _changed(hidden, **options):
  """Which share of each second view is masked, [B]."""
  seen, drawn = _views(hidden, **options)
  return (np.abs(seen - drawn).max(-1) > 1e-6).mean((1, 2))


@pytest.mark.parametrize('mode', ['spotlight', 'erase'])
def test_a_small_share_can_be_hidden(mode):
  changed = _changed(0.02, mode=mode)
  assert changed.min() >= 0.02 and changed.max() < 0.06
  assert not _changed(0.0, mode=mode).any()


@pytest.mark.parametrize('fill', ['colour', 'blur'])
def test_what_is_hidden_takes_the_filling(fill):
  seen, drawn = _views(1.0, fill=fill)
  expected = {
    'colour': lambda views: np.full_like(views, 0.5),
    'blur': lambda views: scene.blur(views, 1.0),
  }[fill](drawn)
  np.testing.assert_allclose(seen, expected, atol=1e-5)
