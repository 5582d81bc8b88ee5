r"""APD on PASCAL Context, 60 classes: PSPNet-R18 learns from PSPNet-R101.

  csdnet train --config=apd_context:teacher \
    --config.data.root=VOC2010 --workdir=runs/context_teacher
  csdnet train --config=apd_context:apd \
    --config.data.root=VOC2010 --config.teacher.run=runs/context_teacher

or python -m csdnet_jax.main --config=configs/apd_context.py:teacher and so
on.

The argument is the arm: teacher, student (the default), kd, cwd, skd or apd.
The background is a class, as in the release; --config.data.source=context59
leaves it out. Both networks have the dilations of the release's Context
networks, and three images share prototypes. configs/apd_cityscapes.py says
which ImageNet weights they start from. The released teacher goes in by
--config.teacher.weights=pspnet101_fc_context.pth.

Published: 42.29 % mIoU alone, 43.96 % with APD, the README of its release:
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
  c.name = f'apd_context_{arm}'
  c.epochs = 100.0
  if arm != 'teacher':
    c.batch_size = 12
  c.data.update(source='context60', canvas=512)
  c.model.update(name=f'{c.model.name}_context', size=473)
  c.teacher.model = 'psp_resnet101_context'
  c.evaluation.base_size = 512
  c.optim.lr = 0.001 * c.batch_size / 16
  c.method.apd.group = 3
  return c
