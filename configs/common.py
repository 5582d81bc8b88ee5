"""What the config files of published settings have in common."""

import ml_collections

from csdnet_jax.config import default
from csdnet_jax.methods.apd.method import ARMS
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.fields import nearest


def ufg(name: str) -> ml_collections.ConfigDict:
  """Returns the paper's setting for one set of the UFG release.

  Swin-B at 448 px from ImageNet-22k weights. The paper's hyper-parameters are
  not stated in reachable material: the optimiser, drop path and the views are
  those of its closest peer, CLE-ViT, and CSDNet's own fields keep their
  defaults. The paper's other backbone is chosen by three fields: model.name
  'vit_b16', init_from 'weights/ViT-B_16.npz' and model.drop_path 0.1.

  Args:
    name: of the set, such as 'cotton80' or 'soy_ageing/R1'.
  """
  c = default()
  c.name = name.replace('/', '_')
  c.batch_size = 12
  c.epochs = 200.0
  c.eval_every = 10.0
  c.data.update(source='ufg', name=name, canvas=640, test_resize=512)
  c.model.update(name='swin_b', size=448, drop_rate=0.0, drop_path=0.5)
  _clevit_optimiser(c.optim)
  return c


def _clevit_optimiser(optim) -> None:
  optim.update(
    name='adamw', lr=1e-3 * 12 / 512, schedule='linear', final=0.01,
    warmup=20.0, weight_decay=0.05, clip=5.0, label_smoothing=0.1,
  )  # fmt: skip


# The loss of CLE-ViT's release, as fields of `method.csdnet`.
CLEVIT = {
  'mode': 'views', 'hidden': (0.15, 0.45), 'queue': 0, 'averaging': 'joint',
  'margin': 0.4, 'exclude_same_image': False, 'aug_weight': 1.0, 'alpha': 1.0,
  'beta': 0.0,
}  # fmt: skip


def clevit(
  config: ml_collections.ConfigDict,
  *,
  aug_weight: float = 1.0,
  contrast_weight: float = 1.0,
  lr: float = 1e-3,
) -> ml_collections.ConfigDict:
  """Turns a config into CLE-ViT's release: its loss and its optimiser.

  Wang et al., IJCAI 2023, as the code has it: no queue, no distillation, views
  by erasing and shuffling, every pair in the mean; AdamW, 200 epochs of
  batch 12, linear decay.

  Args:
    config: its data and its model are kept.
    aug_weight: of the second view's cross-entropy; 0.75 on Cotton80, 0.3 on
      SoyGene.
    contrast_weight: of the contrastive loss; 0.5 on SoyGene.
    lr: for a batch of 512, from which it is scaled; 2e-3 on SoyGene.
  """
  config.method.name = 'csdnet'
  config.method.csdnet.update(CLEVIT)
  config.method.csdnet.update(aug_weight=aug_weight, alpha=contrast_weight)
  config.views = default().views
  config.batch_size = 12
  config.epochs = 200.0
  _clevit_optimiser(config.optim)
  config.optim.lr = lr * 12 / 512
  return config


def segmentation(arm: str) -> ml_collections.ConfigDict:
  """Returns what the segmentation configs have in common: APD's release.

  SGD with momentum 0.9, weight decay on all parameters, poly decay of power
  0.9, everything above the backbone at ten times its rate, no clipping.

  Args:
    arm: one of `methods.apd.method.ARMS`.

  Raises:
    UserError: for another arm.
  """
  if arm not in ARMS:
    raise UserError(
      f'There is no arm {arm!r}; the arms are {", ".join(ARMS)}.'
      f'{nearest(arm, ARMS)}'
    )
  c = default()
  c.method.name = 'apd'
  c.method.apd.arm = arm
  c.model.drop_rate = 0.1
  c.optim.update(
    name='sgd', lr=0.005, schedule='poly', warmup=0.0, weight_decay=1e-4,
    clip=0.0, label_smoothing=0.0,
    groups=(('^(context|head|aux|aux_head|projector)/', 10.0, True),),
  )  # fmt: skip
  return c


def psp_resnet(arm: str) -> ml_collections.ConfigDict:
  """Returns what APD's three published settings have in common.

  PSPNet-R18 beside a PSPNet-R101, batch 8 where a set says no other; the
  teacher as semseg trains it, batch 16 at twice the rate.

  Args:
    arm: one of `methods.apd.method.ARMS`.
  """
  c = segmentation(arm)
  c.eval_every = 20.0
  c.evaluation.images = 100
  c.teacher.model = 'psp_resnet101'
  if arm == 'teacher':
    c.model.name = 'psp_resnet101'
    c.init_from = 'weights/resnet101_v2.pth'
    c.batch_size = 16
  else:
    c.model.name = 'psp_resnet18'
    c.init_from = 'weights/resnet18-imagenet.pth'
    c.batch_size = 8
  c.optim.lr = 0.01 * c.batch_size / 16
  return c
