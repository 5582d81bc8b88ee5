"""What a run would do, without doing it."""

import contextlib
import statistics
import time

import jax
import ml_collections

from csdnet_jax import optim, sharding, tasks
from csdnet_jax.checkpoint import Checkpoints
from csdnet_jax.config import to_json, validate
from csdnet_jax.runtime import paths, processes
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import duration, say
from csdnet_jax.training.describe import describe
from csdnet_jax.training.initial import initial_weights
from csdnet_jax.training.prepare import prepare
from csdnet_jax.training.train import finished, split_of
from csdnet_jax.training.workdir import require_same

_TIMED = 2  # Steps.


def dry_run(
  config: ml_collections.ConfigDict,
  workdir: paths.Path | None = None,
  *,
  devices=None,
  verbose: bool = False,
) -> None:
  """Says what would be trained on what, how long it takes, and its memory.

  Makes the checks of the run, but for whether the workdir can be written, loads
  the weights and takes a few steps in memory; nothing is written but the cache
  of decoded images.

  Args:
    config: of the run.
    workdir: of the run, which may be there; None leaves it out.
    devices: to run on; all of them where None.
    verbose: whether to print the config and the table of parameters as well.

  Raises:
    UserError: as `train` does.
  """
  validate(config)
  task, split = tasks.of(config), None
  if workdir is not None and _continues(config, workdir):
    if finished(config, workdir):
      return
    split = split_of(workdir)
  with processes.collective():
    dataset = task.load(config, split)
  experiment, frozen, _, notes = prepare(
    config, dataset, workdir, devices=devices, writes=False
  )
  config, program, data = experiment
  if verbose:
    say(to_json(config))
  class_names, n_train = dataset.class_names, len(dataset.train.names)
  state = None if split is None else _saved(program, workdir)
  if state is None:
    params, model_state, _ = initial_weights(config, program.model, class_names)
    state = sharding.replicate(program.init(params, model_state), program.mesh)
  else:
    say(f'Would continue from step {int(state.step)}.')
  if verbose:
    for name, leaf in optim.names(state.params).items():
      say(f'{name:60} {leaf.shape!s:22} {leaf.size:>12,}')
  describe(config, program, state.params, n_train)
  for note in notes:
    say(note)
  if not program.steps:
    return
  memory = sum(x.nbytes for x in jax.tree.leaves(state.memory))
  if memory:
    say(f'Memory queue: {memory / 2**20:.2f} MiB on each device.')
  taken = int(state.step)
  if taken >= program.steps:
    say('All steps are taken; the last evaluation and the summary are left.')
    return
  say('Compiling and timing the step ...')
  batches = task.train_batches(
    config, program.mesh, data, taken, min(taken + 1 + _TIMED, program.steps)
  )
  _measure(program, state, batches, frozen)


def _saved(program, workdir: paths.Path):
  """The state that a run would continue from, or None."""
  abstract = sharding.abstract(jax.eval_shape(program.init), program.mesh)
  folder = workdir / 'checkpoints'
  with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
    return checkpoints.restore(abstract, warn=say)


def _continues(config, workdir: paths.Path) -> bool:
  """Whether the run would go on in the workdir; says why it could not begin."""
  try:
    return require_same(config, workdir)
  except UserError as error:
    say(f'WARNING: no training would begin: {error}', style='bold yellow')
    return False


def _measure(program, state, batches, frozen) -> None:
  """Says the memory of a step, and how long those take that are left."""
  left = program.steps - int(state.step)
  compiled, seconds = None, []
  for rows in batches:
    batch = sharding.shard_batch(rows, program.mesh)
    if compiled is None:
      begun = time.monotonic()
      compiled = program.train_step.lower(state, batch, frozen).compile()
      compiling = time.monotonic() - begun
    begun = time.monotonic()
    state, figures = compiled(state, batch, frozen)
    jax.block_until_ready(figures)
    seconds.append(time.monotonic() - begun)
  used = compiled.memory_analysis()
  total = used.argument_size_in_bytes + used.temp_size_in_bytes
  say(
    f'One step needs about {total / 2**30:.2f} GiB on each device: '
    f'{used.argument_size_in_bytes / 2**30:.2f} for the state and the batch, '
    f'{used.temp_size_in_bytes / 2**30:.2f} for activations.'
  )
  # The first also loads the program.
  step = statistics.median(seconds[1:] or seconds)
  say(
    f'One step takes about {step:.2g} s, {left} steps '
    f'{duration(step * left)}; compiling took {compiling:.0f} s. '
    'Evaluations come on top.'
  )
