"""The words at the start of a run: its network, batch, steps and rates."""

import jax

from csdnet_jax import methods, optim
from csdnet_jax.runtime.terminal import say
from csdnet_jax.state import network
from csdnet_jax.tasks.base import Program


def describe(config, program: Program, params, n_train: int) -> None:
  """Says what is about to be trained, in effective figures.

  What each weight learns at is for those who ask for more.
  """
  extras = program.method.extras
  partitions = [name for name, extra in extras.items() if extra.tx]
  total = _count(network(params, extras))
  say(
    f'{config.method.name} with {config.model.name} at {config.model.size} px, '
    f'{total:,} parameters, on {program.mesh.size} x '
    f'{program.mesh.devices.flat[0].device_kind}.'
  )
  views = program.method.forwards
  micro = (
    f' in {config.accumulate} micro-batches' if config.accumulate > 1 else ''
  )
  if head := methods.fitted(config):
    say(
      f'No steps are taken: the head ({head}) is fitted to the embeddings of '
      f'the {n_train} training images, and nothing else changes; '
      'config.epochs, config.optim, config.views and config.ema are not read.'
    )
    return
  say(
    f'Global batch {config.batch_size} images{micro}, '
    f'{views} {"view" if views == 1 else "views"} each; '
    f'{n_train / config.batch_size:.1f} steps per epoch, '
    f'{program.steps} steps in {config.epochs:g} epochs, {config.optim.name}.'
  )
  moved = optim.partition(config.optim, params, partitions, extras)
  frozen = jax.tree.map(
    lambda label, x: x.size * (label == optim.FREEZE), moved, params
  )
  if still := sum(jax.tree.leaves(frozen)):
    say(
      f'{still:,} parameters are frozen (config.optim.tune='
      f'{config.optim.tune!r} and config.optim.groups): they have no gradients.'
    )
  for line in optim.describe(config.optim, network(params, partitions), extras):
    say(f'  {line}', verbose=True)
  for name in partitions:
    say(
      f'  {name}, an optimiser of its own: {_count(params[name]):,} parameters',
      verbose=True,
    )


def _count(params) -> int:
  return sum(x.size for x in jax.tree.leaves(params))
