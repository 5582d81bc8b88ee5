"""Optimisers: Optax, with one table of multipliers by parameter name."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import optax

from csdnet_jax.runtime.fields import is_zero


def names(params) -> dict[str, jax.Array]:
  """Returns {'blocks_0/conv/kernel': leaf} in tree order."""
  leaves = jax.tree.leaves_with_path(params)
  return {
    '/'.join(str(getattr(k, 'key', k)) for k in path): leaf
    for path, leaf in leaves
  }


def grouped(params, groups) -> tuple:
  """Returns two trees like params: lr multipliers, and what is decayed.

  Args:
    params: the parameters.
    groups: rows (regex, lr multiplier, whether weight decay applies). Every row
      whose regex is found in a parameter's name multiplies, and one that says
      no decay is enough for none.
  """
  table = []
  for name in names(params):
    rows = [row[1:] for row in groups if re.search(row[0], name)]
    factors = [lr for lr, _ in rows]
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


def trained(config, params, partitions: Iterable[str] = ()) -> Any:
  """Returns for each parameter whether `make`'s one optimiser moves it.

  Args:
    config: `config.optim`; a multiplier of 0 for the rate freezes.
    params: the parameters or their shapes.
    partitions: the names of subtrees that have optimisers of their own.
  """
  lrs, _ = grouped(params, config.groups)
  return {
    name: jax.tree.map(
      lambda lr: not is_zero(lr) and name not in partitions,  # noqa: B023
      tree,
    )
    for name, tree in lrs.items()
  }


def make(
  config,
  params,
  *,
  steps: int,
  warmup_steps: int,
  partitions: Mapping[str, optax.GradientTransformation] | None = None,
):
  """Returns the Optax transformation for `config.optim`.

  AdamW (betas 0.9 and 0.999, decoupled decay) or SGD (momentum 0.9, L2 decay
  in the gradient, as PyTorch has it). Frozen parameters, those with an lr
  multiplier of 0, hold no state and no part of the clipping norm.

  Args:
    config: `config.optim`; JAX may trace numbers of it that are not zero.
    params: the parameters or their shapes.
    steps: of the whole run.
    warmup_steps: of them.
    partitions: optimisers of their own for subtrees of params, by their names.
      Nothing that is said above concerns these.
  """
  partitions = partitions or {}
  lrs, decayed = grouped(params, config.groups)
  rate = schedule(config, steps=steps, warmup_steps=warmup_steps)
  # The chain sees the trained leaves only.
  moved = trained(config, params, partitions)

  def masked(tree):
    return jax.tree.map(
      lambda on, x: x if on else optax.MaskedNode(), moved, tree
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
  labels = jax.tree.map(lambda on: 'train' if on else 'freeze', moved)
  for name in partitions:
    labels[name] = jax.tree.map(lambda _: name, labels[name])  # noqa: B023
  return optax.partition(
    {'train': chain, 'freeze': optax.set_to_zero(), **partitions}, labels
  )


def describe(config, params) -> list[str]:
  """Returns a line for each group: multipliers, effective lr, parameters."""
  lrs, decayed = grouped(params, config.groups)
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
