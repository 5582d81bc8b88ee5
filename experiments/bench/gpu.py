r"""What is to be seen on one NVIDIA GPU, part by part, each with a time limit.

  python -m experiments.bench.gpu check vit_b16 apd swin_b deterministic \
    quickstart --results=DIR

  check          cuDNN's attention beside XLA's; a ViT-Ti/16 trains in bfloat16
  vit_b16        rows of docs/speed.md beside PyTorch with torch.compile
  swin_b
  apd
  deterministic  two processes train under the flag of --deterministic
  quickstart     seconds to the first step, without a cache and with one

Each part is a process of its own, ended when its seconds are over; what it has
found by then is in DIR. The exit status tells whether all parts did well.
`--tiny` runs small stand-ins, on a CPU too.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from csdnet_jax.models import target, vit
from csdnet_jax.runtime import commands
from experiments.bench import measure, step

# How far cuDNN's attention may be from XLA's in bfloat16, as a share of the
# length: its rounding is 0.4 %, and sums are ordered otherwise.
_TOLERANCE = 0.02
_STEPS = 5
_BEGINNING = ('experiments.bench.step', '--peer=torch', '--peer_seconds=100')
_APD = ('--method=apd', '--backbone=psp_resnet18', '--teacher=psp_resnet101')
_HALF = '--dtype=bfloat16'
_VIEWS = '--against=supervised2'

# The module and its arguments; those of --tiny; seconds.
PARTS = {
  'check': (('experiments.bench.gpu', '--do=check'), (), 150),
  'vit_b16': (
    (*_BEGINNING, '--backbone=vit_b16', _HALF, _VIEWS),
    ('--backbone=vit_tiny', '--size=32'),
    330,
  ),
  'swin_b': (
    (*_BEGINNING, '--backbone=swin_b', _HALF, '--noagain'),
    ('--backbone=swin_micro', '--size=40'),
    360,
  ),
  'apd': (
    (*_BEGINNING, *_APD, '--size=713', '--batch=8', _HALF, '--noagain'),
    ('--backbone=psp_tiny', '--teacher=psp_tiny', '--size=33', '--width=16'),
    300,
  ),
  'deterministic': (('experiments.bench.gpu', '--do=deterministic'), (), 150),
  'quickstart': (('experiments.bench.gpu', '--do=quickstart'), (), 200),
}  # fmt: skip
_TINY_STEP = ('--batch=8', '--pairs=2', '--steps=1')


def run_part(name: str, results: pathlib.Path, tiny: bool) -> bool:
  """Runs a part and says how it went.

  Args:
    name: a key of PARTS.
    results: where its figures are kept.
    tiny: whether the stand-in runs.
  """
  (module, *arguments), small, seconds = PARTS[name]
  command = [sys.executable, '-m', module, *arguments]
  if module != __spec__.name and tiny:
    command += [*small, *_TINY_STEP]
  elif tiny:
    command.append('--tiny')
  command.append(f'--results={results}')
  print(f'=== {name}: at most {seconds} s: {" ".join(command)}', flush=True)
  start = time.monotonic()
  process = subprocess.Popen(command, start_new_session=True)
  try:
    status = process.wait(seconds)
  except subprocess.TimeoutExpired:
    status = 'out of time'
  finally:
    # Its own processes too, such as the peer and PyTorch's compilers.
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()
  took = time.monotonic() - start
  print(f'=== {name}: status {status}, {took:.0f} s', flush=True)
  return status == 0


def attention_errors(tokens: int) -> dict[str, float]:
  """How far cuDNN's attention is from XLA's, as shares of the length.

  Args:
    tokens: of each of 8 images; 12 heads of 64 in bfloat16.

  Returns:
    Of the output and of the gradients of query, key and value.
  """
  keys = jax.random.split(jax.random.key(0), 4)
  *parts, weights = (
    jax.random.normal(key, (8, tokens, 12, 64), jnp.bfloat16) for key in keys
  )

  def outcome(implementation):
    def loss(*parts):
      y = vit.attend(*parts, implementation)
      return (y * weights).astype(jnp.float32).sum(), y

    gradients, y = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(*parts)
    return [np.asarray(x, np.float64) for x in (y, *gradients)]

  kernel = 'cudnn' if target.platform() == 'cuda' else None
  return {
    name: float(f'{np.linalg.norm(a - b) / np.linalg.norm(b):.2g}')
    for name, a, b in zip(
      ('output', 'query', 'key', 'value'), outcome(kernel), outcome(None),
      strict=True,
    )
  }  # fmt: skip


def _train(backbone, dtype, size, batch):
  """The losses of the first steps, the last state, the compiled text."""
  program = step.compile_program(
    step.prepare(
      {
        'backbone': backbone, 'size': size, 'batch': batch, 'dtype': dtype,
        'method': 'csdnet',
      }
    )
  )  # fmt: skip
  state, losses = program.state, []
  for _ in range(_STEPS):
    state, figures = program.compiled(state, program.batch, program.frozen)
    losses.append(float(figures['loss']))
  return losses, jax.device_get(state), program


def check(tiny: bool, results: str) -> None:
  """Values and gradients of cuDNN's attention; a ViT trains in bfloat16."""
  found = {}
  # A ViT's at 224 px, with four registers, and an even number.
  for tokens in (17,) if tiny else (197, 201, 256):
    found[f'attention_{tokens}'] = attention_errors(tokens)
    print(tokens, found[f'attention_{tokens}'], flush=True)
  size, batch = (32, 4) if tiny else (224, 32)
  name = 'vit_tiny' if tiny else 'vit_ti16'
  losses, _, program = _train(name, 'bfloat16', size, batch)
  found |= {
    'backbone': name, 'size': size, 'batch': batch, 'losses': losses,
    'cudnn': program.compiled.as_text().count('__cudnn$fmha'),
    'flops_per_step': program.flops, 'compile_s': program.compile_s,
  }  # fmt: skip
  measure.publish(measure.record('gpu_check', found), 'gpu check', results)
  worst = max(max(x.values()) for x in found.values() if isinstance(x, dict))
  if not worst < _TOLERANCE:
    sys.exit(f"error: cuDNN's attention is {worst:.2g} off XLA's.")
  if not np.isfinite(losses).all():
    sys.exit(f'error: the losses are {losses}.')


