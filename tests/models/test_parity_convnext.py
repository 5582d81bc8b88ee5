"""ConvNeXt computes what transformers does with the same file."""

import numpy as np
import pytest

from csdnet_jax import models

from parity import (
  CLASSES,
  assert_same_weights,
  differences,
  randomise,
  save,
  state_dict,
)

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore::DeprecationWarning'),
  pytest.mark.filterwarnings('ignore::FutureWarning'),
]

DEPTHS, WIDTH = (1, 1, 2, 1), 16
SIZES = {'width': WIDTH, 'depths': DEPTHS}


@pytest.fixture(autouse=True)
def small(monkeypatch):
  spec = models.find('convnext_t')._replace(sizes=SIZES)
  monkeypatch.setitem(models.KNOWN, 'parity', spec)


def convnext_of(transformers, torch):
  config = transformers.ConvNextConfig(
    depths=list(DEPTHS),
    hidden_sizes=[WIDTH * 2**i for i in range(4)],
    num_labels=CLASSES,
    layer_norm_eps=1e-6,
  )
  return randomise(torch, transformers.ConvNextForImageClassification(config))


def dinov3_of(transformers, torch):
  config = transformers.DINOv3ConvNextConfig(
    depths=list(DEPTHS), hidden_sizes=[WIDTH * 2**i for i in range(4)]
  )
  return randomise(torch, transformers.DINOv3ConvNextModel(config))


# At 200 px one map is of an odd side.
@pytest.mark.parametrize('size', [200, 448])
def test_convnext(torch, transformers, tmp_path, record, size):
  net = convnext_of(transformers, torch)
  path = save(torch, net, tmp_path)
  norm = net.convnext.layernorm

  def forward(x):
    x = net.convnext(x).last_hidden_state
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), norm(x.mean((2, 3)))

  found, _ = differences(
    torch, net, forward, net.classifier, path, 'parity', size
  )
  record('ConvNeXt', size, found)


@pytest.mark.parametrize('size', [256, 448])
def test_dinov3_convnext(torch, transformers, tmp_path, record, size):
  net = dinov3_of(transformers, torch)
  path = save(torch, net, tmp_path)
  head = randomise(torch, torch.nn.Linear(8 * WIDTH, CLASSES))

  def forward(x):
    hidden = net(x).last_hidden_state
    side = int((hidden.shape[1] - 1) ** 0.5)
    features = hidden[:, 1:].unflatten(1, (side, side))
    return features.permute(0, 3, 1, 2), hidden[:, 0]

  found, report = differences(torch, net, forward, head, path, 'parity', size)
  assert not report.skipped
  record('DINOv3 ConvNeXt', size, found)


def test_every_naming_gives_the_same_weights(torch, transformers, tmp_path):
  net = dinov3_of(transformers, torch)
  path = save(torch, net, tmp_path)
  arrays = state_dict(net)
  assert 'model.stages.0.layers.0.depthwise_conv.weight' in arrays
  older = {k.removeprefix('model.'): x for k, x in arrays.items()}
  other = save(torch, net, tmp_path, older)
  assert_same_weights(path, other, 'parity', 256)
  names = {
    'stages.0.downsample_layers.': 'downsample_layers.0.',
    'stages.1.downsample_layers.': 'downsample_layers.1.',
    'stages.2.downsample_layers.': 'downsample_layers.2.',
    'stages.3.downsample_layers.': 'downsample_layers.3.',
    '.layers.': '.',
    'depthwise_conv': 'dwconv',
    'pointwise_conv': 'pwconv',
    'layer_norm': 'norm',
  }
  release = {}
  for name, x in older.items():
    for theirs, released in names.items():
      name = name.replace(theirs, released)
    release[name] = x
  assert 'stages.2.1.pwconv2.bias' in release and 'norm.bias' in release
  release['norms.3.bias'] = np.array(release['norm.bias'])
  other = save(torch, net, tmp_path, release)
  assert_same_weights(path, other, 'parity', 256)
