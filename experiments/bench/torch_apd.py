"""APD's training step in PyTorch, written plainly and well, to be timed.

What a PyTorch user would run: channels-last images, the frozen teacher without
gradients, logits upsampled by `interpolate` for each loss, fused SGD and, on a
GPU, bfloat16 autocast and `torch.compile`. It computes the loss of
`csdnet_jax.methods.apd` for the same weights and crops (a test says so).
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from csdnet_jax.data import augment
from experiments.bench import torch_nets, torch_segmentation


class Nets(NamedTuple):
  """All that a step forwards, on one device.

  Attributes:
    student: trained.
    teacher: in evaluation mode, or None.
    projectors: 'projector' and 'teacher_projector', empty but for APD.
  """

  student: nn.Module
  teacher: nn.Module | None
  projectors: nn.ModuleDict


class Projector(nn.Module):
  """Two 1 x 1 convolutions with a ReLU between."""

  def __init__(self, width, hidden):
    super().__init__()
    self.hidden = nn.Conv2d(width, hidden, 1)
    self.out = nn.Conv2d(hidden, hidden, 1)

  def forward(self, x):
    return self.out(F.relu(self.hidden(x)))


def build(config, params, model_state, frozen, device) -> Nets:
  """Makes the nets of a config with our weights.

  Args:
    config: of the run.
    params: of the student, the projectors beside it.
    model_state: of the student.
    frozen: (params, model_state) of the teacher, or ().
    device: where they go.
  """
  c, classes = config.method.apd, params['head']['bias'].shape[0]

  def load(net, *weights):
    torch_nets.load(net, *weights)
    return net.to(device)

  student = torch_segmentation.build(
    config.model.name, classes=classes, width=config.model.width
  )
  student = load(student, params, model_state).train()
  teacher, projectors = None, nn.ModuleDict()
  if frozen:
    teacher = torch_segmentation.build(
      config.teacher.model, classes=classes, width=config.teacher.width
    )
    teacher = load(teacher, *frozen).eval().requires_grad_(False)
  for name in ('projector', 'teacher_projector'):
    if name in params:
      width = params[name]['hidden']['kernel'].shape[0]
      projectors[name] = load(Projector(width, c.hidden), params[name], {})
  return Nets(student, teacher, projectors)


def sample_pairs(
  draws, images, masks, extents, centres, scales, *, size: int, crops
) -> tuple[torch.Tensor, torch.Tensor]:
  """`augment.sample_pairs`.

  Args:
    draws: [B, 4] in [0, 1), of turn, angle, mirror and blur.
    images: [B, 3, S, S] uint8.
    masks: [B, S, S] uint8.
    extents: [B, 2].
    centres: [B, 2].
    scales: [B].
    size: pixels a side of the crops.
    crops: `config.crops`.

  Returns:
    [B, 3, size, size] in [0, 1], and labels [B, size, size] int64.
  """
  whole = extents.float()
  line = torch.arange(size, device=images.device) - (size - 1) / 2
  angle = math.pi / 180 * crops.rotate * (2 * draws[:, 1] - 1)
  angle = torch.where(draws[:, 0] < 0.5, angle, 0.0)[:, None, None]
  mirror = torch.where(draws[:, 2] < 0.5, -1.0, 1.0) if crops.flip else (
    torch.ones_like(scales)
  )  # fmt: skip
  u = mirror[:, None, None] * line
  v = line[:, None]
  sine, cosine = angle.sin(), angle.cos()
  step = 1 / scales[:, None, None]
  y = centres[:, 0, None, None] - 0.5 + step * (cosine * v + sine * u)
  x = centres[:, 1, None, None] - 0.5 + step * (cosine * u - sine * v)
  row, column = torch.floor(y + 0.5), torch.floor(x + 0.5)
  height, width = whole[:, 0, None, None], whole[:, 1, None, None]
  inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
  grid = torch.stack(
    [
      torch.minimum(x.clamp(min=0), width - 1),
      torch.minimum(y.clamp(min=0), height - 1),
    ],
    -1,
  )
  grid = grid * (2 / (images.shape[-1] - 1)) - 1
  view = F.grid_sample(
    images.float(), grid, padding_mode='border', align_corners=True
  )
  mean = torch.tensor(augment.MEAN, device=images.device)[:, None, None]
  view = torch.where(inside[:, None], view / 255, mean)
  index = (row * masks.shape[-1] + column).long().masked_fill(~inside, 0)
  labels = masks.flatten(1).gather(1, index.flatten(1)).view_as(index).long()
  labels = labels.masked_fill(~inside, augment.IGNORE)
  taps = torch.tensor([1.0, 4, 6, 4, 1], device=images.device) / 16
  kernel = (taps[:, None] * taps).expand(3, 1, 5, 5)
  smooth = F.conv2d(F.pad(view, (2,) * 4, mode='reflect'), kernel, groups=3)
  blurred = (draws[:, 3] < crops.blur)[:, None, None, None]
  return torch.where(blurred, smooth, view), labels


def _upsample(x, labels):
  return F.interpolate(
    x, labels.shape[-2:], mode='bilinear', align_corners=True
  )


def _entropy(logits, labels):
  return F.cross_entropy(
    _upsample(logits, labels), labels, ignore_index=augment.IGNORE
  )


def _divergence(student, teacher):
  """The mean over all elements, classes included, of KL(teacher || student)."""
  source, target = F.log_softmax(student, 1), F.log_softmax(teacher, 1)
  # PyTorch warns of reduction='mean'.
  return F.kl_div(source, target, log_target=True, reduction='none').mean()


def _observed(features, masks, scale):
  """Observations [n, C], prototypes [C, D] of features [n, D], masks [n, C]."""
  unit = F.normalize(features, dim=1, eps=1e-6)
  counts = masks.sum(0).clamp(min=1)
  prototypes = F.normalize(masks.T @ unit / counts[:, None], dim=1, eps=1e-6)
  return scale * unit @ prototypes.T, prototypes


def perspectives(
  student, teacher, labels, *, classes: int, scale: float
) -> dict[str, torch.Tensor]:
  """APD's three terms of one group, of projected features [g, D, h, w]."""
  g, _, h, w = student.shape
  small = F.interpolate(labels[:, None].float(), (h, w)).long().flatten()
  small = small.masked_fill(small == augment.IGNORE, classes)
  masks = F.one_hot(small, classes + 1)[:, :classes].float()
  present = masks.sum(0) > 0

  def seen(x):
    return _observed(x.permute(0, 2, 3, 1).flatten(0, 2), masks, scale)

  ours, own = seen(student)
  theirs, other = seen(teacher)
  absent, count = ~present, present.sum().clamp(min=1)
  source, target = (
    F.log_softmax(z.masked_fill(absent, -1e30), 1)
    for z in (ours, theirs.detach())
  )
  apart = torch.where(present, target.exp() * (target - source), 0.0)
  distance = 0.5 * (1 - (own * other.detach()).sum(1))
  logits = theirs.view(g, h, w, classes).permute(0, 3, 1, 2)
  return {
    'observation': apart.sum() / (len(ours) * count),
    'alignment': (distance * present).sum() / count,
    'ce_teacher_projector': _entropy(logits, labels),
  }


