"""Optimisers: Optax, with one table of multipliers by parameter name."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import optax

from csdnet_jax.runtime.fields import Field, is_zero

FIELDS = {
  'name': Field('adamw', choices=('adamw', 'sgd')),  # sgd: momentum 0.9.
  'lr': Field(1e-3, low=0),
  # Decay to `final` of lr; 'poly' has power 0.9.
  'schedule': Field('cosine', choices=('cosine', 'linear', 'poly')),
  'final': Field(0.0, low=0, high=1),
  'warmup': Field(2.0, low=0),  # Epochs.
  'weight_decay': Field(0.05, low=0),
  'clip': Field(5.0, low=0),  # Global norm of the gradients; 0 is off.
  'label_smoothing': Field(0.1, low=0, high=0.99),
  # 'head' freezes what is below it, 'norms' all of that but norms.
  'tune': Field('all', choices=('all', 'norms', 'head')),
  'layer_decay': Field(1.0, low=0.01, high=1),  # Of lr, a layer down.
  # (regex, lr multiplier, whether to decay): every row that matches a
  # parameter's name multiplies; lr 0 freezes.
  'groups': Field(
    (
      ('^head/', 5.0, True),
      ('(bias|scale|cls|pos_embedding)$', 1.0, False),
    )
  ),
}

TRAIN, FREEZE = 'train', 'freeze'

# What stands above the backbone of a network, or of one that segments.
_ABOVE = ('head', 'context', 'aux', 'aux_head')
_NORM = re.compile(r'(norm|bn)(_?\d+)?/\w+$', re.IGNORECASE)
# The first layers, below all blocks; and a block's part of a name, which has a
# number, such as 'encoderblock_3', 'layer1_0' or 'stage_2_block_5'.
_FIRST = re.compile(
  r'(^|/)(stem|embed|patch|pre_|cls|pos(_|emb|ition)|regist|(conv|bn)\d/)',
  re.IGNORECASE,
)
_BLOCK = re.compile(r'(?:^|/)([^/]*_\d[^/]*)/')


def names(params) -> dict[str, jax.Array]:
  """Returns {'blocks_0/conv/kernel': leaf} in tree order."""
  leaves = jax.tree.leaves_with_path(params)
  return {
    '/'.join(str(getattr(k, 'key', k)) for k in path): leaf
    for path, leaf in leaves
  }


def heights(params, extras: Iterable[str] = ()) -> dict[str, int]:
  """Returns for each parameter how many layers are between it and the top.

  The head, what stands beside it, and the last norm are 0, the last block is 1,
  and the first layers are one more than the first block, as Bao et al., BEiT,
  ICLR 2022, count; blocks are told by the numbers in their names.

  >>> heights({'stem': 0, 'block_0': {'bias': 0}, 'block_1': {'bias': 0}})
  {'block_0/bias': 2, 'block_1/bias': 1, 'stem': 3}

  Args:
    params: the parameters.
    extras: the names of subtrees that training alone needs, at the top.
  """
  found = dict.fromkeys(names(params), 0)
  below = [name for name in found if not _is_above(name, extras)]
  numbers = {
    name: tuple(map(int, re.findall(r'\d+', block[1])))
    for name in below if (block := _BLOCK.search(name))
  }  # fmt: skip
  order = sorted(set(numbers.values()), reverse=True)
  for name in below:
    if name in numbers:
      found[name] = 1 + order.index(numbers[name])
    elif _FIRST.search(name):
      found[name] = 1 + len(order)
  return found


def grouped(config, params, extras: Iterable[str] = ()) -> tuple:
  """Returns two trees like params: lr multipliers, and what is decayed.

  Args:
    config: `config.optim`. Every row (regex, lr multiplier, whether weight
      decay applies) of its `groups` whose regex is found in a parameter's name
      multiplies, and one that says no decay is enough for none. `tune` freezes:
      'head' all that is below the head, 'norms' the same but for norms.
      `layer_decay` multiplies once for each layer below the top, see `heights`.
    params: the parameters.
    extras: the names of subtrees that training alone needs, which learn
      whatever `tune` says.
  """
  table, below = [], heights(params, extras)
  for name in names(params):
    rows = [row[1:] for row in config.groups if re.search(row[0], name)]
    factors = [lr for lr, _ in rows]
    factors.append(config.layer_decay ** below[name])
    if not _tuned(config.tune, name, extras):
      factors.append(0.0)
    # A traced number times zero would not be known to be zero.
    frozen = any(map(is_zero, factors))
    lr = 0.0 if frozen else math.prod(factors, start=1.0)
    table.append((lr, all(decayed for _, decayed in rows)))
  structure = jax.tree.structure(params)
  lrs, decayed = zip(*table, strict=True)
  return (
    jax.tree.unflatten(structure, lrs),
    jax.tree.unflatten(structure, decayed),
  )


def _is_above(name: str, extras: Iterable[str]) -> bool:
  """Whether a parameter is none of the backbone's."""
  return name.split('/')[0] in (*_ABOVE, *extras)


