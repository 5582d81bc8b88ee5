r"""Runs a minute: many in one program against one after the other.

  python -m experiments.bench.together --size=128 --runs=16

The ordinary step against the program of `training/together`, each run with its
own seed, split and learning rate, on drawn images; neither evaluates, and what
is compiled once is told beside. The runs of a grid also start a process each
(`experiments.run`), which is not counted here.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from csdnet_jax import models, sharding
from csdnet_jax.config import default
from csdnet_jax.data import batches
from csdnet_jax.data.images import pipeline
from csdnet_jax.runtime import commands
from csdnet_jax.training.build import build
from csdnet_jax.training.fit import fit, step_of
from csdnet_jax.training.together import pool, program
from csdnet_jax.training.together.grouping import differing
from experiments.bench import measure

FLAGS = flags.FLAGS
CLASSES = 58


def configs(runs: int, images: int, **fields):
  """Returns the configs of runs that differ in numbers."""
  made = []
  for i in range(runs):
    config = default()
    config.seed = i
    config.optim.lr *= 1 + i / runs
    config.update_from_flattened_dict(fields)
    made.append(fit(config, images)[0])
  return made


def drawn(config, images: int) -> pool.Images:
  """Returns images of noise, a train and a test part of them."""
  rng = np.random.default_rng(0)
  n, side = 2 * images, config.data.canvas

  def pixels(size):
    return jnp.asarray(rng.integers(0, 256, (n, size, size, 3), np.uint8))

  return pool.Images(
    pixels(side), jnp.full((n, 2), side, jnp.int32),
    pixels(config.model.size), jnp.arange(n, dtype=jnp.int32) % CLASSES,
  )  # fmt: skip


def _stepper(advance, state):
  """Keeps a state between turns; returns `run(n)` for `measure.turns`."""
  kept = [state, 0]

  def run(n):
    kept[0] = jax.block_until_ready(advance(kept[0], kept[1], n))
    kept[1] += n

  return run


def one_by_one(config, images: pool.Images, n: int):
  """Returns a `run(n)` of the ordinary step, and seconds of compiling it."""
  made = build(config, classes=CLASSES, n_train=n, devices=jax.devices()[:1])
  host = jax.device_get(images)
  prepared = pipeline.Prepared(
    host.canvases[:n], host.extents[:n], host.labels[:n], host.extents[:n]
  )
  read = iter(
    pipeline.train_batches(
      prepared, batch=config.batch_size, seed=config.seed, start=0, stop=2**30
    )
  )

  def take():
    return sharding.shard_batch(next(read), made.mesh)

  state = sharding.replicate(made.init(), made.mesh)
  clock = time.monotonic()
  step = made.train_step.lower(state, take(), ()).compile()
  seconds = time.monotonic() - clock

  def advance(state, first, count):
    for _ in range(count):
      state, _ = step(state, take(), ())
    return state

  return _stepper(advance, state), seconds


def together(runs, images: pool.Images, n: int):
  """Returns a `run(n)` of all runs in one program, and the compiled program."""
  config, rng = runs[0], np.random.default_rng(1)
  made = program.make(config, classes=CLASSES, n_train=n)
  arguments = program.Arguments(
    jnp.array([c.seed for c in runs], jnp.int32),
    jax.tree.map(jnp.asarray, differing(runs)),
    jnp.array([rng.permutation(2 * n)[:n] for _ in runs], jnp.int32),
  )
  steps = step_of(config, config.epochs, n)
  order = np.stack(
    [
      batches.order(n, batch=config.batch_size, seed=c.seed, steps=steps)
      for c in runs
    ],
    axis=1,
  )
  keys = jax.vmap(jax.random.key)(arguments.seed)
  weights = jax.jit(
    jax.vmap(lambda key: made.model.init(key, config.model.size))
  )(keys)
  states = jax.tree.map(jnp.array, made.init(arguments, *weights))
  args = arguments, images, jnp.asarray(order)
  clock = time.monotonic()
  compiled = made.advance.lower(states, *args, 0, 0).compile()
  seconds = time.monotonic() - clock

  def advance(states, first, count):
    # From the start again where the order ends.
    first %= max(1, steps - count)
    return compiled(states, *args, first, count)[0]

  return _stepper(advance, states), seconds, compiled


def define_flags() -> None:
  """The flags of this command."""
  flags.DEFINE_string('backbone', 'efficientnet_lite0', 'The network.')
  flags.DEFINE_integer('size', 128, 'Pixels a side.')
  flags.DEFINE_integer('batch', 8, 'Images a step of each run.')
  flags.DEFINE_integer('images', 129, 'Training images of each run.')
  flags.DEFINE_float('epochs', 30.0, 'Of a run.')
  flags.DEFINE_string('method', 'csdnet', 'csdnet, supervised or supcon.')
  flags.DEFINE_string('mode', 'none', 'Of CSDNet: none or spotlight.')
  flags.DEFINE_integer('runs', 16, 'Runs of the one program.')
  flags.DEFINE_integer('pairs', 5, 'Turns of each.')
  flags.DEFINE_integer('steps', 0, 'Of a turn; 0 for about two seconds.')
  flags.DEFINE_string(
    'results', str(measure.RESULTS), 'Where the JSON is kept; empty for none.'
  )


def main(argv) -> None:
  """Measures and prints."""
  del argv
  commands.quiet()
  fields = {
    'batch_size': FLAGS.batch, 'epochs': FLAGS.epochs,
    'model.name': FLAGS.backbone, 'model.size': FLAGS.size,
    'method.name': FLAGS.method, 'method.csdnet.mode': FLAGS.mode,
    'init_from': '',
  }  # fmt: skip
  models.find(FLAGS.backbone)
  runs = configs(FLAGS.runs, FLAGS.images, **fields)
  images = drawn(runs[0], FLAGS.images)
  alone, alone_s = one_by_one(runs[0], images, FLAGS.images)
  joined, joined_s, compiled = together(runs, images, FLAGS.images)
  timed = measure.turns(
    {'alone': alone, 'together': joined}, pairs=FLAGS.pairs, steps=FLAGS.steps
  )
  steps = step_of(runs[0], FLAGS.epochs, FLAGS.images)
  a_run = {
    'alone': np.array(timed['alone']) * steps,
    'together': np.array(timed['together']) * steps / FLAGS.runs,
  }
  per_minute = {k: float(60 / np.median(x)) for k, x in a_run.items()}
  found = {
    'runs_per_minute': round(per_minute['together'], 3),
    'alone.runs_per_minute': round(per_minute['alone'], 3),
    'speedup': measure.ratio(a_run['alone'], a_run['together']),
    'compile_s': round(joined_s, 1),
    'alone.compile_s': round(alone_s, 1),
    'steps': steps,
    **measure.peak_memory(compiled),
  }
  names = ('backbone', 'size', 'batch', 'images', 'method', 'runs')
  asked = {name: getattr(FLAGS, name) for name in (*names, 'mode')}
  name = ' '.join(['together', *(str(asked[key]) for key in names)])
  measure.publish(
    measure.record('together', asked | found), name, FLAGS.results
  )


if __name__ == '__main__':
  define_flags()
  app.run(main)