def loss(nets: Nets, images, labels, config) -> torch.Tensor:
  """The loss of the arms 'student', 'kd' and 'apd', [].

  Args:
    nets: of `build`.
    images: [B, 3, S, S] in [0, 1], channels last.
    labels: [B, S, S] int64.
    config: of the run.
  """
  c = config.method.apd
  half = config.model.dtype == 'bfloat16'
  with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
    features, logits, aux = (x.float() for x in nets.student(images))
    if nets.teacher is not None:
      with torch.no_grad():
        target, target_logits, _ = (x.float() for x in nets.teacher(images))
  total = _entropy(logits, labels) + c.aux_weight * _entropy(aux, labels)
  if nets.teacher is None:
    return total
  total = total + c.kd * _divergence(
    _upsample(logits, labels), _upsample(target_logits, labels)
  )
  if c.arm == 'apd':
    ours = nets.projectors['projector'](features).split(c.group)
    theirs = nets.projectors['teacher_projector'](target).split(c.group)
    groups = list(zip(ours, theirs, labels.split(c.group), strict=True))
    for group in groups:
      terms = perspectives(*group, classes=logits.shape[1], scale=c.scale)
      total = total + (
        c.observation * terms['observation']
        + c.alignment * terms['alignment']
        + terms['ce_teacher_projector']
      ) / len(groups)
  return total


def optimisers(config, nets: Nets) -> list[torch.optim.Optimizer]:
  """SGD in the groups of `config.optim`, and the teacher projector's Adam."""
  o, groups, adam = config.optim, {}, []
  named = [*nets.student.named_parameters()]
  named += nets.projectors.named_parameters()
  for name, parameter in named:
    if name.startswith('teacher_projector'):
      adam.append(parameter)
      continue
    lr, path = o.lr, name.replace('.', '/')
    for pattern, times, _ in o.groups:
      lr *= times if re.search(pattern, path) else 1
    groups.setdefault(lr, []).append(parameter)
  found = [
    torch.optim.SGD(
      [{'params': group, 'lr': lr} for lr, group in groups.items()],
      momentum=0.9, weight_decay=o.weight_decay, fused=True,
    )
  ]  # fmt: skip
  if adam:
    found.append(torch.optim.Adam(adam, lr=1e-5, betas=(0.9, 0.99), fused=True))
  return found


def contender(program, device: str, compiled: bool) -> Callable[[int], None]:
  """Returns `run(n)`, n training steps of a `step.Prepared` config.

  Args:
    program: whose config, weights and batch are taken over.
    device: 'cpu' or 'cuda'.
    compiled: whether `torch.compile` makes one program of the forward pass and
      one of the backward pass.
  """
  device = torch_nets.use(device)
  state, frozen, batch = jax.device_get(
    (program.state, program.frozen, program.batch)
  )
  config = program.config
  nets = build(config, state.params, state.model_state, frozen, device)
  optimisers_ = optimisers(config, nets)
  names = ('image', 'mask', 'extent', 'centre', 'scale')
  images, *others = (
    torch.from_numpy(np.array(batch[name])).to(device) for name in names
  )
  images = images.permute(0, 3, 1, 2)

  def forward(draws):
    crops, labels = sample_pairs(
      draws, images, *others, size=config.model.size, crops=config.crops
    )
    crops = crops.contiguous(memory_format=torch.channels_last)
    return loss(nets, crops, labels, config)

  if compiled:
    forward = torch.compile(forward)

  def run(steps):
    for _ in range(steps):
      forward(torch.rand(len(images), 4, device=device)).backward()
      for optimiser in optimisers_:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    if device.type == 'cuda':
      torch.cuda.synchronize()

  return run
