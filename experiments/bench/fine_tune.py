r"""How well PyTorch users would fine-tune on the same folder and folds.

  python -m experiments.bench.fine_tune FOLDER --folds=plan.json \
    --style=fastai --minutes=10

The same EfficientNet-Lite0 from the same ImageNet weights, in plain PyTorch,
trained as fastai's `fine_tune` does or by timm's defaults, written anew after
their documentation. The folds are those of a verdict: of the plan.json in its
workdir, or of a JSON file of {name: fold}; each name is a path under FOLDER, a
fold of -1 is always trained on. The minutes are shared by the folds, and end no
later than 100 epochs. It prints a line of JSON.

Both see pictures squeezed to a square, as ours do, and draw views on the
device. Mixup is off, as it is by timm's own defaults: with three pictures a
class nearly all mixtures are of classes that are mixed once, and the few steps
do not see enough clean pictures besides. AutoAugment and its kin are off as
well, by timm's default.
"""

import argparse
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from csdnet_jax.data import decode
from csdnet_jax.runtime import commands
from csdnet_jax.runtime.errors import UserError
from experiments.bench import torch_nets, torch_peer

_BATCH = 16
_EPOCHS = 100


class Views(NamedTuple):
  """The part, the form and the brightness of what is seen of a picture.

  Attributes:
    area: of the part, of the whole, from and to.
    ratio: of its width to its height, from and to.
    flip: whether half of the views are mirrored.
    rotate: degrees, to either side at most.
    brightness: at most so much brighter or darker.
    contrast: at most so much more or less.
  """

  area: tuple[float, float]
  ratio: tuple[float, float]
  flip: bool
  rotate: float
  brightness: float
  contrast: float


class Style(NamedTuple):
  """A way to train.

  Attributes:
    views: that are trained on.
    smoothing: of the labels.
    stages: `(net, steps, steps of an epoch) -> optimiser and scheduler` of each
      stage in turn, and the steps that it takes.
  """

  views: Views
  smoothing: float
  stages: Callable[..., list]


class Stage(NamedTuple):
  """Steps under one schedule.

  Attributes:
    steps: how many.
    start: `() -> (optimiser, scheduler)`; says what is trained.
  """

  steps: int
  start: Callable[[], tuple]


# ------------------------------------------------------------------ the styles


