r"""CLE-ViT's released loss and optimiser, CSDNet's closest peer (IJCAI 2023).

  csdnet train --config=clevit:cotton80

The argument is a set of the UFG release: cotton80, soy_local, soy_gene,
soy_global, or a stage of SoyAgeing (R1, R3, R4, R5, R6). Without one, a folder:

  csdnet train --config=clevit --config.data.root=my_leaves

The same is python -m csdnet_jax.main --config=configs/clevit.py and so on.

Published: 63.33, 47.17, 78.50, 75.21 and 82.14 % top-1 (Cotton80, SoyLocal,
SoyGene, SoyGlobal, SoyAgeing), with Swin-B at 448 px, the best epoch on the
test list, which is what runs here for a set or a stage. Measured here: not yet.
"""

from csdnet_jax.config import default
from csdnet_jax.configs import common
from csdnet_jax.runtime.errors import UserError

STAGES = ('R1', 'R3', 'R4', 'R5', 'R6')

# The release's weights and rate where they differ from 1, 1 and 1e-3.
SETS = {
  'cotton80': {'aug_weight': 0.75},
  'soy_local': {},
  'soy_gene': {'aug_weight': 0.3, 'contrast_weight': 0.5, 'lr': 2e-3},
  'soy_global': {},
}
ARGUMENTS = (*SETS, *STAGES)


def get_config(name=''):
  """Returns the config for a set, a stage, or a folder."""
  if name in STAGES:
    config = common.clevit(common.ufg(f'soy_ageing/{name}'))
  elif name in SETS:
    config = common.clevit(common.ufg(name), **SETS[name])
  elif not name:
    config = common.clevit(default())
  else:
    raise UserError(
      f'The UFG release has no set {name!r}; take one of '
      f'{", ".join(ARGUMENTS)}, or none for a folder.'
    )
  config.name = f'clevit_{name}' if name else 'clevit'
  return config