def _tuned(tune: str, name: str, extras: Iterable[str]) -> bool:
  """Whether a parameter learns."""
  if tune == 'all' or _is_above(name, extras):
    return True
  return tune == 'norms' and bool(_NORM.search(name))


def schedule(config, *, steps: int, warmup_steps: int) -> optax.Schedule:
  """Linear warm-up, then decay to `config.final` of lr.

  Cosine, linear, or (1 - k / n)^0.9 at step k of n, the 'poly' of segmentation.
  """
  warmup_steps = min(warmup_steps, steps)
  rest = max(steps - warmup_steps, 1)
  if config.schedule == 'cosine':
    decay = optax.cosine_decay_schedule(config.lr, rest, alpha=config.final)
  else:
    power = {'linear': 1, 'poly': 0.9}[config.schedule]
    decay = optax.polynomial_schedule(
      config.lr, config.lr * config.final, power, rest
    )
  # One step in, so that no step is wasted at a rate of zero.
  first = config.lr / (warmup_steps + 1)
  warmup = optax.linear_schedule(first, config.lr, warmup_steps)
  return optax.join_schedules([warmup, decay], [warmup_steps])


def _by_tree(factors) -> optax.GradientTransformation:
  return optax.stateless(
    lambda updates, _: jax.tree.map(lambda u, f: u * f, updates, factors)
  )


def partition(
  config, params, partitions: Iterable[str] = (), extras: Iterable[str] = ()
) -> dict[str, Any]:
  """Returns for each parameter what moves it: TRAIN, FREEZE or a partition.

  Args:
    config: `config.optim`; a multiplier of 0 for the rate freezes.
    params: the parameters or their shapes.
    partitions: the names of subtrees that have optimisers of their own.
    extras: as of `grouped`.
  """
  lrs, _ = grouped(config, params, extras)
  found = jax.tree.map(lambda lr: FREEZE if is_zero(lr) else TRAIN, lrs)
  for name in partitions:
    found[name] = jax.tree.map(lambda _: name, found[name])  # noqa: B023
  return found


def make(
  config,
  params,
  *,
  steps: int,
  warmup_steps: int,
  partitions: Mapping[str, optax.GradientTransformation] | None = None,
  extras: Iterable[str] = (),
):
  """Returns the Optax transformation for `config.optim`.

  AdamW (betas 0.9 and 0.999, decoupled decay) or SGD (momentum 0.9, L2 decay
  in the gradient, as PyTorch has it). Frozen parameters, those with an lr
  multiplier of 0 or that `config.tune` leaves, hold no state and no part of the
  clipping norm.

  Args:
    config: `config.optim`; JAX may trace numbers of it that are not zero.
    params: the parameters or their shapes.
    steps: of the whole run.
    warmup_steps: of them.
    partitions: optimisers of their own for subtrees of params, by their names.
      Nothing that is said above concerns these.
    extras: as of `grouped`.
  """
  partitions = partitions or {}
  lrs, decayed = grouped(config, params, extras)
  rate = schedule(config, steps=steps, warmup_steps=warmup_steps)
  # The chain sees the trained leaves only.
  labels = partition(config, params, partitions, extras)

  def masked(tree):
    return jax.tree.map(
      lambda label, x: x if label == TRAIN else optax.MaskedNode(), labels, tree
    )

  decay = optax.add_decayed_weights(config.weight_decay, masked(decayed))
  clip = (
    optax.identity()
    if is_zero(config.clip)
    else optax.clip_by_global_norm(config.clip)
  )
  if config.name == 'adamw':
    rule = [optax.scale_by_adam(), decay]
  else:
    rule = [decay, optax.trace(decay=0.9)]
  chain = optax.chain(
    clip, *rule, _by_tree(masked(lrs)), optax.scale_by_learning_rate(rate)
  )
  return optax.partition(
    {TRAIN: chain, FREEZE: optax.set_to_zero(), **partitions}, labels
  )


def describe(config, params, extras: Iterable[str] = ()) -> list[str]:
  """Returns a line for each group: multipliers, effective lr, parameters."""
  lrs, decayed = grouped(config, params, extras)
  sizes = {}
  rows = zip(
    jax.tree.leaves(lrs), jax.tree.leaves(decayed), jax.tree.leaves(params),
    strict=True,
  )  # fmt: skip
  for lr, wd, leaf in rows:
    sizes[lr, wd] = sizes.get((lr, wd), 0) + leaf.size
  return [
    f'lr {config.lr * lr:.3g}, weight decay {config.weight_decay * wd:.3g}: '
    f'{size:,} parameters' + ('' if lr else ' (frozen)')
    for (lr, wd), size in sorted(sizes.items(), reverse=True)
  ]
