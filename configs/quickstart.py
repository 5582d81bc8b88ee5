r"""The first run, on a CPU: CSDNet, without SSDP, on leaves that it draws.

  csdnet train --config=quickstart

or python -m csdnet_jax.main --config=configs/quickstart.py.

Measured here, on the test part of 96 leaves: QUICKSTART_RANGE.
A linear probe on the features before training has 48.96 % top-1. At commit
3fbbd39 training took 77 s on 2 CPU cores.
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
