r"""What a step sends between devices, read from the compiled program.

  python -m experiments.bench.collectives --config=configs/soy_ageing.py \
    --devices=256 --n_train=99000 --config.batch_size=512

needs no accelerator: the program is compiled ahead of time for that many fake
CPU devices. Prints one JSON line: for each kind of collective how many there
are and the bytes of its operands or results, whichever are more, on a device.
"""

import argparse
import collections
import json
import math
import re
import sys

import jax
import jax.numpy as jnp

from csdnet_jax import sharding
from csdnet_jax.config import validate
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training.build import build
from csdnet_jax.training.command_line import resolve
from csdnet_jax.training.fit import fit

KINDS = (
  'all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all',
  'collective-permute', 'collective-broadcast',
)  # fmt: skip
_OPERATION = re.compile(
  r'= (?P<result>\(?[a-z0-9]+\[.*?) '
  rf'(?P<kind>{"|".join(KINDS)})(?:-start)?\((?P<operands>[^)]*)\)'
)
_ARRAY = re.compile(r'\b(?P<dtype>[a-z]+)(?P<bits>\d+)?\[(?P<shape>[\d,]*)\]')


def _bytes(shapes: str) -> int:
  """The bytes of all arrays that an HLO text such as `f32[2,3]` names."""
  total = 0
  for array in _ARRAY.finditer(shapes):
    sizes = [int(n) for n in array['shape'].split(',') if n]
    total += math.prod(sizes) * max(int(array['bits'] or 8) // 8, 1)
  return total


def count(program: str) -> dict[str, dict[str, int]]:
  """Returns {kind: {'count', 'bytes'}} of a compiled program's text.

  Args:
    program: `compiled.as_text()`.
  """
  shapes = dict(re.findall(r'%([\w.-]+) = (\(.*?\)|\S+) ', program))
  found = collections.defaultdict(lambda: {'count': 0, 'bytes': 0})
  for line in program.splitlines():
    operation = _OPERATION.search(line)
    if not operation:
      continue
    operands = re.findall(r'%([\w.-]+)', operation['operands'])
    sent = sum(_bytes(shapes.get(name, '')) for name in operands)
    kind = found[operation['kind']]
    kind['count'] += 1
    kind['bytes'] += max(sent, _bytes(operation['result']))
  return dict(found)


def compile_step(config, *, classes: int, n_train: int, devices=None):
  """Compiles the train step of a config for devices; nothing is run.

  Args:
    config: of a run, as given; it is fitted to `n_train`.
    classes: of the data set.
    n_train: training images.
    devices: all of them where None.

  Returns:
    The compiled program and the abstract state.
  """
  config, _ = fit(config, n_train)
  run = build(config, classes=classes, n_train=n_train, devices=devices)
  state = sharding.abstract(jax.eval_shape(run.init), run.mesh)
  b, side = config.batch_size, config.data.canvas
  batch = {
    'image': jax.ShapeDtypeStruct((b, side, side, 3), jnp.uint8),
    'extent': jax.ShapeDtypeStruct((b, 2), jnp.int32),
    'label': jax.ShapeDtypeStruct((b,), jnp.int32),
    'id': jax.ShapeDtypeStruct((b,), jnp.int32),
  }
  batch = sharding.abstract_rows(batch, run.mesh)
  return run.train_step.lower(state, batch, ()).compile(), state


def main() -> None:
  """Compiles, counts and prints."""
  parser = argparse.ArgumentParser(
    description=__doc__, allow_abbrev=False,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )  # fmt: skip
  parser.add_argument('--devices', type=int, default=8, help='fake ones')
  parser.add_argument('--classes', type=int, default=198)
  parser.add_argument('--n_train', type=int, default=990, help='images')
  # What is left are the flags of `csdnet train`.
  args, rest = parser.parse_known_args()
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', args.devices)
  config = resolve(rest)
  validate(config)
  compiled, state = compile_step(
    config, classes=args.classes, n_train=args.n_train
  )
  parameters = sum(x.size for x in jax.tree.leaves(state.params))
  record = {
    'config': config.name,
    'model': config.model.name,
    'batch': config.batch_size,
    'devices': args.devices,
    'parameters': parameters,
    'collectives': count(compiled.as_text()),
  }
  print(json.dumps(record))


if __name__ == '__main__':
  try:
    main()
  except UserError as mistake:
    sys.exit(f'error: {mistake}')
