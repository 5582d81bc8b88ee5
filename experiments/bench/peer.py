"""PyTorch's step in a process of its own, which takes its turns by a pipe.

JAX and PyTorch bring CUDA libraries of their own, and PyTorch's compiler may
work while XLA's does. In its process JAX has the CPU alone. It says a line of
JSON when it is ready and after each turn; what it is told is a number of steps.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import traceback
from collections.abc import Callable

from csdnet_jax.runtime.errors import UserError


def start(fields: dict, device: str) -> subprocess.Popen:
  """Starts the peer of a step.

  Args:
    fields: of `step.make_config`, and `classes`.
    device: 'cpu' or 'cuda'.
  """
  command = [sys.executable, '-m', 'experiments.bench.peer']
  return subprocess.Popen(
    [*command, device, json.dumps(fields)],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
  )  # fmt: skip


def answer(process: subprocess.Popen, seconds: float) -> dict:
  """Returns what the peer says next.

  Raises:
    UserError: it has ended, or says nothing for so long.
  """
  if not select.select([process.stdout], [], [], seconds)[0]:
    raise UserError(f'The peer has said nothing for {seconds:g} s.')
  line = process.stdout.readline()
  if not line:
    raise UserError(
      f'The peer has ended with status {process.wait()}; its error is above.'
    )
  return json.loads(line)


def runner(process: subprocess.Popen) -> Callable[[int], None]:
  """Returns `run(n)`, n steps of a peer that is ready."""

  def run(steps):
    with contextlib.suppress(BrokenPipeError):  # `answer` says what it is.
      process.stdin.write(f'{steps}\n')
      process.stdin.flush()
    answer(process, 600)

  return run


def end(process: subprocess.Popen) -> None:
  """Ends the peer and what it holds."""
  process.kill()
  with contextlib.suppress(BrokenPipeError, ValueError):  # Ended before.
    process.communicate()


def _contender(program, device):
  """The peer's `run(n)`, warm, and whether it is compiled."""
  from experiments.bench import step, torch_apd, torch_peer

  segments = program.config.method.name in step.SEGMENTATION
  make = (torch_apd if segments else torch_peer).contender
  if device == 'cuda':
    try:
      run = make(program, device, compiled=True)
      run(2)
      return run, True
    except Exception:  # Its compiler fails in its own many ways.
      traceback.print_exc()
  run = make(program, device, compiled=False)
  run(2)
  return run, False


def main(device: str, fields: dict) -> None:
  """Takes turns until the pipe ends."""
  # Libraries print; the pipe is for answers.
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)

  import torch

  from csdnet_jax.runtime import commands
  from experiments.bench import step, torch_peer

  commands.quiet()

  def say(**more):
    answers.write(json.dumps(torch_peer.describe(device) | more) + '\n')
    answers.flush()

  run, compiled = _contender(step.prepare(fields), device)
  if device == 'cuda':
    # What it took to try convolutions out is no part of a step.
    torch.cuda.reset_peak_memory_stats()
    run(1)
  say(compiled=compiled)
  for line in sys.stdin:
    run(int(line))
    say(compiled=compiled)


if __name__ == '__main__':
  main(sys.argv[1], json.loads(sys.argv[2]))
