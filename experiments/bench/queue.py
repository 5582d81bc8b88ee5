r"""The memory queue alone: what DDL costs with it, and copies of it.

  python -m experiments.bench.queue --rows=64 --width=1024

prints one JSON line: for K from 1,024 to 262,144 the milliseconds of DDL's
loss, its gradient and the push, in turns with the same without a queue, and
what the compiled program says of copies of the keys. Within a whole step:

  python -m experiments.bench.queue --step --queue=65536 --backbone=vit_s16 \
    --size=224 --batch=8
"""

import re

import jax
import jax.numpy as jnp
from absl import app, flags

from csdnet_jax import memory
from csdnet_jax.methods.csdnet import ddl
from csdnet_jax.methods.losses import normalise
from csdnet_jax.runtime import commands
from experiments.bench import measure, step

SIZES = (1024, 4096, 16384, 65536, 262144)


def contrast(z, labels, queue):
  """DDL's loss, its gradient and the queue after the push, as in a step.

  Args:
    z: [A, D] float32, embeddings of both views.
    labels: [A] int32.
    queue: a `memory.Memory`, or ().
  """
  ids = jnp.arange(len(labels))

  def loss(z):
    unit = normalise(z)
    total, _ = ddl.loss(unit, labels, ids, unit, labels, ids, queue)
    return total, unit

  (total, unit), gradient = jax.value_and_grad(loss, has_aux=True)(z)
  if queue:
    queue = memory.push(queue, unit, labels, ids)
  return total, gradient, queue


def compile_contrast(size: int, rows: int, width: int):
  """Compiles `contrast` with a full queue of `size` keys, 0 for none.

  Returns:
    The program, its queue donated, and its arguments.
  """
  key = jax.random.key(0)
  z = jax.random.normal(key, (rows, width))
  labels = jnp.arange(rows) // 2
  queue = ()
  if size:
    queue = memory.init(size, width)._replace(
      keys=jax.jit(lambda: normalise(jax.random.normal(key, (size, width))))(),
      labels=jnp.arange(size) % 99,
      count=jnp.array(size),
    )
  program = jax.jit(contrast, donate_argnums=2)
  return program.lower(z, labels, queue).compile(), (z, labels, queue)


def copies(compiled, size: int, width: int) -> dict:
  """What the compiled program says of copies of [size, width] float32 keys.

  Returns:
    `temporary`, the program's temporary memory as a share of the keys' bytes;
    `copies`, how many copies of the keys its text holds; `donated`, whether the
    keys are updated in place.
  """
  found = compiled.memory_analysis()
  shape = rf'f32\[{size},{width}\]'
  return {
    'temporary': round(found.temp_size_in_bytes / (4 * size * width), 3),
    'copies': len(re.findall(rf'= {shape}\S* copy\(', compiled.as_text())),
    'donated': found.alias_size_in_bytes >= 4 * size * width,
  }


def _runner(compiled, arguments):
  z, labels, queue = arguments

  def run(steps):
    nonlocal queue
    for _ in range(steps):
      total, _, queue = compiled(z, labels, queue)
    jax.block_until_ready((total, queue))

  return run


def alone(rows: int, width: int, pairs: int) -> list[dict]:
  """One row for each K: milliseconds, without a queue too, and copies."""
  none = _runner(*compile_contrast(0, rows, width))
  table = []
  for size in SIZES:
    compiled, arguments = compile_contrast(size, rows, width)
    contenders = {'queue': _runner(compiled, arguments), 'none': none}
    timed = measure.turns(contenders, pairs=pairs, steps=0)
    table.append(
      {
        'queue': size,
        'ms': measure.speed(timed['queue'], rows)['ms_per_step'],
        'ms_without': measure.speed(timed['none'], rows)['ms_per_step'],
      }
      | copies(compiled, size, width)
    )
  return table


def within_a_step(fields: dict, size: int, pairs: int, steps: int) -> dict:
  """The time of a step with a queue of `size` over that without, in turns."""
  programs = [
    step.compile_program(step.prepare(fields | {'queue': k}))
    for k in (size, 0)
  ]  # fmt: skip
  contenders = dict(
    zip(('queue', 'none'), map(step.runner, programs), strict=True)
  )
  timed = measure.turns(contenders, pairs=pairs, steps=steps)
  width = programs[0].state.memory.keys.shape[1]
  speeds = {
    name: measure.speed(seconds, fields['batch'])
    for name, seconds in timed.items()
  }
  return (
    fields
    | {'queue': size, 'width': width, 'pairs': pairs}
    | speeds['queue']
    | {'without': speeds['none']}
    | {'time_ratio': measure.ratio(timed['queue'], timed['none'])}
    | copies(programs[0].compiled, size, width)
  )


FLAGS = flags.FLAGS


def main(argv) -> None:
  """Measures and prints."""
  del argv
  commands.quiet()
  if FLAGS.step:
    names = ('backbone', 'size', 'batch', 'method', 'dtype')
    fields = {name: FLAGS[name].value for name in names}
    size = FLAGS.queue
    result = within_a_step(fields, size, FLAGS.pairs, FLAGS.steps)
    name = ' '.join(map(str, ('queue', size, *fields.values())))
    measure.publish(measure.record('queue_step', result), name, FLAGS.results)
    return
  rows, width = FLAGS.rows, FLAGS.width
  table = alone(rows, width, FLAGS.pairs)
  result = {'rows': rows, 'width': width, 'pairs': FLAGS.pairs, 'table': table}
  measure.publish(
    measure.record('queue', result), f'queue {rows} {width}', FLAGS.results
  )


if __name__ == '__main__':
  step.define_flags()
  flags.DEFINE_bool('step', False, 'Time the queue within a whole step.')
  flags.DEFINE_integer('rows', 64, 'Embeddings of a step: both views.')
  flags.DEFINE_integer('width', 1024, 'D, of the queue alone.')
  app.run(main)
