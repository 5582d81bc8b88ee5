"""Baselines are kept by what decides them, and by nothing else."""

import jax
import numpy as np
import pytest

from csdnet_jax.runtime.errors import UserError
from csdnet_jax.tasks import baselines, classification

import runs

FIGURES = {'knn': 10.0, 'prototypes': 20.5, 'linear_probe': 30.0}


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  return runs.config(tmp_path_factory.mktemp('cache'))


@pytest.fixture(scope='module')
def dataset(config):
  return classification.load(config)


def _weights(stem=1.0, head=1.0):
  return {'stem': {'kernel': np.full(3, stem)}, 'head': np.full(2, head)}


def _changed(config, **fields):
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(fields)
  return config


def test_weights_images_and_how_they_are_seen_decide(config, dataset):
  known = baselines.place(config, dataset, _weights(), {})
  others = [
    baselines.place(config, dataset, _weights(stem=2.0), {}),
    baselines.place(config, dataset, _weights(), {'mean': np.zeros(2)}),
    baselines.place(
      config, dataset._replace(test=dataset.train), _weights(), {}
    ),
    baselines.place(
      _changed(config, **{'data.test_resize': 40}), dataset, _weights(), {}
    ),
    baselines.place(
      _changed(config, **{'model.size': 40}), dataset, _weights(), {}
    ),
  ]
  assert len({known, *others}) == 6


def test_what_is_trained_and_how_does_not(config, dataset):
  fields = {
    'optim.lr': 0.5, 'seed': 3, 'method.name': 'supervised',
    'model.drop_path': 0.1, 'batch_size': 2, 'name': 'other',
  }  # fmt: skip
  one, other = (
    baselines.place(c, dataset, _weights(head=h), {})
    for c, h in ((config, 1.0), (_changed(config, **fields), 2.0))
  )
  assert one == other
  on_device = jax.tree.map(np.asarray, jax.device_put(_weights()))
  assert baselines.place(config, dataset, on_device, {}) != one  # float32.


def test_a_file_that_cannot_be_read_is_none(tmp_path):
  path = tmp_path / 'baselines' / 'x.json'
  assert baselines.read(path) is None
  baselines.write(path, FIGURES)
  assert baselines.read(path) == FIGURES
  assert [p.name for p in path.parent.iterdir()] == ['x.json']
  for text in ('', '[1]', '{"knn": 1}', '{"knn": "a"}'):
    path.write_text(text)
    assert baselines.read(path) is None


def test_a_cache_that_cannot_be_written_is_a_sentence(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='config.data.cache'):
    baselines.write(tmp_path / 'file' / 'x.json', FIGURES)
