"""The backbones once more, in PyTorch as a PyTorch user would write them.

One convolution for the patches, one product for query, key and value, SDPA,
channels-last convolutions. Each net takes [B, 3, H, W] in [0, 1], as views of
memory in channels-last order, and gives (features [B, h, w, C], embedding,
logits) as `csdnet_jax.models.Outputs`. Submodules carry our names, so that
`load` can move our weights by name.
"""

import os

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from csdnet_jax import models
from csdnet_jax.models import efficientnet, kernels, swin, vit
from csdnet_jax.models.batch_norm import MOMENTUM
from csdnet_jax.runtime.errors import UserError

# For the colours that the families' weights were trained with.
LITE, SWIN = models.MODELS['efficientnet_lite0'], models.MODELS['swin_t']


class Attention(nn.Module):
  """Of a ViT."""

  def __init__(self, width, heads):
    super().__init__()
    self.heads = heads
    self.qkv = nn.Linear(width, 3 * width)
    self.out = nn.Linear(width, width)

  def forward(self, x):
    b, n, c = x.shape
    qkv = self.qkv(x).view(b, n, 3, self.heads, c // self.heads)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    y = F.scaled_dot_product_attention(query, key, value)
    return self.out(y.transpose(1, 2).reshape(b, n, c))


class Mlp(nn.Module):
  """Two dense layers with a GELU between."""

  def __init__(self, width, hidden, approximate):
    super().__init__()
    self.approximate = approximate
    self.Dense_0 = nn.Linear(width, hidden)
    self.Dense_1 = nn.Linear(hidden, width)

  def forward(self, x):
    return self.Dense_1(F.gelu(self.Dense_0(x), approximate=self.approximate))


class VitBlock(nn.Module):
  """Attention, then the MLP."""

  def __init__(self, width, heads, mlp):
    super().__init__()
    self.LayerNorm_0 = nn.LayerNorm(width, eps=1e-6)
    self.MultiHeadDotProductAttention_1 = Attention(width, heads)
    self.LayerNorm_2 = nn.LayerNorm(width, eps=1e-6)
    self.MlpBlock_3 = Mlp(width, mlp, 'tanh')

  def forward(self, x):
    x = x + self.MultiHeadDotProductAttention_1(self.LayerNorm_0(x))
    return x + self.MlpBlock_3(self.LayerNorm_2(x))


class Vit(nn.Module):
  """A ViT with a class token."""

  def __init__(self, classes, size, width, depth, heads, mlp, patch):
    super().__init__()
    self.embedding = nn.Conv2d(3, width, patch, patch)
    self.cls = nn.Parameter(torch.zeros(1, 1, width))
    tokens = 1 + (size // patch) ** 2
    self.pos_embedding = nn.Parameter(torch.zeros(1, tokens, width))
    for i in range(depth):
      self.add_module(f'encoderblock_{i}', VitBlock(width, heads, mlp))
    self.encoder_norm = nn.LayerNorm(width, eps=1e-6)
    self.head = nn.Linear(width, classes)
    self.depth = depth

  def forward(self, x, moves=True):
    del moves  # No BatchNorm.
    x = self.embedding((x - 0.5) / 0.5)
    b, c, h, w = x.shape
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([self.cls.expand(b, -1, -1), x], 1) + self.pos_embedding
    for i in range(self.depth):
      x = getattr(self, f'encoderblock_{i}')(x)
    x = self.encoder_norm(x)
    z = x[:, 0]
    return x[:, 1:].reshape(b, h, w, c), z, self.head(z)


class WindowAttention(nn.Module):
  """Of a Swin: window by window, with a bias by relative position."""

  def __init__(self, width, heads, window, shift):
    super().__init__()
    self.heads, self.window, self.shift = heads, window, shift
    self.qkv = nn.Linear(width, 3 * width)
    self.out = nn.Linear(width, width)
    self.relative_position_bias = nn.Parameter(
      torch.zeros((2 * window - 1) ** 2, heads)
    )
    places = torch.from_numpy(swin.relative_positions(window))
    self.register_buffer('places', places, persistent=False)

  def forward(self, x, apart):
    b, height, width, c = x.shape
    s, n = self.window, self.window**2
    x = F.pad(x, (0, 0, 0, -width % s, 0, -height % s))
    rows, columns = x.shape[1:3]
    if self.shift:
      x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
    h, w = rows // s, columns // s
    x = x.view(b, h, s, w, s, c).transpose(2, 3).reshape(b, h * w, n, c)
    qkv = self.qkv(x).view(b, h * w, n, 3, self.heads, c // self.heads)
    query, key, value = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)
    bias = self.relative_position_bias[self.places].permute(2, 0, 1)
    if apart is not None:
      bias = bias + apart[:, None]
    bias = bias.to(query.dtype).expand(b, h * w, -1, -1, -1)
    # Windows join the batch: SDPA's fast kernels take four axes.
    query, key, value, bias = (
      t.flatten(0, 1) for t in (query, key, value, bias)
    )
    x = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    x = self.out(x.transpose(1, 2).reshape(b, h, w, s, s, c))
    x = x.transpose(2, 3).reshape(b, rows, columns, c)
    if self.shift:
      x = torch.roll(x, (self.shift, self.shift), (1, 2))
    return x[:, :height, :width]


class SwinBlock(nn.Module):
  """Windows, then the MLP."""

  def __init__(self, width, heads, window, side, shifted):
    super().__init__()
    shift = window // 2 if shifted and side > window else 0
    window = min(window, side)
    self.attention_norm = nn.LayerNorm(width, eps=1e-5)
    self.attention = WindowAttention(width, heads, window, shift)
    self.mlp_norm = nn.LayerNorm(width, eps=1e-5)
    self.mlp = Mlp(width, 4 * width, 'none')
    apart = None
    if shift:
      padded = side + -side % window
      regions = swin.shifted_regions(padded, padded, window, shift)
      apart = torch.from_numpy(regions[:, :, None] != regions[:, None])
      apart = -100.0 * apart.float()
    self.register_buffer('apart', apart, persistent=False)

  def forward(self, x):
    x = x + self.attention(self.attention_norm(x), self.apart)
    return x + self.mlp(self.mlp_norm(x))


class Merge(nn.Module):
  """Halves a map and doubles its channels."""

  def __init__(self, width):
    super().__init__()
    self.norm = nn.LayerNorm(4 * width, eps=1e-5)
    self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

  def forward(self, x):
    x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
    corners = [x[:, i::2, j::2] for j in range(2) for i in range(2)]
    return self.reduction(self.norm(torch.cat(corners, -1)))


class Swin(nn.Module):
  """A Swin of any width, depths and window."""

  def __init__(self, classes, size, width, depths, heads, window):
    super().__init__()
    self.embedding = nn.Conv2d(3, width, swin.PATCH, swin.PATCH)
    self.embedding_norm = nn.LayerNorm(width, eps=1e-5)
    self.layers, side = [], size // swin.PATCH
    for s, depth in enumerate(depths):
      if s:
        self._add(f'merge_{s}', Merge(width))
        width, side = 2 * width, (side + 1) // 2
      for i in range(depth):
        block = SwinBlock(width, heads[s], window, side, i % 2 == 1)
        self._add(f'stage_{s}_block_{i}', block)
    self.norm = nn.LayerNorm(width, eps=1e-5)
    self.head = nn.Linear(width, classes)
    for name, values in (('mean', SWIN.mean), ('std', SWIN.std)):
      values = torch.tensor(values)[:, None, None]
      self.register_buffer(name, values, persistent=False)

  def _add(self, name, module):
    self.add_module(name, module)
    self.layers.append(name)

  def forward(self, x, moves=True):
    del moves  # No BatchNorm.
    x = self.embedding((x - self.mean) / self.std).permute(0, 2, 3, 1)
    x = self.embedding_norm(x)
    for name in self.layers:
      x = getattr(self, name)(x)
    features = self.norm(x)
    z = features.mean((1, 2))
    return features, z, self.head(z)


class Convolution(nn.Conv2d):
  """Without bias, TensorFlow's SAME padding."""

  def __init__(self, inputs, outputs, kernel=1, stride=1, groups=1, dilation=1):
    super().__init__(
      inputs, outputs, kernel, stride, dilation=dilation, groups=groups,
      bias=False,
    )  # fmt: skip

  def forward(self, x):
    stride, dilation = self.stride[0], self.dilation[0]
    span = kernels.extent(self.kernel_size[0], dilation)
    top, bottom = kernels.same_padding(x.shape[2], span, stride)
    left, right = kernels.same_padding(x.shape[3], span, stride)
    if top == bottom and left == right:
      return F.conv2d(
        x, self.weight, None, stride, (top, left), dilation, self.groups
      )
    return super().forward(F.pad(x, (left, right, top, bottom)))


class Norm(nn.BatchNorm2d):
  """Moments of the batch; `moves` says whether the averages follow.

  In evaluation the averages stand for the moments.
  """

  def __init__(self, channels, eps=efficientnet.EPSILON):
    super().__init__(channels, eps=eps)

  def forward(self, x, moves):
    averages = (self.running_mean, self.running_var) if moves else (None, None)
    return F.batch_norm(
      x, *averages, self.weight, self.bias, self.training,
      1 - MOMENTUM, self.eps,
    )  # fmt: skip


class LiteBlock(nn.Module):
  """Expand, filter, project."""

  def __init__(self, inputs, size, stride, expansion, outputs, dilation=1):
    super().__init__()
    wide = inputs * expansion
    self.expands = expansion > 1
    if self.expands:
      self.expand = Convolution(inputs, wide)
      self.expand_bn = Norm(wide)
    self.depthwise = Convolution(wide, wide, size, stride, wide, dilation)
    self.depthwise_bn = Norm(wide)
    self.project = Convolution(wide, outputs)
    self.project_bn = Norm(outputs)
    self.shortcut = stride == 1 and inputs == outputs

  def forward(self, x, moves):
    y = x
    if self.expands:
      y = F.relu6(self.expand_bn(self.expand(y), moves))
    y = F.relu6(self.depthwise_bn(self.depthwise(y), moves))
    y = self.project_bn(self.project(y), moves)
    return x + y if self.shortcut else y


class Lite(nn.Module):
  """An EfficientNet-Lite."""

  def __init__(
    self, classes, size, width=1.0, depth=1.0, stages=efficientnet.STAGES,
    stem=32, top=1280,
  ):  # fmt: skip
    super().__init__()
    del size
    self.stem = Convolution(3, stem, 3, 2)
    self.stem_bn = Norm(stem)
    inputs, layout = stem, efficientnet.layout(width, depth, stages)
    for i, block in enumerate(layout):
      self.add_module(f'block_{i}', LiteBlock(inputs, *block))
      inputs = block[-1]
    self.top = Convolution(inputs, top)
    self.top_bn = Norm(top)
    self.head = nn.Linear(top, classes)
    self.depth = len(layout)

  def forward(self, x, moves=True):
    x = (x - LITE.mean[0]) / LITE.std[0]
    x = F.relu6(self.stem_bn(self.stem(x), moves))
    for i in range(self.depth):
      x = getattr(self, f'block_{i}')(x, moves)
    x = F.relu6(self.top_bn(self.top(x), moves))
    z = x.mean((2, 3))
    return x.permute(0, 2, 3, 1), z, self.head(z)


def use(device: str) -> torch.device:
  """Sets PyTorch up as a user would who wants it fast, as JAX is by default.

  All cores; on a GPU TF32 for products of float32 and for convolutions, whose
  kernels are tried out.
  """
  torch.set_num_threads(os.cpu_count())
  if device == 'cuda':
    torch.set_float32_matmul_precision('high')
    torch.backends.cudnn.benchmark = True
  return torch.device(device)


def build(name: str, *, classes: int, size: int) -> nn.Module:
  """Makes the net called `name`, with random weights.

  Raises:
    UserError: there is no peer of it.
  """
  spec = models.find(name)
  net = {
    vit.Net: Vit, efficientnet.Net: Lite, swin.Net: Swin
  }.get(spec.net)  # fmt: skip
  sizes = dict(spec.sizes)
  other = sizes.pop('pool', 'cls') != 'cls' or sizes.pop('exact_gelu', False)
  if net is None or other:
    raise UserError(
      f'There is no PyTorch peer of {name}: take a ViT, a Swin or an '
      'EfficientNet-Lite.'
    )
  return net(classes, size, **sizes).to(memory_format=torch.channels_last)


@torch.no_grad()
def load(net: nn.Module, params, model_state) -> None:
  """Puts our weights into a net of `build`."""
  params = dict(params)
  if 'Transformer' in params:
    params |= params.pop('Transformer')
    params |= params.pop('posembed_input')
  stats = model_state.get('batch_stats', {})
  for path, module in net.named_modules():
    node = _at(params, path) or _joined(_at(params, path.rpartition('.')[0]))
    for name, target in module.named_parameters(recurse=False):
      ours = name
      if name == 'weight':
        ours = 'kernel' if 'kernel' in node else 'scale'
      array = np.array(node[ours], np.float32)
      if name == 'weight':
        array = _weight(array, target.shape)
      target.copy_(torch.from_numpy(array).view(target.shape))
    if isinstance(module, Norm):
      averages = _at(stats, path)
      module.running_mean.copy_(torch.from_numpy(np.array(averages['mean'])))
      module.running_var.copy_(torch.from_numpy(np.array(averages['var'])))


def _at(tree, path):
  for part in path.split('.') if path else ():
    tree = tree.get(part, {})
  return tree


def _joined(attention):
  """What is one product here is three of a ViT of ours."""
  parts = [attention[part] for part in ('query', 'key', 'value')]
  return {
    leaf: np.stack([part[leaf] for part in parts], axis=-3)
    for leaf in ('kernel', 'bias')
  }


def _weight(array, shape):
  """Our kernel, inputs before outputs, as PyTorch's, outputs before inputs."""
  if len(shape) == 2:
    return np.ascontiguousarray(array.reshape(shape[1], shape[0]).T)
  if len(shape) == 4:
    # The kernel of a 1 x 1 is [in, out], a depthwise one [k, k, C].
    array = array.reshape(*shape[2:], shape[1], shape[0])
    return np.ascontiguousarray(array.transpose(3, 2, 0, 1))
  return array
