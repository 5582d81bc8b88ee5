r"""SoyLocal: 200 soybean cultivars, 600 / 600 images.

  csdnet train --config=soy_local

or python -m csdnet_jax.main --config=configs/soy_local.py. The network is
Swin-B; configs/soy_ageing.py says how to run with ViT-B/16.

Published: 46.17 % top-1, CSDNet with ViT-B/16 at 448 px, as reprinted in
Table 1 of arXiv 2409.11051; no figure with Swin-B could be reached.
Measured here: not yet; data and weights must be fetched by hand (the error of
the command says where), and the run wants a GPU.
"""

from csdnet_jax.configs import common


def get_config():
  """Returns the paper's setting for this set."""
  return common.ufg('soy_local')
