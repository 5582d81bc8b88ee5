r"""CSDNet on leaves that the program draws itself: the first run, on a CPU.

python -m csdnet_jax.main --config=configs/quickstart.py
"""

from csdnet_jax.config import default


def get_config():
  """Returns the config."""
  config = default()
  config.name = 'quickstart'
  config.epochs = 16.0
  config.eval_every = 4.0
  config.data.source = 'leaves'
  config.data.canvas = 128
  config.data.aspect = 'square'
  config.model.size = 112
  return config
