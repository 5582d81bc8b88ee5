"""PSPNet and DeepLabV3 over EfficientNet-Lite.

They are the networks of `segmentation`, but take their colours as the Lite
weights were trained with them.
"""

import functools

from csdnet_jax.models import efficientnet, segmentation

MEAN, STD = efficientnet.MEAN, efficientnet.STD
HAS_BATCH_NORM = True

MODELS = segmentation.heads(
  {
    'efficientnet_lite0': functools.partial(efficientnet.Backbone, 1.0, 1.0),
    'efficientnet_lite1': functools.partial(efficientnet.Backbone, 1.0, 1.1),
    'efficientnet_lite2': functools.partial(efficientnet.Backbone, 1.1, 1.2),
  }
)

Net = segmentation.Net
from_torch = segmentation.from_torch
