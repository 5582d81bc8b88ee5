r"""APD on Cityscapes, 19 classes: PSPNet-R18 learns from PSPNet-R101.

  csdnet train --config=apd_cityscapes:teacher \
    --config.data.root=cityscapes --workdir=runs/cityscapes_teacher
  csdnet train --config=apd_cityscapes:apd \
    --config.data.root=cityscapes --config.teacher.run=runs/cityscapes_teacher

or python -m csdnet_jax.main --config=configs/apd_cityscapes.py:teacher and so
on.

The argument is the arm: teacher, student (the default), kd, cwd, skd or apd.
The root holds leftImg8bit/ and gtFine/ with the train-id masks, which
createTrainIdLabelImgs.py of cityscapesScripts makes. Both networks start from
deep-stem ImageNet weights in weights/: resnet18-imagenet.pth of CSAIL's
semantic-segmentation-pytorch, resnet101_v2.pth of semseg. The released teacher
goes in by --config.teacher.weights=pspnet101_fc_cityscapes.pth.

Published: 74.15 % mIoU alone, 75.68 % with APD, the README of its release:
single scale with mirror images, last epoch. The recipe of the teacher is
semseg's.
Measured here: not yet; the data must be fetched by hand, and the run wants a
GPU.
"""

from csdnet_jax.configs import common
from csdnet_jax.methods.apd.method import ARMS

ARGUMENTS = ARMS


def get_config(arm='student'):
  """Returns the config of an arm."""
  c = common.psp_resnet(arm)
  c.name = f'apd_cityscapes_{arm}'
  c.epochs = 200.0
  c.data.update(source='cityscapes', canvas=1664)
  c.model.size = 713
  return c
