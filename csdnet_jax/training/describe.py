"""What is about to be trained, in effective figures."""

import jax

from csdnet_jax import optim
from csdnet_jax.runtime.terminal import say
from csdnet_jax.state import network
from csdnet_jax.training.build import Program


def describe(config, run: Program, params, n_train: int) -> None:
  """Says what is about to be trained, in effective figures."""
  extras = run.method.extras
  apart = [name for name, extra in extras.items() if extra.tx]
  total = _count(network(params, extras))
  say(
    f'{config.method.name} with {config.model.name} at {config.model.size} px, '
    f'{total:,} parameters, on {run.mesh.size} x '
    f'{run.mesh.devices.flat[0].device_kind}.'
  )
  micro = (
    f' in {config.accumulate} micro-batches' if config.accumulate > 1 else ''
  )
  say(
    f'Global batch {config.batch_size} images{micro}, {run.method.forwards} '
    f'views each; {n_train / config.batch_size:.1f} steps per epoch, '
    f'{run.steps} steps in {config.epochs:g} epochs, {config.optim.name}:'
  )
  for line in optim.describe(config.optim, network(params, apart)):
    say(f'  {line}')
  for name in apart:
    say(
      f'  {name}, an optimiser of its own: {_count(params[name]):,} parameters'
    )


def _count(params) -> int:
  return sum(x.size for x in jax.tree.leaves(params))
