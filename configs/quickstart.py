r"""The first run, on a CPU: CSDNet, without SSDP, on leaves that it draws.

  csdnet train --config=quickstart

or python -m csdnet_jax.main --config=configs/quickstart.py.

Measured here, on the test part of 96 leaves: 70.8, 57.3, 63.5, 62.5 and 66.7 %
top-1 with seeds 0 to 4 on one kind of CPU; another kind gives a seed another
figure. A linear probe on the features before training has 49.0.
"""

from csdnet_jax.config import default


def get_config():
  """Returns the config."""
  config = default()
  config.name = 'quickstart'
  config.epochs = 16.0
  config.eval_every = 4.0
  config.data.source = 'leaves'
  config.data.aspect = 'square'
  config.model.size = 112
  config.method.csdnet.mode = 'none'  # As in folder.py, which says why.
  return config
