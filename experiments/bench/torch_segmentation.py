"""PSPNet over a dilated backbone once more, as a PyTorch user would write it.

Takes [B, 3, H, W] in [0, 1], channels-last in memory, and gives (features,
logits, aux), each [B, C, h, w]. Submodules carry our names, so that
`torch_nets.load` can move our weights by name.
"""

import torch
from torch import nn
from torch.nn import functional as F

from csdnet_jax import models
from csdnet_jax.models import efficientnet, psp_deeplab, resnet
from csdnet_jax.models.batch_norm import BatchNorm
from csdnet_jax.runtime.errors import UserError
from experiments.bench.torch_nets import LiteBlock, Norm


def _norm(channels):
  return Norm(channels, BatchNorm.epsilon)


def _conv(inputs, outputs, size, stride=1, dilation=1):
  pad = dilation * (size // 2)
  return nn.Conv2d(inputs, outputs, size, stride, pad, dilation, bias=False)


class ConvNorm(nn.Module):
  """Convolution, BatchNorm, ReLU."""

  def __init__(self, inputs, outputs, size):
    super().__init__()
    self.conv = _conv(inputs, outputs, size)
    self.bn = _norm(outputs)

  def forward(self, x):
    return F.relu(self.bn(self.conv(x), True))


class Block(nn.Module):
  """Of a ResNet."""

  def __init__(self, inputs, convolutions):
    super().__init__()
    channels, strides = inputs, 1
    for i, (size, outputs, stride, dilation) in enumerate(convolutions, 1):
      conv = _conv(channels, outputs, size, stride, dilation)
      self.add_module(f'conv{i}', conv)
      self.add_module(f'bn{i}', _norm(outputs))
      channels, strides = outputs, strides * stride
    self.count, self.outputs = len(convolutions), channels
    self.shortcut = None
    if strides > 1 or inputs != channels:
      self.shortcut = _conv(inputs, channels, 1, strides)
      self.shortcut_bn = _norm(channels)

  def forward(self, x):
    y = x
    for i in range(1, self.count + 1):
      y = F.relu(y) if i > 1 else y
      y = getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(y), True)
    if self.shortcut is not None:
      x = self.shortcut_bn(self.shortcut(x), True)
    return F.relu(x + y)


class ResNet(nn.Module):
  """The maps of the last two layers."""

  def __init__(self, net: resnet.Backbone):
    super().__init__()
    w = net.width
    stem = ((7, w, 2),)
    if net.deep_stem:
      stem = (3, w, 2), (3, w, 1), (3, 2 * w, 1)
    self.stem, inputs = len(stem), 3
    for i, (size, outputs, stride) in enumerate(stem, 1):
      self.add_module(f'conv{i}', _conv(inputs, outputs, size, stride))
      self.add_module(f'bn{i}', _norm(outputs))
      inputs = outputs
    self.layers = []
    layers = resnet.layout(
      net.depths, net.bottleneck, w, net.output_stride, context=net.context
    )
    self.widths = []
    for i, blocks in enumerate(layers, 1):
      names = [f'layer{i}_{j}' for j in range(len(blocks))]
      for name, convolutions in zip(names, blocks, strict=True):
        block = Block(inputs, convolutions)
        self.add_module(name, block)
        inputs = block.outputs
      self.layers.append(names)
      self.widths.append(inputs)
    self.widths = self.widths[-2:]

  def forward(self, x):
    for i in range(1, self.stem + 1):
      x = F.relu(getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(x), True))
    x = F.max_pool2d(x, 3, 2, 1)
    maps = []
    for names in self.layers:
      for name in names:
        x = getattr(self, name)(x)
      maps.append(x)
    return maps[-2:]


class Lite(nn.Module):
  """The maps of stage 6's first block and of stage 7."""

  def __init__(self, net: efficientnet.Backbone):
    super().__init__()
    blocks, self.middle = efficientnet.dilated_layout(
      net.width, net.depth, net.stages
    )
    self.stem = nn.Conv2d(3, net.stem, 3, 2, 1, bias=False)
    self.stem_bn = Norm(net.stem)
    inputs, self.depth = net.stem, len(blocks)
    for i, (*block, outputs, dilation) in enumerate(blocks):
      self.add_module(
        f'block_{i}', LiteBlock(inputs, *block, outputs, dilation)
      )
      inputs = outputs
    self.widths = [blocks[self.middle][3], inputs]

  def forward(self, x):
    x = F.relu6(self.stem_bn(self.stem(x), True))
    for i in range(self.depth):
      x = getattr(self, f'block_{i}')(x, True)
      if i == self.middle:
        middle = x
    return middle, x


class Context(nn.Module):
  """The pyramid of means, merged."""

  def __init__(self, inputs, width):
    super().__init__()
    narrow = inputs // len(psp_deeplab.BINS)
    for bins in psp_deeplab.BINS:
      self.add_module(f'bin_{bins}', ConvNorm(inputs, narrow, 1))
    wide = inputs + narrow * len(psp_deeplab.BINS)
    self.merge = ConvNorm(wide, width, 3)

  def forward(self, x):
    parts = [x]
    for bins in psp_deeplab.BINS:
      part = getattr(self, f'bin_{bins}')(F.adaptive_avg_pool2d(x, bins))
      parts.append(
        F.interpolate(part, x.shape[2:], mode='bilinear', align_corners=True)
      )
    return self.merge(torch.cat(parts, 1))


class Psp(nn.Module):
  """PSPNet with its auxiliary head."""

  def __init__(self, backbone, classes, width, aux_width, mean, std):
    super().__init__()
    self.backbone = backbone
    middle, last = backbone.widths
    self.context = Context(last, width)
    self.head = nn.Conv2d(width, classes, 1)
    self.aux = ConvNorm(middle, aux_width, 3)
    self.aux_head = nn.Conv2d(aux_width, classes, 1)
    for name, values in (('mean', mean), ('std', std)):
      values = torch.tensor(values)[:, None, None]
      self.register_buffer(name, values, persistent=False)

  def forward(self, x):
    middle, last = self.backbone((x - self.mean) / self.std)
    features = self.context(last)
    return features, self.head(features), self.aux_head(self.aux(middle))


def build(name: str, *, classes: int, width: int = 0) -> Psp:
  """`make`, channels last."""
  psp = make(name, classes=classes, width=width)
  return psp.to(memory_format=torch.channels_last)


def make(name: str, *, classes: int, width: int = 0) -> Psp:
  """Makes the peer of the segmentation network called `name`.

  Args:
    name: a key of `models.MODELS`.
    classes: of the heads.
    width: of the penultimate map; 0 for the network's own.

  Raises:
    UserError: there is no peer of it.
  """
  spec = models.find(name)
  sizes = spec.sizes
  net = sizes['backbone']() if 'backbone' in sizes else None
  peer = {resnet.Backbone: ResNet, efficientnet.Backbone: Lite}.get(type(net))
  if peer is None or sizes['deeplab']:
    raise UserError(
      f'There is no PyTorch peer of {name}: take a PSPNet over a ResNet or an '
      'EfficientNet-Lite.'
    )
  width = width or sizes.get('width', psp_deeplab.Net.width)
  aux_width = sizes.get('aux_width', psp_deeplab.Net.aux_width)
  return Psp(peer(net), classes, width, aux_width, spec.mean, spec.std)
