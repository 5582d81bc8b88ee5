r"""SoyGene: 1,110 soybean accessions, 12,763 / 11,143 images.

  csdnet train --config=soy_gene

or python -m csdnet_jax.main --config=configs/soy_gene.py. The network is
Swin-B; configs/soy_ageing.py says how to run with ViT-B/16.

Published: 70.82 % top-1, CSDNet with ViT-B/16 at 448 px, as reprinted in
Table 1 of arXiv 2409.11051; no figure with Swin-B could be reached.
Measured here: not yet; data and weights must be fetched by hand (the error of
the command says where), and the run wants a GPU.
"""

from csdnet_jax.configs import common


def get_config():
  """Returns the paper's setting for this set."""
  config = common.ufg('soy_gene')
  # CLE-ViT's for this set.
  config.optim.lr = 2e-3 * 12 / 512
  config.method.csdnet.update(aug_weight=0.3, alpha=0.5)
  return config
