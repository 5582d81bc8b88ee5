"""Every config file resolves, is valid, and makes its abstract train state."""

import importlib.util
import pathlib
import re

import jax
import pytest

from csdnet_jax.config import default, validate
from csdnet_jax.models.weights import published
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.fields import flat
from csdnet_jax.training.build import build

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
FILES = sorted(
  set(CONFIGS.glob('*.py')) - {CONFIGS / '__init__.py', CONFIGS / 'common.py'}
)


def _module(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _variants():
  for path in FILES:
    if path.stem != 'tfds':  # Its argument must be given.
      yield path, ()
    for stage in getattr(_module(path), 'ARGUMENTS', ()):
      yield path, (stage,)


@pytest.mark.parametrize(('path', 'args'), list(_variants()))
def test_a_config_makes_its_train_state(path, args):
  config = _module(path).get_config(*args)
  validate(config)
  assert set(flat(config.to_dict())) == set(flat(default().to_dict()))
  run = build(config, classes=20, n_train=600, devices=jax.devices()[:1])
  state = jax.eval_shape(run.init)
  assert state.params['head']['kernel'].shape[1] == 20
  assert run.steps > 0


@pytest.mark.parametrize('path', FILES)
def test_the_docstring_holds_the_command(path):
  doc = _module(path).__doc__
  assert f'--config=configs/{path.name}' in doc
  if 'ufg' in path.read_text() or path.stem.startswith('apd'):
    assert 'Published' in doc and 'Measured here' in doc


def test_an_unknown_arm_is_refused():
  with pytest.raises(UserError, match="no arm 'adp'.*Did you mean .apd."):
    _module(CONFIGS / 'apd_camvid.py').get_config('adp')


def test_an_unknown_stage_is_refused():
  with pytest.raises(UserError, match="no stage 'R2'"):
    _module(CONFIGS / 'soy_ageing.py').get_config('R2')


def test_the_paper_s_other_backbone_is_three_fields_away():
  path = CONFIGS / 'soy_ageing.py'
  config = _module(path).get_config()
  assert (config.model.name, config.model.drop_path) == ('swin_b', 0.5)
  assert config.init_from == 'pretrained'
  assert published.find('swin_b').data == 'ImageNet-22k'
  doc = ' '.join(_module(path).__doc__.split())
  fields = dict(re.findall(r'--config\.([\w.]+)=(\S+)', doc))
  assert fields.keys() == {'model.name', 'model.drop_path', 'init_from'}
  config.update_from_flattened_dict(
    fields | {'model.drop_path': float(fields['model.drop_path'])}
  )
  validate(config)
  run = build(config, classes=20, n_train=600, devices=jax.devices()[:1])
  assert 'Transformer' in jax.eval_shape(run.init).params


def test_a_set_of_tfds_must_be_named():
  with pytest.raises(UserError, match='caltech_birds2011, cars196, stanford'):
    _module(CONFIGS / 'tfds.py').get_config()


def test_clevit_keeps_the_release_s_weights_for_each_set():
  get_config = _module(CONFIGS / 'clevit.py').get_config
  for name, weights in {
    '': (1.0, 1.0, 1e-3),
    'R5': (1.0, 1.0, 1e-3),
    'cotton80': (0.75, 1.0, 1e-3),
    'soy_gene': (0.3, 0.5, 2e-3),
  }.items():
    config = get_config(name)
    c = config.method.csdnet
    assert (c.aug_weight, c.alpha) == weights[:2]
    assert config.optim.lr == pytest.approx(weights[2] * 12 / 512)
    assert (c.mode, c.queue, c.beta, c.averaging) == ('views', 0, 0.0, 'joint')
  with pytest.raises(UserError, match='no set'):
    get_config('cotton81')


def test_soy_ageing_says_what_the_papers_print():
  config = _module(CONFIGS / 'soy_ageing.py').get_config('R4')
  assert 'mean over the five stages' in config.notice
  assert config.data.name == 'soy_ageing/R4'
