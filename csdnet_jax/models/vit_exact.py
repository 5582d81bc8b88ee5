"""Vision transformers that were trained in PyTorch: DeiT and DINOv2.

Touvron et al., DeiT, ICML 2021; Oquab et al., DINOv2, TMLR 2024; Darcet et
al., Vision Transformers Need Registers, ICLR 2024. They differ from the
original ViT in the exact GELU and in ImageNet's own mean and deviation.
"""

import functools

from csdnet_jax.models import vit

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
HAS_BATCH_NORM = False

Net = functools.partial(vit.Net, exact_gelu=True)
from_torch = vit.from_torch