def digests(tiny: bool) -> dict[str, dict]:
  """What a few steps leave, by digest, and operations that may not repeat."""
  jobs = {
    'vit_ti16': ('vit_ti16', 'bfloat16', 224, 32),
    'efficientnet_lite0': ('efficientnet_lite0', 'float32', 112, 8),
  }
  if tiny:
    jobs = {'vit_tiny': ('vit_tiny', 'float32', 32, 4)}
  found = {}
  for name, job in jobs.items():
    losses, state, program = _train(*job)
    text = program.compiled.as_text()
    found[name] = {
      'losses': losses,
      'scatters': text.count(' scatter('),
      'cudnn': text.count('__cudnn$'),
      'leaves': {
        jax.tree_util.keystr(path): hashlib.sha256(
          np.ascontiguousarray(leaf).tobytes()
        ).hexdigest()[:16]
        for path, leaf in jax.tree.leaves_with_path(state)
      },
    }
  return found


def deterministic(tiny: bool, results: str) -> None:
  """Compares the states of two processes bit by bit."""
  flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_gpu_deterministic_ops=true'
  command = [sys.executable, '-m', __spec__.name, '--do=digests']
  processes = [
    subprocess.Popen(
      command + ['--tiny'] * tiny, stdout=subprocess.PIPE, text=True,
      env=os.environ | {'XLA_FLAGS': flags},
    )
    for _ in range(2)
  ]  # fmt: skip
  said = [process.communicate()[0] for process in processes]
  if any(process.returncode for process in processes):
    sys.exit('error: a process has failed under the flag; it is above.')
  one, other = (json.loads(text.splitlines()[-1]) for text in said)
  found = {}
  for name in one:
    leaves = one[name].pop('leaves')
    theirs = other[name].pop('leaves')
    unequal = [path for path in leaves if leaves[path] != theirs[path]]
    found[name] = one[name] | {
      'other_losses': other[name]['losses'], 'leaves': len(leaves),
      'unequal': len(unequal), 'first_unequal': unequal[:8],
    }  # fmt: skip
  measure.publish(
    measure.record('deterministic', found), 'deterministic', results
  )
  if any(about['unequal'] for about in found.values()):
    sys.exit('error: the two processes differ.')


def _first_step(cache: str, tiny: bool) -> dict[str, float]:
  """Seconds of a quickstart in a process of its own."""
  with tempfile.TemporaryDirectory() as folder:
    workdir = pathlib.Path(folder) / 'run'
    command = [
      sys.executable, '-m', 'csdnet_jax', 'train', '--config=quickstart',
      f'--workdir={workdir}', '--config.log_every=1',
    ]  # fmt: skip
    if tiny:
      command += ['--config.epochs=1.0', '--config.eval_every=1.0']
    start, first = time.monotonic(), None
    process = subprocess.Popen(command, env=os.environ | {
      'XDG_CACHE_HOME': cache, 'JAX_COMPILATION_CACHE_DIR': ''
    })  # fmt: skip
    figures = workdir / 'metrics.jsonl'
    while process.poll() is None:
      if first is None and figures.exists() and '"loss"' in figures.read_text():
        first = time.monotonic() - start
        print(f'first step after {first:.1f} s', flush=True)
      time.sleep(0.05)
    if process.returncode:
      sys.exit(f'error: the quickstart ended with {process.returncode}.')
    whole = time.monotonic() - start
  return {'first_step_s': round(first, 1), 'whole_s': round(whole, 1)}


def quickstart(tiny: bool, results: str) -> None:
  """The first command, without any cache and again."""
  found = {}
  with tempfile.TemporaryDirectory() as cache:
    for name in ('cold', 'cached'):
      found[name] = _first_step(cache, tiny)
      measure.keep(measure.record('quickstart', found), 'quickstart', results)
  print(json.dumps(measure.record('quickstart', found)))


def main() -> None:
  """Runs the parts that are asked for, one after the other."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('parts', nargs='*', metavar='PART')
  parser.add_argument('--results', default=str(measure.RESULTS))
  parser.add_argument('--tiny', action='store_true')
  parser.add_argument('--do', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if unknown := set(args.parts) - PARTS.keys():
    known = ', '.join(PARTS)
    parser.error(f'there is no part {min(unknown)!r}; there are {known}')
  if not (args.parts or args.do):
    parser.print_help()
    return
  commands.quiet()
  # Several processes share the memory of the GPU.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  if args.do == 'digests':
    print(json.dumps(digests(args.tiny)))
  elif args.do:
    {
      'check': check,
      'deterministic': deterministic,
      'quickstart': quickstart,
    }[args.do](args.tiny, args.results)
  else:
    results = pathlib.Path(args.results)
    done = [run_part(part, results, args.tiny) for part in args.parts]
    sys.exit(0 if all(done) else 1)


if __name__ == '__main__':
  main()
