"""The paper's setting at its full size: two steps on drawn leaves."""

import json

import pytest

import command

pytestmark = pytest.mark.slow


def test_soy_ageing_takes_two_steps_at_448_pixels(tmp_path):
  """The drawn leaves are written, and read, in the release's layout."""
  fields = {
    'model.name': 'vit_b16', 'init_from': '', 'data.source': 'leaves',
    'data.leaves.cultivars': 4, 'data.leaves.train_per_class': 1,
    'data.leaves.test_per_class': 1, 'data.leaves.size': 512,
    # An image a step: of two, a ViT keeps 11 GB for the gradient.
    'data.cache': tmp_path / 'cache', 'batch_size': 1, 'epochs': 0.5,
    'optim.warmup': 0.0, 'method.csdnet.queue': 8,
  }  # fmt: skip
  status, output = command.run(
    '--config=configs/soy_ageing.py',
    *(f'--config.{key}={value}' for key, value in fields.items()),
    f'--workdir={tmp_path / "run"}',
    # Compiled as for a user: the tests' quick compiling makes slow programs.
    env={'XLA_FLAGS': ''},
  )
  assert status == 0, output
  assert 'csdnet with vit_b16 at 448 px' in output
  summary = json.loads((tmp_path / 'run' / 'summary.json').read_text())
  assert (summary['steps'], summary['n_test']) == (2, 4)
