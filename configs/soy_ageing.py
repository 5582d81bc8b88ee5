r"""SoyAgeing: 198 soybean cultivars at five stages, 990 / 990 images each.

  csdnet train --config=soy_ageing:R1

or python -m csdnet_jax.main --config=configs/soy_ageing.py:R1. The argument
is the stage: R1 (the default), R3, R4, R5 or R6. The network is Swin-B; with
ViT-B/16, whose weights are another file:

  csdnet train --config=soy_ageing:R1 \
    --config.model.name=vit_b16 --config.model.drop_path=0.1 \
    --config.init_from=weights/ViT-B_16.npz

Published: 75.39 % top-1, the mean of the five stages, CSDNet with ViT-B/16 at
448 px, as reprinted in Table 1 of arXiv 2409.11051; no figure with Swin-B could
be reached. Measured here: not yet; data and weights must be fetched by hand
(the error of the command says where), and the run wants a GPU.

Memory, as XLA estimates it for one device and this batch of 12 (compiled for a
CPU, which keeps more than a GPU does; --dry_run prints it): Swin-B 40.5 GiB in
float32 and 35.0 in bfloat16, ViT-B/16 41.7 and 42.6, of which 1.0 is the state.
Either fits one GPU of 80 GB. A TPU v4 core (32 GiB) wants two micro-batches,
config.accumulate of 2: 21.1 and 21.7 GiB in float32.
"""

from csdnet_jax.configs import common
from csdnet_jax.runtime.errors import UserError

ARGUMENTS = ('R1', 'R3', 'R4', 'R5', 'R6')


def get_config(stage='R1'):
  """Returns the paper's setting for one stage."""
  if stage not in ARGUMENTS:
    raise UserError(
      f'SoyAgeing has no stage {stage!r}; take one of {", ".join(ARGUMENTS)}, '
      'as in --config=configs/soy_ageing.py:R1.'
    )
  config = common.ufg(f'soy_ageing/{stage}')
  config.notice = (
    'SoyAgeing: the figure that papers print is the mean over the five stages '
    f'{", ".join(ARGUMENTS)}, each trained by itself.'
  )
  return config