def fastai_stages(net, steps: int, epoch: int) -> list[Stage]:
  """The head for an epoch, then all of it: `Learner.fine_tune`.

  One cycle each (Smith, 2018), at 2e-3 for the head alone, then at 1e-3 for the
  head down to a hundredth of it for the first of three groups of layers; Adam
  with decoupled weight decay 0.01, none for vectors, and eps 1e-5. BatchNorm is
  trained throughout. The head is one linear layer, as ours.
  """
  first = min(epoch, max(1, steps // 2))

  def one_cycle(parameters, rates, steps, **cycle):
    groups = [
      {'params': part, 'lr': rate, 'weight_decay': decay}
      for own, rate in zip(parameters, rates, strict=True)
      for decay, part in zip((0.01, 0.0), by_decay(own), strict=True)
    ]
    adam = torch.optim.AdamW(groups, eps=1e-5)
    highest = [group['lr'] for group in groups]
    return adam, torch.optim.lr_scheduler.OneCycleLR(
      adam, highest, total_steps=steps + 1, base_momentum=0.85,
      max_momentum=0.95, **cycle,
    )  # fmt: skip

  def head_alone():
    for own in layers(net)[:-1]:
      for parameter in own:
        # The vectors are the scales and shifts of BatchNorm.
        parameter.requires_grad_(parameter.ndim == 1)
    trained = [[p for p in own if p.requires_grad] for own in layers(net)]
    return one_cycle(
      trained, [2e-4, 2e-4, 2e-3], first, pct_start=0.99, div_factor=25,
      final_div_factor=4e3,
    )  # fmt: skip

  def all_of_it():
    net.requires_grad_(True)
    return one_cycle(
      layers(net), [1e-5, 1e-4, 1e-3], steps - first, pct_start=0.3,
      div_factor=5, final_div_factor=2e4,
    )  # fmt: skip

  return [Stage(first, head_alone), Stage(steps - first, all_of_it)]


def layers(net) -> list[list]:
  """The parameters of a net in three groups, the head last."""
  blocks = {f'block_{i}' for i in range(net.depth // 2)}
  groups = [], [], []
  for name, parameter in net.named_parameters():
    module = name.partition('.')[0]
    early = module in blocks or module.startswith('stem')
    groups[2 if module == 'head' else 0 if early else 1].append(parameter)
  return list(groups)


def by_decay(parameters) -> tuple[list, list]:
  """Parameters that decay, and the vectors, which do not."""
  parameters = list(parameters)
  return (
    [p for p in parameters if p.ndim > 1],
    [p for p in parameters if p.ndim <= 1],
  )


def timm_stages(net, steps: int, epoch: int) -> list[Stage]:
  """AdamW down a cosine after five epochs of warm-up, as timm's train script.

  Weight decay 0.05, none for vectors, and a rate of 3e-4, as is common for
  AdamW from pretrained weights; the warm-up begins at 1e-5 and takes at most a
  fifth of the steps.
  """

  def start():
    groups = [
      {'params': part, 'weight_decay': decay}
      for decay, part in zip(
        (0.05, 0.0), by_decay(net.parameters()), strict=True
      )
    ]
    adamw = torch.optim.AdamW(groups, lr=3e-4)
    warm = max(1, min(5 * epoch, steps // 5))

    def factor(i):
      if i < warm:
        return 1 / 30 + (1 - 1 / 30) * i / warm
      return (1 + math.cos(math.pi * (i - warm) / max(1, steps - warm))) / 2

    return adamw, torch.optim.lr_scheduler.LambdaLR(adamw, factor)

  return [Stage(steps, start)]


STYLES = {
  'fastai': Style(
    Views((0.75, 1.0), (3 / 4, 4 / 3), True, 10.0, 0.2, 0.2), 0.0, fastai_stages
  ),
  'timm': Style(
    Views((0.08, 1.0), (3 / 4, 4 / 3), True, 0.0, 0.4, 0.4), 0.1, timm_stages
  ),
}


# ---------------------------------------------------------------- the training


def train(net, images, labels, style: Style, *, seconds: float, seed: int):
  """Trains a net for some seconds; returns its epochs.

  Args:
    net: of `torch_nets`.
    images: uint8 [n, 3, S, S].
    labels: int64 [n].
    style: of `STYLES`.
    seconds: that it may take, from which the steps are reckoned.
    seed: of the order and the views.
  """
  torch.manual_seed(seed)
  n, size = len(images), images.shape[-1]
  batch = min(_BATCH, n)
  epoch = n // batch
  begun = time.perf_counter()

  def step(rows, optimiser):
    draws = torch.rand(len(rows), 10, device=images.device)
    x = draw_views(draws, images[rows], size, style.views)
    loss = F.cross_entropy(
      net(x)[2], labels[rows], label_smoothing=style.smoothing
    )
    loss.backward()
    if optimiser is not None:
      optimiser.step()
      optimiser.zero_grad(set_to_none=True)

  net.train()
  kept = {name: x.clone() for name, x in net.state_dict().items()}
  step(torch.arange(batch), None)  # The first is slower.
  clock = time.perf_counter()
  for _ in range(3):
    step(torch.arange(batch), None)
  each = (time.perf_counter() - clock) / 3
  net.load_state_dict(kept)
  net.zero_grad(set_to_none=True)
  left = seconds - (time.perf_counter() - begun)
  steps = max(2, min(int(left / each), _EPOCHS * epoch))

  order = iter(())
  for stage in style.stages(net, steps, epoch):
    optimiser, scheduler = stage.start()
    for _ in range(stage.steps):
      rows = next(order, None)
      if rows is None:
        shuffled = torch.randperm(n)[: epoch * batch]
        order = iter(shuffled.split(batch))
        rows = next(order)
      step(rows, optimiser)
      scheduler.step()
  return steps / epoch


def draw_views(draws, images, size: int, views: Views) -> torch.Tensor:
  """Views [B, 3, size, size] in [0, 1] of pictures, by draws [B, 10]."""
  extents = torch.full((len(images), 2), images.shape[-1])
  seen = torch_peer.sample_views(
    draws[:, :9], images, extents.to(images.device), size=size, views=views
  )
  mean = seen.mean((1, 2, 3), keepdim=True)
  contrast = 1 + views.contrast * (2 * draws[:, 9, None, None, None] - 1)
  return (mean + contrast * (seen - mean)).clamp(0, 1)


@torch.no_grad()
def name(net, images) -> torch.Tensor:
  """The class of each picture, int64 [n]."""
  net.eval()
  parts = [net(part.float() / 255)[2] for part in images.split(_BATCH)]
  return torch.cat(parts).argmax(-1)


# -------------------------------------------------------------------- the folds


def read_folds(path: pathlib.Path) -> dict[str, int]:
  """Returns {name: fold} of a plan.json, or of a file that is no more.

  Raises:
    UserError: if it holds none.
  """
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
    folds = value.get('folds', value)
    return {name: int(fold) for name, fold in folds.items()}
  except (AttributeError, OSError, TypeError, ValueError) as error:
    raise UserError(
      f'--folds={path} holds no folds ({error}); give the plan.json of a '
      'verdict, or {"class/picture.png": 0, ...}.'
    ) from error


def read_pictures(
  folder: pathlib.Path, names: Sequence[str], size: int
) -> torch.Tensor:
  """Pictures squeezed to a square, uint8 [n, 3, size, size].

  Raises:
    UserError: if one is not there or cannot be read.
  """
  found = []
  for name_ in names:
    try:
      picture = decode.decode((folder / name_).read_bytes(), name_)
    except OSError as error:
      raise UserError(
        f'{folder / name_} cannot be read ({error.strerror}); check the folder.'
      ) from error
    found.append(decode.eval_view(picture, size=size, resize=size, square=True))
  return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)


def judge(
  build: Callable, images, labels, folds, style: Style, *, minutes: float
) -> dict:
  """Trains on all folds but one, names that one, and so for each.

  Args:
    build: `() -> net`, with the weights that each fold starts from.
    images: uint8 [n, 3, S, S].
    labels: int64 [n].
    folds: integer [n], -1 for what is never tested.
    style: of `STYLES`.
    minutes: for all of it.

  Returns:
    The figures of the line.
  """
  clock, k = time.perf_counter(), int(folds.max()) + 1
  right, epochs = np.zeros(len(labels), bool), []
  for fold in range(k):
    test = torch.from_numpy(folds == fold)
    net = build()
    left = 60 * minutes - (time.perf_counter() - clock)
    epochs.append(
      train(
        net,
        images[~test],
        labels[~test],
        style,
        seconds=left / (k - fold),
        seed=fold,
      )  # fmt: skip
    )
    right[folds == fold] = (name(net, images[test]) == labels[test]).cpu()
  tested = folds >= 0
  return {
    'top1': 100 * float(right[tested].mean()),
    'n': int(tested.sum()),
    'folds': k,
    'epochs': round(float(np.mean(epochs)), 1),
    'minutes': round((time.perf_counter() - clock) / 60, 2),
  }


def published(classes: int, size: int) -> Callable:
  """Returns `() -> net`, an EfficientNet-Lite0 with our published weights."""
  import jax

  from csdnet_jax.training import build, command_line, initial

  config = command_line.resolve(['--config=folder', '--config.data.root=.'])
  model = build.network(config, classes)
  names = [str(i) for i in range(classes)]
  weights = jax.device_get(initial.initial_weights(config, model, names)[:2])

  def make():
    net = torch_nets.build(config.model.name, classes=classes, size=size)
    torch_nets.load(net, *weights)
    return net

  return make


def main(argv: Sequence[str]) -> int:
  """Judges a style, and prints the line; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.bench.fine_tune',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--folds', type=pathlib.Path, required=True)
  parser.add_argument('--style', choices=tuple(STYLES), required=True)
  parser.add_argument('--minutes', type=float, default=20.0)
  parser.add_argument('--size', type=int, default=160)
  parser.add_argument(
    '--threads', type=int, metavar='N',
    help='where others compute as well; all cores without it',
  )  # fmt: skip
  args = parser.parse_args(argv)
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  place = torch_nets.use(device)
  if args.threads:
    torch.set_num_threads(args.threads)
  folds = read_folds(args.folds)
  names = sorted(folds)
  classes = sorted({name_.rpartition('/')[0] for name_ in names})
  labels = [classes.index(name_.rpartition('/')[0]) for name_ in names]
  images = read_pictures(args.folder, names, args.size)
  make = published(len(classes), args.size)
  found = judge(
    lambda: make().to(place), images.to(place),
    torch.tensor(labels, device=place), np.array([folds[x] for x in names]),
    STYLES[args.style], minutes=args.minutes,
  )  # fmt: skip
  line = {'style': args.style, 'size': args.size, 'classes': len(classes)}
  print(json.dumps(line | found | torch_peer.describe(device)))
  return 0


if __name__ == '__main__':
  commands.end(lambda: main(sys.argv[1:]))
