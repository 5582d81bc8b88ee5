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
def _second_views(batch, numbers, progress, *, mode, fill):
  """The second view as the network sees it, and what `views` drew for it."""
  nested = tiny.config(mode=mode, fill=fill).to_dict()
  nested['method']['csdnet'] |= numbers
  model, seen = tiny.model(has_batch_norm=True), []

  def apply(params, state, images, **kwargs):
    seen.append(images)
    return model.apply(params, state, images, **kwargs)

  method = methods.make(Values(nested), model._replace(apply=apply))
  params, state = model.init(jax.random.key(1), tiny.SIZE)
  keys = jax.random.split(jax.random.key(9), len(batch['id']))
  batch = method.views(keys, batch)
  context = Context(state, (), (), None, progress)
  method.loss(params, context, batch, jax.random.key(0))
  return seen[1], batch.get('filling'), batch['aug']


def _views(mode='spotlight', fill='colour', progress=0.0, **numbers):
  start = {'hidden': (0.15, 0.45), 'share': 1.0, 'start': 0.0}
  batch = tiny.batch(0, 32)
  if fill == 'class':
    other = tiny.batch(1, 32)
    batch |= {'other': other['image'], 'other_extent': other['extent']}
  return _second_views(batch, start | numbers, progress, mode=mode, fill=fill)


def _changed(**options):
  """Which pixels of the second views are masked, [B, S, S]."""
  seen, _, drawn = _views(**options)
  return np.abs(seen - drawn).max(-1) > 1e-6


def _masked(**options):
  return _changed(**options).any((1, 2))


@pytest.mark.parametrize('mode', ['spotlight', 'erase'])
def test_masks_start_when_told_and_leave_a_share_of_the_views(mode):
  assert _masked(mode=mode).all()
  assert not _masked(mode=mode, start=0.5, progress=0.49).any()
  assert _masked(mode=mode, start=0.5, progress=0.5).all()
  assert not _masked(mode=mode, share=0.0).any()
  assert 8 < _masked(mode=mode, share=0.5).sum() < 24


def test_a_small_share_can_be_hidden():
  changed = _changed(hidden=(0.02, 0.02)).mean((1, 2))
  assert changed.min() >= 0.02 and changed.max() < 0.06
  assert not _masked(hidden=(0.0, 0.0)).any()


@pytest.mark.parametrize('fill', ['colour', 'blur', 'background', 'class'])
def test_what_is_hidden_takes_the_filling(fill):
  seen, other, drawn = _views(fill=fill, hidden=(1.0, 1.0))
  expected = {
    'colour': lambda views: np.full_like(views, 0.5),
    'blur': lambda views: scene.blur(views, 1.0),
    'background': lambda views: np.broadcast_to(
      scene.background(views)[:, None, None], views.shape
    ),
    'class': lambda views: other,
  }[fill](drawn)
  np.testing.assert_allclose(seen, expected, atol=1e-5)
