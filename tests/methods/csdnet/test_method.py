"""CSDNet's second view: which map, mask and filling make it."""

import jax
import numpy as np
import pytest

from csdnet_jax import methods, models
from csdnet_jax.runtime.errors import UserError

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
