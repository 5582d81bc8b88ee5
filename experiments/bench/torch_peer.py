"""The same training step in PyTorch, written plainly and well, to be timed.

What a PyTorch user would run: channels-last images, SDPA, fused AdamW, and on a
GPU bfloat16 autocast and `torch.compile`. It computes the loss of
`csdnet_jax.methods` for the same weights, views and draws (a test says so).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import torch
from torch.nn import functional as F

from csdnet_jax import models
from csdnet_jax.methods.csdnet import ssdp
from experiments.bench import torch_nets


class Draws(NamedTuple):
  """All that is random in a step, for B images.

  Attributes:
    views: [views, B, 9] in [0, 1), of the pose and the colour of each view.
    hidden: [B], the share of the area that SSDP hides.
    angle: [B] in [0, 2 pi), along which SSDP orders ties.
  """

  views: torch.Tensor
  hidden: torch.Tensor
  angle: torch.Tensor


def draw(config, views: int, device) -> Draws:
  """Draws for one step."""
  b = config.batch_size
  low, high = config.method.csdnet.hidden
  return Draws(
    torch.rand(views, b, 9, device=device),
    low + (high - low) * torch.rand(b, device=device),
    2 * math.pi * torch.rand(b, device=device),
  )


def sample_views(draws, images, extents, *, size: int, views) -> torch.Tensor:
  """`augment.sample_views` without contrast and saturation.

  Args:
    draws: [B, 9] in [0, 1).
    images: [B, 3, S, S] uint8, channels-last.
    extents: [B, 2], the valid height and width.
    size: pixels a side.
    views: `config.views`.

  Returns:
    [B, 3, size, size] float32 in [0, 1], channels-last.
  """
  whole = extents.float()
  own = whole[:, 1] / whole[:, 0]
  share = views.area[0] + (views.area[1] - views.area[0]) * draws[:, 0]
  low = torch.log(torch.clamp(share * own, *views.ratio))
  high = torch.log(torch.clamp(own / share, *views.ratio))
  ratio = torch.exp(low + (high - low) * draws[:, 1])
  box = torch.sqrt(share[:, None] * torch.stack([own / ratio, ratio / own], 1))
  box = whole * box / box.amax(1, keepdim=True).clamp(min=1)
  centre = box / 2 + (whole - box) * draws[:, 2:4]

  line = torch.arange(size, device=images.device) - (size - 1) / 2
  v, u = line[:, None], line[None, :]
  mirror = torch.where(draws[:, 4] < 0.5, -1.0, 1.0) if views.flip else 1.0
  u = (mirror * torch.ones_like(share))[:, None, None] * u
  angle = math.pi / 180 * views.rotate * (2 * draws[:, 5] - 1)
  sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
  step = (box / size)[:, :, None, None]
  y = centre[:, 0, None, None] - 0.5 + step[:, 0] * (cosine * v + sine * u)
  x = centre[:, 1, None, None] - 0.5 + step[:, 1] * (cosine * u - sine * v)
  y = torch.minimum(y.clamp(min=0), whole[:, 0, None, None] - 1)
  x = torch.minimum(x.clamp(min=0), whole[:, 1, None, None] - 1)
  grid = torch.stack([x, y], -1) * (2 / (images.shape[-1] - 1)) - 1
  view = F.grid_sample(
    images.float(), grid, padding_mode='border', align_corners=True
  )
  bright = 1 - views.brightness + 2 * views.brightness * draws[:, 6]
  return (bright[:, None, None, None] * view / 255).clamp(0, 1)


def spotlight(features, z, hidden, angle, size: int) -> torch.Tensor:
  """SSDP's mask: saliency by similarity, content kernel 3 x 3, rank mask.

  Args:
    features: [B, h, w, C].
    z: [B, C].
    hidden: [B], the share of the area to hide.
    angle: [B], the direction that orders ties.
    size: pixels a side.

  Returns:
    [B, size, size] in [0, 1].
  """
  b, h, w, _ = features.shape
  unit = F.normalize(features, dim=-1, eps=1e-6)
  saliency = torch.einsum('bhwc,bc->bhw', unit, F.normalize(z, eps=1e-6))
  padded = F.pad(unit, (0, 0, 1, 1, 1, 1))
  inside = F.pad(torch.ones_like(saliency), (1, 1, 1, 1))
  around = F.pad(saliency, (1, 1, 1, 1))
  scores, values = [], []
  for i in range(3):
    for j in range(3):
      place = slice(None), slice(i, i + h), slice(j, j + w)
      score = (unit * padded[place]).sum(-1) / 0.1
      scores.append(score.masked_fill(inside[place] == 0, -math.inf))
      values.append(around[place])
  weights = torch.stack(scores).softmax(0)
  saliency = (weights * torch.stack(values)).sum(0)
  # In 2^16 steps, as ours: what differs by a rounding error is to be a tie.
  low = saliency.amin((1, 2), keepdim=True)
  steps = (saliency.amax((1, 2), keepdim=True) - low) / 2**16
  side = ssdp.ranked_side(max(h, w), size)
  saliency = F.interpolate(saliency[:, None], (side, side), mode='bilinear')
  saliency = (saliency[:, 0] - low) / steps.clamp(min=1e-20)

  values = saliency.round().reshape(b, -1)
  line = torch.linspace(-1, 1, side, device=z.device)
  ramp = angle.cos()[:, None, None] * line + (
    angle.sin()[:, None, None] * line[:, None]
  )
  order = ramp.reshape(b, -1).argsort(1)
  order = order.gather(1, values.gather(1, order).argsort(dim=1, stable=True))
  n = side * side
  ranks = (torch.arange(n, device=z.device) + 0.5) / n
  rank = torch.empty_like(values).scatter_(1, order, ranks.expand(b, -1))
  mask = ((rank - hidden[:, None]) / 0.05 + 0.5).clamp(0, 1)
  mask = mask.view(b, 1, side, side)
  return F.interpolate(mask, (size, size), mode='bilinear')[:, 0]


class Queue:
  """The ring buffer of `csdnet_jax.memory`, changed in place."""

  def __init__(self, size: int, width: int, device):
    self.keys = torch.zeros(size, width, device=device)
    self.labels = torch.full((size,), -1, device=device)
    self.slots = torch.arange(size, device=device)
    # On the device, so that no step waits for the host or is compiled anew.
    self.count = torch.zeros((), dtype=torch.long, device=device)

  def push(self, keys, labels) -> None:
    """Writes the rows over the oldest ones."""
    size, n = len(self.slots), len(keys)
    slots = (self.count + self.slots[:n]) % size
    self.keys[slots] = keys
    self.labels[slots] = labels
    self.count += n


def contrast(z, labels, queue: Queue | None, margin: float) -> torch.Tensor:
  """DDL over batch and queue, averaging 'separate'; z is normalised."""

  def sums(cosine, same, use):
    positive, negative = same & use, ~same & use
    return torch.stack([
      ((1 - cosine) * positive).sum(), positive.sum(),
      (F.relu(cosine - margin) * negative).sum(), negative.sum(),
    ])  # fmt: skip

  use = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
  total = sums(z @ z.T, labels[:, None] == labels, use)
  if queue is not None:
    filled = queue.slots < queue.count
    total = total + sums(
      z @ queue.keys.T, labels[:, None] == queue.labels, filled[None]
    )
  return total[0] / total[1].clamp(min=1) + total[2] / total[3].clamp(min=1)


def distil(raw, aug, temperature: float) -> torch.Tensor:
  """SSDT, symmetric."""
  raw, aug = (F.log_softmax(x / temperature, -1) for x in (raw, aug))

  def divergence(source, target):
    return F.kl_div(
      source, target.detach(), log_target=True, reduction='batchmean'
    )

  both = divergence(aug, raw) + divergence(raw, aug)
  return temperature**2 * 0.5 * both


def loss(net, raw, aug, labels, draws: Draws, queue, config):
  """The loss of `config.method`.

  Args:
    net: of `torch_nets.build`.
    raw: [B, 3, S, S], the raw view.
    aug: the second view of cross-entropy with two; else None.
    labels: [B].
    draws: of the step.
    queue: CSDNet's, or None.
    config: of the run.

  Returns:
    The loss [], and the keys [2 B, C] and their labels, or None.
  """
  c, smoothing = config.method.csdnet, config.optim.label_smoothing
  half = config.model.dtype == 'bfloat16'

  def forward(x, moves):
    with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
      return [y.float() for y in net(x, moves)]

  def cross_entropy(logits):
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)

  batch_norm = isinstance(net, torch_nets.Lite)
  if config.method.name == 'supervised':
    if aug is None:
      return cross_entropy(forward(raw, True)[2]), None
    if batch_norm:
      logits = forward(raw, True)[2], forward(aug, False)[2]
    else:
      logits = forward(torch.cat([raw, aug]), True)[2].chunk(2)
    return cross_entropy(logits[0]) + cross_entropy(logits[1]), None

  features, z_raw, p_raw = forward(raw, True)
  with torch.no_grad():
    mask = spotlight(features, z_raw, draws.hidden, draws.angle, raw.shape[-1])[
      :, None
    ]
    fill = net.fill[:, None, None]
    aug = mask * raw + (1 - mask) * fill
  _, z_aug, p_aug = forward(aug, False)
  z = F.normalize(torch.stack([z_raw, z_aug], 1).flatten(0, 1), eps=1e-6)
  labels2 = labels.repeat_interleave(2)
  total = (
    cross_entropy(p_raw)
    + c.aug_weight * cross_entropy(p_aug)
    + c.alpha * contrast(z, labels2, queue, c.margin)
    + c.beta * distil(p_raw, p_aug, c.temperature)
  )
  return total, (z.detach(), labels2)


def build(config, params, model_state, device):
  """Returns the net with our weights, the mean colour as its buffer `fill`."""
  classes = params['head']['bias'].shape[0]
  net = torch_nets.build(
    config.model.name, classes=classes, size=config.model.size
  )
  torch_nets.load(net, params, model_state)
  mean = models.build(
    config.model.name, classes=classes, drop_rate=0.0, drop_path=0.0
  ).mean
  net.register_buffer('fill', torch.tensor(mean), persistent=False)
  return net.to(device)


def optimiser(config, net) -> torch.optim.Optimizer:
  """AdamW, fused, in the groups of `config.optim`'s defaults."""
  o = config.optim
  groups = {}
  for name, parameter in net.named_parameters():
    lr = o.lr * (5 if name.startswith('head.') else 1)
    plain = name.endswith(('bias', 'cls', 'pos_embedding'))
    decay = 0.0 if plain or parameter.ndim == 1 else o.weight_decay
    groups.setdefault((lr, decay), []).append(parameter)
  return torch.optim.AdamW(
    [
      {'params': group, 'lr': lr, 'weight_decay': decay}
      for (lr, decay), group in groups.items()
    ],
    fused=True,
  )


