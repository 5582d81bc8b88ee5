"""PSPNet and DeepLabV3 over EfficientNet-Lite.

They are the networks of `segmentation`, but take their colours as the Lite
weights were trained with them.
"""

import functools

from csdnet_jax.models import efficientnet, psp_deeplab

MEAN, STD = efficientnet.MEAN, efficientnet.STD
HAS_BATCH_NORM = True

MODELS = psp_deeplab.heads(
  {
    'efficientnet_lite0': functools.partial(efficientnet.Backbone, 1.0, 1.0),
    'efficientnet_lite1': functools.partial(efficientnet.Backbone, 1.0, 1.1),
    'efficientnet_lite2': functools.partial(efficientnet.Backbone, 1.1, 1.2),
  }
)

Net = psp_deeplab.Net
from_torch = psp_deeplab.from_torch
