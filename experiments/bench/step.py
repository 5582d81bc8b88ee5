r"""The compiled train step, timed: one JSON line.

  python -m experiments.bench.step --backbone=vit_b16 --size=448 --batch=32 \
    --method=csdnet --dtype=bfloat16 --peer=torch
  python -m experiments.bench.step --backbone=psp_resnet18 --size=713 \
    --teacher=psp_resnet101 --batch=8 --method=apd --dtype=bfloat16 --peer=torch

A step is what training runs: two views drawn from uint8 canvases on the device,
both forwards, SSDP, DDL, SSDT, the gradient, AdamW with clipping, the queue. Of
APD it is a crop with its labels, the teacher's forward, the student's, all
losses, the gradient, SGD and the teacher projector's Adam.
Its state is donated; the batch lies on the device. Dropout and drop path are
off, here and in the peer, so that both do the same products. Contenders take
turns, PyTorch in a process of its own (`peer`), and a ratio is the median over
neighbouring turns.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags

from csdnet_jax import sharding
from csdnet_jax.config import default, validate
from csdnet_jax.configs import common
from csdnet_jax.runtime import commands
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training.build import build
from experiments.bench import flops, measure, peer

# SoyAgeing's, the setting of the paper.
CLASSES = 198
N_TRAIN = 990

SEGMENTATION = {
  'apd': {'method.name': 'apd', 'method.apd.arm': 'apd'},
  'apd_kd': {'method.name': 'apd', 'method.apd.arm': 'kd'},
  'apd_student': {'method.name': 'apd', 'method.apd.arm': 'student'},
}
METHODS = SEGMENTATION | {
  'csdnet': {'method.name': 'csdnet'},
  'supervised': {'method.name': 'supervised', 'method.supervised.views': 1},
  'supervised2': {'method.name': 'supervised', 'method.supervised.views': 2},
}


class Prepared(NamedTuple):
  """What a step runs on, nothing of it compiled.

  Attributes:
    config: of the run.
    train_step: `(state, batch, frozen) -> (state, metrics)`, the state donated.
    state: on the device.
    batch: on the device.
    frozen: the teacher's (params, model_state) on the device, or ().
  """

  config: Any
  train_step: Callable
  state: Any
  batch: Any
  frozen: Any


class Program(NamedTuple):
  """A compiled step with what it runs on.

  Attributes:
    config: of the run.
    compiled: `(state, batch, frozen) -> (state, metrics)`, the state donated.
    state, batch, frozen: of `Prepared`.
    flops: of one step; see `flops.count`.
    trace_s: seconds until the program was lowered.
    compile_s: seconds that XLA took after it.
  """

  config: Any
  compiled: Callable
  state: Any
  batch: Any
  frozen: Any
  flops: int
  trace_s: float
  compile_s: float


def make_config(
  *,
  backbone: str,
  size: int,
  batch: int,
  method: str,
  dtype: str = 'float32',
  accumulate: int = 1,
  queue: int = 1024,
  teacher: str = '',
  width: int = 0,
):
  """Returns the config of a run that is timed.

  Args:
    backbone: a key of `models.MODELS`.
    size: pixels a side.
    batch: images a step.
    method: 'csdnet', or 'supervised' or 'supervised2': cross-entropy on one
      view or two. Of segmentation 'apd', or of its arms 'apd_kd' or
      'apd_student'.
    dtype: of the matrix products and activations.
    accumulate: micro-batches a step.
    queue: K, CSDNet's.
    teacher: of APD, a key of `models.MODELS`.
    width: of APD's student's penultimate map and of the projectors; 0 for 512.

  Raises:
    UserError: a field is out of its range.
  """
  config = default()
  if method in SEGMENTATION:
    config = common.segmentation('apd')
    config.teacher.update(model=teacher, dtype=dtype)
    config.model.width, config.method.apd.hidden = width, width or 512
  config.batch_size, config.accumulate = batch, accumulate
  config.model.update(
    name=backbone, size=size, dtype=dtype, drop_rate=0.0, drop_path=0.0
  )
  # As the configs of the paper have it: canvases of 640 for views of 448.
  config.data.update(canvas=size * 10 // 7, test_resize=size)
  # The mask on the raw view itself, which is what the peer has; the second draw
  # of training costs one more sampling of the canvas.
  config.method.csdnet.update(queue=queue, redraw=False)
  config.update_from_flattened_dict(METHODS[method])
  validate(config)
  return config


def synthetic_batch(config, classes: int = CLASSES) -> dict[str, np.ndarray]:
  """Random canvases and labels: a step takes as long on them as on leaves."""
  rng = np.random.default_rng(0)
  rows, side = config.batch_size, config.data.canvas
  batch = {
    'image': rng.integers(0, 256, (rows, side, side, 3), np.uint8),
    'extent': np.full((rows, 2), side, np.int32),
    'id': np.arange(rows, dtype=np.int32),
  }
  if config.method.name != 'apd':
    labels = rng.integers(0, classes, rows).astype(np.int32)
    return batch | {'label': labels}
  return batch | {
    # Squares of a class each.
    'mask': rng.integers(0, classes, (rows, 8, 8), np.uint8)
    .repeat(-(-side // 8), 1)
    .repeat(-(-side // 8), 2)[:, :side, :side],
    'centre': np.full((rows, 2), side / 2, np.float32),
    'scale': np.ones(rows, np.float32),
    'weight': np.ones(rows, np.float32),
  }


def prepare(fields: dict) -> Prepared:
  """Makes what is timed, for the first device.

  Args:
    fields: of `make_config`, and `classes` where they are not CLASSES.
  """
  fields = dict(fields)
  classes = fields.pop('classes', CLASSES)
  return prepare_config(make_config(**fields), classes)


def prepare_config(config, classes: int = CLASSES) -> Prepared:
  """Builds the step of a config, its first state and a batch."""
  n_train = max(N_TRAIN, config.batch_size, config.method.csdnet.queue)
  run = build(
    config, classes=classes, n_train=n_train, devices=jax.devices()[:1]
  )
  state = sharding.replicate(jax.jit(run.init)(), run.mesh)
  batch = sharding.shard_batch(synthetic_batch(config, classes), run.mesh)
  frozen = ()
  if run.method.teacher is not None:
    init = jax.jit(run.method.teacher.init, static_argnums=1)
    frozen = init(jax.random.key(1), config.model.size)
    frozen = sharding.replicate(frozen, run.mesh)
  return Prepared(config, run.train_step, state, batch, frozen)


def compile_program(prepared: Prepared) -> Program:
  """Compiles the step."""
  config, train_step, *arguments = prepared
  start = time.perf_counter()
  traced = train_step.trace(*arguments)
  lowered = traced.lower()
  middle = time.perf_counter()
  compiled = lowered.compile()
  end = time.perf_counter()
  return Program(
    config, compiled, *arguments, flops.count(traced.jaxpr),
    round(middle - start, 2), round(end - middle, 2),
  )  # fmt: skip


def runner(program: Program) -> Callable[[int], None]:
  """Returns `run(n)`, n steps from where the last call stopped, then a wait."""
  state = program.state

  def run(steps):
    nonlocal state
    for _ in range(steps):
      state, _ = program.compiled(state, program.batch, program.frozen)
    jax.block_until_ready(state)

  return run


def _compile_again(arguments: list[str]) -> float:
  """Seconds that XLA takes for the same step in a fresh process."""
  command = [sys.executable, '-m', 'experiments.bench.step', '--compile_only']
  environment = os.environ | {
    'JAX_COMPILATION_CACHE_DIR': jax.config.jax_compilation_cache_dir
  }
  done = subprocess.run(
    [*command, *arguments], env=environment, stdout=subprocess.PIPE,
    text=True, check=True,
  )  # fmt: skip
  return json.loads(done.stdout.splitlines()[-1])['compile_s']


def _run_benchmark(
  fields: dict, pairs: int, steps: int, peer_seconds: float, against, results
) -> dict:
  """Times the step; the peer, if it is ready after so many seconds, beside it.

  PyTorch compiles for a GPU while XLA does; on a CPU both would take each
  other's cores.
  """
  device = 'cuda' if jax.default_backend() == 'gpu' else 'cpu'
  theirs, about = None, {}
  if peer_seconds and device == 'cuda':
    theirs = peer.start(fields, device)
  try:
    program = compile_program(prepare(fields))
    contenders = {'ours': runner(program)}
    contenders['ours'](2)
    memory = measure.peak_memory(program.compiled)
    if against:
      other = compile_program(prepare(fields | {'method': against}))
      contenders['against'] = runner(other)
    if peer_seconds and not theirs:
      theirs = peer.start(fields, device)
    try:
      both = dict(contenders)
      if theirs:
        about = peer.answer(theirs, peer_seconds)
        both['peer'] = peer.runner(theirs)
      timed = measure.turns(both, pairs=pairs, steps=steps)
    except UserError as error:
      # What was compiled for minutes is timed all the same.
      print(f'error: {error}', file=sys.stderr)
      peer.end(theirs)
      timed = measure.turns(contenders, pairs=pairs, steps=steps)
  finally:
    if theirs:
      peer.end(theirs)
  speed = measure.speed(timed['ours'], program.config.batch_size)
  peak = measure.matmul_flops_per_s(fields['dtype'], results)
  reached = program.flops * 1e3 / speed['ms_per_step']
  result = fields | speed
  result |= {
    'pairs': pairs,
    'flops_per_step': program.flops,
    'xla_flops_per_step': (program.compiled.cost_analysis() or {}).get('flops'),
    'matmul_flops_per_s': peak,
    'mfu': round(reached / peak, 3),
    **memory,
    'trace_s': program.trace_s,
    'compile_s': program.compile_s,
  }
  if 'peer' in timed:
    result['peer'] = about | measure.speed(
      timed['peer'], program.config.batch_size
    )
    result['ratio'] = measure.ratio(timed['peer'], timed['ours'])
  if against:
    result['against'] = {'method': against} | measure.speed(
      timed['against'], program.config.batch_size
    )
    result['time_ratio'] = measure.ratio(timed['ours'], timed['against'])
  return result


FLAGS = flags.FLAGS
FIELDS = ('backbone', 'size', 'batch', 'method', 'dtype', 'accumulate')


def define_flags() -> None:
  """The flags of this command."""
  flags.DEFINE_string('backbone', 'vit_b16', 'The backbone.')
  flags.DEFINE_integer('size', 448, 'Pixels a side.')
  flags.DEFINE_integer('batch', 32, 'Images a step.')
  flags.DEFINE_enum('method', 'csdnet', list(METHODS), 'What is trained.')
  flags.DEFINE_enum(
    'dtype', 'float32', ['float32', 'bfloat16'], 'Of products and activations.'
  )
  flags.DEFINE_integer('accumulate', 1, 'Micro-batches a step.')
  flags.DEFINE_integer('queue', 1024, "K, CSDNet's.")
  flags.DEFINE_string('teacher', 'psp_resnet101', "APD's teacher.")
  flags.DEFINE_integer('classes', 19, 'Of segmentation.')
  flags.DEFINE_integer(
    'width', 0, "Of the student's head and the projectors of APD; 0 for 512."
  )
  flags.DEFINE_integer('pairs', 5, 'Turns of each contender.')
  flags.DEFINE_integer('steps', 0, 'Steps a turn; 0 for about two seconds.')
  flags.DEFINE_enum('peer', None, ['torch'], 'Adds the same in PyTorch.')
  flags.DEFINE_float(
    'peer_seconds', 900, 'How long it is waited for, once ours is compiled.'
  )
  flags.DEFINE_enum('against', None, list(METHODS), 'Adds another method.')
  flags.DEFINE_string(
    'results', str(measure.RESULTS), 'Where the JSON is kept; empty for none.'
  )
  flags.DEFINE_bool(
    'again', True, 'Compile in a fresh process from the cache of this one.'
  )
  flags.DEFINE_bool(
    'compile_only', False, 'Print the seconds of the compiler, and stop.'
  )


def main(argv) -> None:
  """Measures and prints."""
  del argv
  commands.quiet()
  # JAX would take most of a GPU's memory, which is for the peer as well, and
  # for the process that compiles again.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  own = ('queue',)
  if FLAGS.method in SEGMENTATION:
    own = ('teacher', 'width', 'classes')
  fields = {name: FLAGS[name].value for name in (*FIELDS, *own)}
  if FLAGS.compile_only:
    program = compile_program(prepare(fields))
    print(json.dumps({'compile_s': program.compile_s}))
    return
  names = [str(fields[name]) for name in ('backbone', 'size', 'batch')]
  names += [fields['method'], fields['dtype']]
  names += [f'{name} {fields[name]}' for name in own]
  names += [f'accumulate {fields["accumulate"]}'] * (fields['accumulate'] > 1)
  names += ['torch'] * bool(FLAGS.peer)
  names += [f'against {FLAGS.against}'] * bool(FLAGS.against)
  name = ' '.join(['step', *names])
  # An empty cache first: what it takes to fill it, and to read it, is measured.
  with tempfile.TemporaryDirectory() as cache:
    jax.config.update('jax_compilation_cache_dir', cache)
    try:
      result = _run_benchmark(
        fields, FLAGS.pairs, FLAGS.steps,
        FLAGS.peer_seconds if FLAGS.peer else 0.0, FLAGS.against, FLAGS.results,
      )  # fmt: skip
    except UserError as error:
      sys.exit(f'error: {error}')
    result = measure.record('step', result)
    # Kept before the last figure, for which the time may not be left.
    measure.keep(result, name, FLAGS.results)
    if FLAGS.again:
      result['compile_cached_s'] = _compile_again(sys.argv[1:])
  measure.publish(result, name, FLAGS.results)


if __name__ == '__main__':
  define_flags()
  app.run(main)
