"""Promises of the method that takes no steps."""

import jax
import numpy as np
import pytest

from csdnet_jax import methods
from csdnet_jax.config import default, validate
from csdnet_jax.evaluation import probes
from csdnet_jax.methods.base import Context
from csdnet_jax.runtime.errors import UserError

import tiny


def _made(head):
  config = default()
  config.method.name = 'frozen'
  config.method.frozen.head = head
  return config, methods.make(config, tiny.model())


@pytest.mark.parametrize('head', ['probe', 'prototypes'])
def test_its_logits_are_those_of_the_head(head):
  config, method = _made(head)
  assert methods.fitted(config) == head
  params, model_state = tiny.model().init(jax.random.key(0), tiny.SIZE)
  rng = np.random.default_rng(0)
  fitted = {
    key: rng.normal(size=x.shape).astype(np.float32)
    for key, x in params['head'].items()
  }
  params = params | {'head': fitted}
  batch = tiny.batch(0)
  outputs = method.predict(params, model_state, batch)
  expected = probes.logits(
    probes.Head(**fitted, normalised=head == 'prototypes'),
    outputs['embedding'],
  )
  np.testing.assert_allclose(outputs['logits'], expected, rtol=1e-5, atol=1e-5)
  loss, aux = method.loss(
    params, Context(model_state, (), (), None), batch, jax.random.key(1)
  )
  y = batch['label']
  surprise = np.log(np.exp(expected).sum(axis=1)) - expected[range(len(y)), y]
  assert float(loss) == pytest.approx(surprise.mean(), rel=1e-4)
  assert aux.metrics['loss'] == loss


def test_what_is_trained_has_no_fitted_head():
  for name in methods.METHODS.keys() - {'frozen'}:
    config = default()
    config.method.name = name
    assert methods.fitted(config) == ''


def test_another_head_is_refused():
  config, _ = _made('probe')
  config.method.frozen.head = 'tree'
  with pytest.raises(UserError, match=r'method\.frozen\.head'):
    validate(config)