def contender(program, device: str, compiled: bool) -> Callable[[int], None]:
  """Returns `run(n)`, n training steps of a `step.Prepared` config.

  Args:
    program: whose config, weights and batch are taken over.
    device: 'cpu' or 'cuda'.
    compiled: whether `torch.compile` makes one program of the forward pass and
      one of the backward pass.
  """
  device = torch_nets.use(device)
  config = program.config
  params, model_state, batch = jax.device_get(
    (program.state.params, program.state.model_state, program.batch)
  )
  net = build(config, params, model_state, device).train()
  adamw = optimiser(config, net)
  images, extents, labels = (
    torch.from_numpy(np.array(batch[name])).to(device)
    for name in ('image', 'extent', 'label')
  )
  images, labels = images.permute(0, 3, 1, 2), labels.long()
  csdnet = config.method.name == 'csdnet'
  two = not csdnet and config.method.supervised.views == 2
  queue = None
  if csdnet and config.method.csdnet.queue:
    queue = Queue(config.method.csdnet.queue, net.head.in_features, device)
  micro, views = config.accumulate, 1 + two

  def forward(images, extents, labels, draws):
    sampled = [
      sample_views(
        draws.views[i], images, extents,
        size=config.model.size, views=config.views,
      )
      for i in range(views)
    ]  # fmt: skip
    return loss(net, *(sampled + [None])[:2], labels, draws, queue, config)

  if compiled:
    forward = torch.compile(forward)

  def step():
    draws, pushed = draw(config, views, device), []
    rows = [x.chunk(micro) for x in (images, extents, labels)]
    drawn = [
      x.chunk(micro, dim=d) for x, d in zip(draws, (1, 0, 0), strict=True)
    ]
    for i in range(micro):
      total, push = forward(
        *(x[i] for x in rows), Draws(*(x[i] for x in drawn))
      )
      (total / micro).backward()
      pushed.append(push)
    torch.nn.utils.clip_grad_norm_(net.parameters(), config.optim.clip)
    adamw.step()
    adamw.zero_grad(set_to_none=True)
    if queue is not None:
      for push in pushed:
        queue.push(*push)

  def run(steps):
    for _ in range(steps):
      step()
    if device.type == 'cuda':
      torch.cuda.synchronize()

  return run


def describe(device: str) -> dict:
  """The peer's version and threads, and on a GPU the bytes at its peak."""
  about = {'torch': torch.__version__, 'threads': torch.get_num_threads()}
  if device == 'cuda':
    about['peak_memory'] = torch.cuda.max_memory_allocated()
  return about
