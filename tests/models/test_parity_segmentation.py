"""Segmentation networks compute what plain PyTorch twins do."""

import functools

import jax
import numpy as np
import pytest
from flax.core import meta

from csdnet_jax import models
from csdnet_jax.models import mobilenet, psp_deeplab, resnet

from torch_twins import LIMIT, fill, randomise, state_dict

pytestmark = pytest.mark.slow

CLASSES, WIDTH = 5, 24


def make_conv(torch):
  def conv(i, o, k, s=1, d=1, groups=1):
    return torch.nn.Conv2d(i, o, k, s, d * (k // 2), d, groups, bias=False)

  return conv


def make_heads(torch, deeplab, channels, middle):
  """All above a backbone in PyTorch, under the names of APD's release."""
  nn, f = torch.nn, torch.nn.functional
  conv = make_conv(torch)

  def unit(i, o, k, d=1):
    net = nn.Sequential()
    net.add_module('conv', conv(i, o, k, d=d))
    net.add_module('bn', nn.BatchNorm2d(o))
    net.add_module('relu', nn.ReLU())
    return net

  class Ppm(nn.Module):
    def __init__(self, c):
      super().__init__()
      self.features = nn.ModuleList(
        nn.Sequential(
          nn.AdaptiveAvgPool2d(b), conv(c, c // 4, 1),
          nn.BatchNorm2d(c // 4), nn.ReLU(),
        )
        for b in (1, 2, 3, 6)
      )  # fmt: skip
      self.merge = nn.Sequential(
        conv(2 * c, WIDTH, 3), nn.BatchNorm2d(WIDTH), nn.ReLU()
      )

    def forward(self, x):
      up = functools.partial(
        f.interpolate, size=x.shape[2:], mode='bilinear', align_corners=True
      )
      return self.merge(torch.cat([x, *(up(g(x)) for g in self.features)], 1))

  class Aspp(nn.Module):
    def __init__(self, c):
      super().__init__()
      self.image_pool = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), unit(c, WIDTH, 1)
      )
      self.aspp_modules = nn.ModuleList(
        unit(c, WIDTH, 1 if d == 1 else 3, d) for d in (1, 12, 24, 36)
      )
      self.bottleneck = unit(5 * WIDTH, WIDTH, 3)

    def forward(self, x):
      pooled = self.image_pool(x).expand(-1, -1, *x.shape[2:])
      maps = [pooled, *(g(x) for g in self.aspp_modules)]
      return self.bottleneck(torch.cat(maps, 1))

  class Heads(nn.Module):
    def __init__(self):
      super().__init__()
      self.ppm = (Aspp if deeplab else Ppm)(channels)
      self.cls = nn.Sequential(nn.Conv2d(WIDTH, CLASSES, 1))
      self.aux = nn.Sequential(
        conv(middle, 256, 3), nn.BatchNorm2d(256), nn.ReLU(),
        nn.Identity(), nn.Conv2d(256, CLASSES, 1),
      )  # fmt: skip

    def forward(self, middle, last):
      features = self.ppm(last)
      return features, self.cls(features), self.aux(middle)

  return Heads()


def make_twin(torch, bottleneck, context, deeplab):
  """The network in PyTorch, under the names of APD's release."""
  nn, f = torch.nn, torch.nn.functional
  conv = make_conv(torch)

  class Block(nn.Module):
    def __init__(self, i, c, stride, first, second):
      super().__init__()
      o = 4 * c if bottleneck else c
      self.bn1, self.bn2 = nn.BatchNorm2d(c), nn.BatchNorm2d(c)
      if bottleneck:
        self.conv1, self.conv2 = conv(i, c, 1), conv(c, c, 3, stride, first)
        self.conv3, self.bn3 = conv(c, o, 1), nn.BatchNorm2d(o)
      else:
        self.conv1 = conv(i, c, 3, stride, first)
        self.conv2 = conv(c, c, 3, 1, second)
      if stride > 1 or i != o:
        self.downsample = nn.Sequential(
          conv(i, o, 1, stride), nn.BatchNorm2d(o)
        )

    def forward(self, x):
      y = self.bn2(self.conv2(f.relu(self.bn1(self.conv1(x)))))
      if bottleneck:
        y = self.bn3(self.conv3(f.relu(y)))
      if hasattr(self, 'downsample'):
        x = self.downsample(x)
      return f.relu(x + y)

  # Stride of a layer; dilations of its first block's and its other blocks'
  # first 3 x 3, of its second 3 x 3.
  if context:
    rules = (1, 1, 1, 1), (2, 1, 1, 1), (1, 1, 2, 2), (1, 2, 4, 4)
  else:
    rules = (1, 1, 1, 1), (2, 1, 1, 1), (1, 2, 2, 1), (1, 4, 4, 1)

  class Twin(nn.Module):
    def __init__(self):
      super().__init__()
      stem = []
      for i, o, s in ((3, 4, 2), (4, 4, 1), (4, 8, 1)):
        stem += [conv(i, o, 3, s), nn.BatchNorm2d(o), nn.ReLU()]
      self.layer0 = nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1))
      channels = 8
      for n, (stride, first, others, second) in enumerate(rules):
        c, blocks = 4 * 2**n, []
        for j in range(2):
          d = others if j else first
          blocks.append(Block(channels, c, 1 if j else stride, d, second))
          channels = 4 * c if bottleneck else c
        setattr(self, f'layer{n + 1}', nn.Sequential(*blocks))
      heads = make_heads(torch, deeplab, channels, channels // 2)
      self.ppm, self.cls, self.aux = heads.ppm, heads.cls, heads.aux
      self.heads = [heads.forward]

    def forward(self, x):
      middle = self.layer3(self.layer2(self.layer1(self.layer0(x))))
      return self.heads[0](middle, self.layer4(middle))

  return randomise(torch, Twin())


# Kernel, expansion, channels, stride and dilation of Lite0's blocks.
LITE = (
  (3, 1, 16, 1, 1),
  (3, 6, 24, 2, 1), (3, 6, 24, 1, 1),
  (5, 6, 40, 2, 1), (5, 6, 40, 1, 1),
  *((3, 6, 80, 1, 2),) * 3,
  *((5, 6, 112, 1, 2),) * 3,
  *((5, 6, 192, 1, 4),) * 4,
  (3, 6, 320, 1, 4),
)  # fmt: skip


def make_lite(torch):
  """Lite0 at stride 8 in PyTorch, under the names of the PyPI package."""
  nn, f = torch.nn, torch.nn.functional
  conv = make_conv(torch)

  def norm(channels):
    return nn.BatchNorm2d(channels, 1e-3)

  class Block(nn.Module):
    def __init__(self, i, size, expansion, o, stride, dilation):
      super().__init__()
      wide = i * expansion
      if expansion > 1:
        self._expand_conv, self._bn0 = conv(i, wide, 1), norm(wide)
      self._depthwise_conv = conv(wide, wide, size, stride, dilation, wide)
      self._bn1 = norm(wide)
      self._project_conv, self._bn2 = conv(wide, o, 1), norm(o)

    def forward(self, x):
      y = x
      if hasattr(self, '_expand_conv'):
        y = f.relu6(self._bn0(self._expand_conv(y)))
      y = f.relu6(self._bn1(self._depthwise_conv(y)))
      y = self._bn2(self._project_conv(y))
      return x + y if x.shape == y.shape else y

  class Lite(nn.Module):
    def __init__(self):
      super().__init__()
      self._conv_stem, self._bn0 = conv(3, 32, 3, 2), norm(32)
      self._blocks, channels = nn.ModuleList(), 32
      for size, expansion, o, stride, dilation in LITE:
        self._blocks.append(
          Block(channels, size, expansion, o, stride, dilation)
        )
        channels = o

    def forward(self, x):
      x, maps = f.relu6(self._bn0(self._conv_stem(x))), []
      for block in self._blocks:
        x = block(x)
        maps.append(x)
      return maps[11], x

  return randomise(torch, Lite())


def compare(model, arrays, pixels, wanted):
  """The largest deviation of each output."""
  params, state = fill(model, arrays, pixels.shape[1])
  outputs, _ = jax.jit(functools.partial(model.apply, train=False))(
    params, state, pixels
  )
  found = {}
  for key, theirs in zip(('features', 'logits', 'aux'), wanted, strict=True):
    theirs = theirs.detach().numpy().transpose(0, 2, 3, 1)
    assert theirs.std((0, 1, 2)).max() > 0.03
    found[key] = np.abs(getattr(outputs, key) - theirs).max()
  return found


def show(capsys, what, found):
  with capsys.disabled():
    row = ' | '.join(f'{key} {value:.1e}' for key, value in found.items())
    print(f'\nparity | {what} | {row}')


@pytest.mark.parametrize('deeplab', [False, True])
@pytest.mark.parametrize('size', [57, 97])
def test_heads_over_lite(torch, capsys, deeplab, size):
  backbone = make_lite(torch)
  heads = randomise(torch, make_heads(torch, deeplab, 320, 192))
  name = 'deeplab' if deeplab else 'psp'
  model = models.build(
    f'{name}_efficientnet_lite0', classes=CLASSES, drop_rate=0.0,
    drop_path=0.0, width=WIDTH,
  )  # fmt: skip
  arrays = psp_deeplab.from_torch(state_dict(backbone))
  arrays |= psp_deeplab.from_torch(state_dict(heads))
  pixels = np.random.default_rng(0).random((2, size, size, 3), np.float32)
  x = (torch.from_numpy(pixels) * 255 - 127) / 128
  wanted = heads(*backbone(x.permute(0, 3, 1, 2)))
  found = compare(model, arrays, pixels, wanted)
  show(capsys, f'{name} over Lite0 | {size} px', found)
  assert max(found.values()) < LIMIT, found


@pytest.mark.parametrize('bottleneck', [False, True])
@pytest.mark.parametrize('context', [False, True])
@pytest.mark.parametrize('deeplab', [False, True])
@pytest.mark.parametrize('size', [57, 97])
def test_heads_over_resnet(torch, capsys, bottleneck, context, deeplab, size):
  net = make_twin(torch, bottleneck, context, deeplab)
  backbone = functools.partial(
    resnet.Backbone, (2,) * 4, bottleneck, 4, True, 8, context
  )
  model = models.build(
    'psp_resnet18', classes=CLASSES, drop_rate=0.0, drop_path=0.0,
    backbone=backbone, deeplab=deeplab, width=WIDTH,
  )  # fmt: skip
  arrays = psp_deeplab.from_torch(state_dict(net))
  pixels = np.random.default_rng(0).random((2, size, size, 3), np.float32)
  spec = models.MODELS['psp_resnet18']
  mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
  x = ((torch.from_numpy(pixels) - mean) / std).permute(0, 3, 1, 2)
  wanted = net(x)
  found = compare(model, arrays, pixels, wanted)
  what = 'DeepLabV3' if deeplab else 'PSPNet'
  show(capsys, f'{what}, {bottleneck=}, {context=} | {size} px', found)
  assert max(found.values()) < LIMIT, found


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
@pytest.mark.filterwarnings('ignore::FutureWarning')
@pytest.mark.parametrize('width', [1.0, 0.5])
@pytest.mark.parametrize('size', [97, 128])
def test_mobilenet_at_stride_32_is_that_of_transformers(
  torch, capsys, width, size
):
  transformers = pytest.importorskip('transformers')
  config = transformers.MobileNetV2Config(
    depth_multiplier=width, tf_padding=False, layer_norm_eps=1e-5
  )
  net = randomise(torch, transformers.MobileNetV2Model(config))
  arrays = mobilenet.from_torch(
    {k: x for k, x in state_dict(net).items() if 'conv_1x1' not in k}
  )
  backbone = mobilenet.Backbone(width)
  run = functools.partial(backbone.apply, train=False, keys=None, axis=None)
  variables = jax.eval_shape(
    functools.partial(backbone.init, train=False, keys=None, axis=None),
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, size, size, 3), np.float32),
  )

  def take(path, slot):
    name = '/'.join(key.key for key in path[1:])
    array = arrays[f'backbone/{name}']
    assert array.shape == slot.shape
    return array.copy()

  variables = jax.tree.map_with_path(take, meta.unbox(variables))
  x = np.random.default_rng(0).normal(size=(2, size, size, 3))
  x = x.astype(np.float32)
  hidden = net(
    torch.from_numpy(x).permute(0, 3, 1, 2), output_hidden_states=True
  ).hidden_states
  maps = jax.jit(run)(variables, x)
  found = {}
  for name, i, ours in (('stage 5', 11, maps[0]), ('stage 7', 15, maps[1])):
    theirs = hidden[i].detach().numpy().transpose(0, 2, 3, 1)
    assert theirs.std((0, 1, 2)).max() > 0.03
    found[name] = np.abs(ours - theirs).max()
  with capsys.disabled():
    row = ' | '.join(f'{key} {value:.1e}' for key, value in found.items())
    print(f'\nparity | MobileNetV2 x {width}, transformers | {size} px | {row}')
  assert max(found.values()) < LIMIT, found
