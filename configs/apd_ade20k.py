r"""APD on ADE20K, 150 classes: PSPNet-R18 learns from PSPNet-R101.

  csdnet train --config=apd_ade20k:teacher \
    --config.data.root=ADEChallengeData2016 --workdir=runs/ade20k_teacher
  csdnet train --config=apd_ade20k:apd \
    --config.data.root=ADEChallengeData2016 \
    --config.teacher.run=runs/ade20k_teacher

or python -m csdnet_jax.main --config=configs/apd_ade20k.py:teacher and so
on.

The argument is the arm: teacher, student (the default), kd, cwd, skd or apd.
configs/apd_cityscapes.py says which ImageNet weights the networks start from.
The released teacher goes in by
--config.teacher.weights=pspnet101_fc_ade20k.pth.

Published: 37.19 % mIoU alone, 39.25 % with APD, the README of its release:
single scale with mirror images, last epoch.
Measured here: not yet; the data must be fetched by hand, and the run wants a
GPU.
"""

from csdnet_jax.configs import common
from csdnet_jax.methods.apd.method import ARMS

ARGUMENTS = ARMS


def get_config(arm='student'):
  """Returns the config of an arm."""
  c = common.psp_resnet(arm)
  c.name = f'apd_ade20k_{arm}'
  c.epochs = 100.0
  c.data.update(source='ade20k', canvas=1104)
  c.model.size = 473
  c.evaluation.base_size = 512
  return c
