"""MobileNetV2: its sizes and the names of its arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax.models import mobilenet


def shapes(**sizes):
  net = mobilenet.Backbone(**sizes)
  image = jnp.zeros((1, 97, 97, 3))
  return jax.eval_shape(
    lambda key: net.init_with_output(
      key, image, train=False, keys=None, axis=None
    ),
    jax.random.key(0),
  )


@pytest.mark.parametrize(
  ('width', 'channels'), [(1.0, (96, 320)), (0.5, (48, 160))]
)
def test_maps_keep_stride_8_and_have_the_released_channels(width, channels):
  maps, _ = shapes(width=width, output_stride=8)
  assert [x.shape for x in maps] == [(1, 13, 13, c) for c in channels]


def test_the_published_size():
  maps, variables = shapes()
  assert maps[1].shape == (1, 4, 4, 320)
  # torchvision's 3,504,872 less the last 1 x 1, its norm and the classifier.
  count = sum(x.size for x in jax.tree.leaves(variables['params']))
  assert count == 3_504_872 - 320 * 1280 - 2 * 1280 - 1280 * 1000 - 1000


@pytest.mark.parametrize(
  ('theirs', 'ours'),
  [
    ('mv2.conv1.conv.weight', 'stem/kernel'),
    ('layer1.0.conv.0.conv.weight', 'block_0/depthwise/kernel'),
    ('layer1.0.conv.1.bn.weight', 'block_0/project_bn/scale'),
    ('layer4.3.conv.0.conv.weight', 'block_9/expand/kernel'),
    ('layer7.0.conv.2.bn.running_var', 'block_16/project_bn/var'),
    (
      'mobilenet_v2.conv_stem.first_conv.convolution.weight',
      'stem/kernel',
    ),
    ('layer.0.conv_3x3.normalization.bias', 'block_1/depthwise_bn/bias'),
    ('features.0.0.weight', 'stem/kernel'),
    ('features.1.conv.0.0.weight', 'block_0/depthwise/kernel'),
    ('features.1.conv.2.weight', 'block_0/project_bn/scale'),
    ('features.2.conv.0.0.weight', 'block_1/expand/kernel'),
    ('features.17.conv.1.1.running_var', 'block_16/depthwise_bn/var'),
    ('features.17.conv.2.weight', 'block_16/project/kernel'),
    ('features.17.conv.3.bias', 'block_16/project_bn/bias'),
    ('features.18.1.bias', 'top_bn/bias'),
  ],
)
def test_names_of_pytorch(theirs, ours):
  shape = (6, 1, 3, 3) if ours.endswith('kernel') else (6,)
  ((name, array),) = mobilenet.from_torch({theirs: np.ones(shape)}).items()
  assert name == f'backbone/{ours}'
  assert array.shape == ((3, 3, 1, 6) if array.ndim == 4 else (6,))
