"""What the benchmarks share: fair turns, medians, the device, the results."""

import datetime
import json
import os
import pathlib
import platform
import re
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

RESULTS = pathlib.Path(__file__).parent / 'results'

_SECONDS = 2.0  # Of a chunk, where the number of steps is not given.


def turns(
  contenders: dict[str, Callable[[int], None]], *, pairs: int, steps: int
) -> dict[str, list[float]]:
  """Times contenders one after the other, again and again: A B A B ...

  A machine's clock and its other load drift: only neighbouring turns compare.

  Args:
    contenders: `run(n)` does n steps and returns when they are done. Each is
      called once before, so that all that is made on a first call is made.
    pairs: how often each has its turn.
    steps: of a turn; 0 for about two seconds' worth of the slowest.

  Returns:
    For each contender the seconds a step of its turns, [pairs].
  """
  warm = []
  for run in contenders.values():
    run(1)
    warm.append(_seconds(run, 1))
  steps = steps or max(1, round(_SECONDS / max(warm)))
  timed = {name: [] for name in contenders}
  for _ in range(pairs):
    for name, run in contenders.items():
      timed[name].append(_seconds(run, steps) / steps)
  return timed


def _seconds(run, steps):
  start = time.perf_counter()
  run(steps)
  return time.perf_counter() - start


def speed(seconds: list[float], images: int) -> dict[str, float]:
  """Returns `images_per_s`, `ms_per_step` and `spread` of timed turns.

  The median of the turns; the spread is their interquartile range as a share
  of it.
  """
  low, median, high = np.percentile(seconds, (25, 50, 75))
  return {
    'images_per_s': _round(images / median),
    'ms_per_step': _round(1e3 * median),
    'spread': _round((high - low) / median),
  }


def ratio(ours: list[float], theirs: list[float]) -> float:
  """The median over pairs of neighbouring turns of ours / theirs."""
  return _round(np.median(np.asarray(ours) / np.asarray(theirs)))


def _round(x) -> float:
  return float(f'{x:.4g}')


def matmul_flops_per_s(dtype: str, folder: str) -> float:
  """What a large square matrix product reaches on the first device.

  It is measured once a device and kept in `folder` beside what is told as a
  share of it; '' keeps none.
  """
  name = f'peak {dtype}'
  if folder and (path := _path(folder, name, device_name())).exists():
    return json.loads(path.read_text())['flops_per_s']
  found = {'dtype': dtype, 'flops_per_s': _matmul_flops_per_s(dtype)}
  keep(record('peak', found), name, folder)
  return found['flops_per_s']


def _matmul_flops_per_s(dtype):
  on_cpu = jax.default_backend() == 'cpu'
  side, repeats = (2048, 2) if on_cpu else (8192, 20)
  # Random numbers: equal ones draw less power, and a GPU's clock goes up.
  a, b = (
    jax.random.normal(jax.random.key(i), (side, side), dtype) for i in range(2)
  )
  product = jax.jit(jnp.matmul)

  def run(steps):
    for _ in range(steps):
      result = product(a, b)
    result.block_until_ready()

  seconds = turns({'product': run}, pairs=5, steps=repeats)['product']
  return _round(2 * side**3 / np.median(seconds))


def device_name() -> str:
  """The first device for people: its kind, for a CPU the cores and the model.

  >>> device_name().endswith(']')
  False
  """
  device = jax.devices()[0]
  if device.platform != 'cpu':
    return device.device_kind
  info = pathlib.Path('/proc/cpuinfo')
  text = info.read_text() if info.exists() else ''
  model = re.search(r'model name\s*: (.*)', text)
  model = model[1] if model else platform.machine()
  return f'{os.cpu_count()}-core CPU, {model}'


def peak_memory(compiled) -> dict:
  """Bytes on the device: `peak_memory`, and `peak_memory_from` that says how.

  The allocator's peak of the process so far where it tells one, what compiling
  tried out included, and beside it as `program_memory` the program's own
  arguments, outputs and temporaries, its donated arguments counted once; on a
  CPU the latter alone.
  """
  m = compiled.memory_analysis()
  program = (
    m.argument_size_in_bytes
    + m.output_size_in_bytes
    - m.alias_size_in_bytes
    + m.temp_size_in_bytes
  )
  stats = jax.devices()[0].memory_stats()
  if stats and 'peak_bytes_in_use' in stats:
    return {
      'peak_memory': stats['peak_bytes_in_use'],
      'peak_memory_from': 'memory_stats',
      'program_memory': program,
    }
  return {'peak_memory': program, 'peak_memory_from': 'memory_analysis'}


def record(bench: str, fields: dict) -> dict:
  """Returns `fields` with what every result tells: bench, device, versions."""
  today = datetime.datetime.now(datetime.UTC).date().isoformat()
  about = {'device': device_name(), 'jax': jax.__version__, 'date': today}
  return {'bench': bench} | fields | about


def publish(result: dict, name: str, folder: str) -> None:
  """Prints a result as one line of JSON, and keeps it in `folder`."""
  print(json.dumps(result))
  keep(result, name, folder)


def keep(result: dict, name: str, folder: str) -> None:
  """Keeps a result in a file of `folder`.

  Args:
    result: of `record`.
    name: of what was measured; with the device it names the file, so that a
      measurement made again replaces the one before.
    folder: where the file goes; '' keeps none.
  """
  if folder:
    path = _path(folder, name, result['device'])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + '\n')


def _path(folder, name, device):
  stem = re.sub(r'[^a-z0-9]+', '_', f'{name} {device}'.lower()).strip('_')
  return pathlib.Path(folder) / f'{stem}.json'
