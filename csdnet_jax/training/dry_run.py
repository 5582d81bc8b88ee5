"""What a run would do, without doing it."""

import jax

from csdnet_jax import optim, sharding, tasks
from csdnet_jax.config import to_json, validate
from csdnet_jax.runtime.terminal import say
from csdnet_jax.training import teacher
from csdnet_jax.training.build import build
from csdnet_jax.training.describe import describe
from csdnet_jax.training.fit import fit


def dry_run(config, *, devices=None) -> None:
  """Prints the config, the data, the model and one batch, then returns."""
  validate(config)
  task = tasks.of(config)
  dataset = task.load(config)
  for note in fit(config, len(dataset.train.names)):
    say(note)
  say(to_json(config))
  data, _ = task.prepare(config, dataset)
  n_train = len(dataset.train.names)
  run = build(
    config, classes=len(dataset.class_names), n_train=n_train, devices=devices
  )
  state = sharding.abstract(jax.eval_shape(run.init), run.mesh)
  for name, leaf in optim.names(state.params).items():
    say(f'{name:60} {leaf.shape!s:22} {leaf.size:>12,}')
  describe(config, run, state.params, n_train)
  frozen = teacher.describe(config, run, dataset.class_names)
  batch = next(task.train_batches(config, run.mesh, data, 0, 1))
  for name, value in batch.items():
    say(f'batch {name}: {value.dtype} {value.shape}')
  memory = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.memory))
  if memory:
    say(f'Memory queue: {memory / 2**20:.2f} MiB on each device.')
  say('Compiling the step to estimate its memory ...')
  whole = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      (jax.process_count() * x.shape[0], *x.shape[1:]), x.dtype
    ),
    batch,
  )
  shapes = sharding.abstract_rows(whole, run.mesh)
  compiled = run.train_step.lower(state, shapes, frozen).compile()
  used = compiled.memory_analysis()
  total = used.argument_size_in_bytes + used.temp_size_in_bytes
  say(
    f'One step needs about {total / 2**30:.2f} GiB on each device: '
    f'{used.argument_size_in_bytes / 2**30:.2f} for the state and the batch, '
    f'{used.temp_size_in_bytes / 2**30:.2f} for activations.'
  )
