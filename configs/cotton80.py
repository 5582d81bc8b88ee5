r"""Cotton80: 80 cotton cultivars, 240 / 240 images.

  csdnet train --config=cotton80

or python -m csdnet_jax.main --config=configs/cotton80.py. The network is
Swin-B; configs/soy_ageing.py says how to run with ViT-B/16.

Published: 57.92 % top-1, CSDNet with ViT-B/16 at 448 px, as reprinted in
Table 1 of arXiv 2409.11051; no figure with Swin-B could be reached.
Measured here: not yet; data and weights must be fetched by hand (the error of
the command says where), and the run wants a GPU.
"""

from csdnet_jax.configs import common


def get_config():
  """Returns the paper's setting for this set."""
  config = common.ufg('cotton80')
  config.method.csdnet.aug_weight = 0.75  # CLE-ViT's for this set.
  return config
