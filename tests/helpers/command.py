"""Runs the command line as a user would, in a process of its own."""

import os
import pathlib
import signal
import subprocess
import sys
import time

from csdnet_jax import __main__ as command_line
from csdnet_jax.runtime import terminal

ROOT = pathlib.Path(__file__).parents[2]

# The tiny run of runs.py, as flags over the quickstart's config.
TINY = {
  'init_from': '', 'batch_size': 4, 'epochs': 5.0, 'eval_every': 2.0,
  'save_every': 4, 'log_every': 1, 'data.leaves.cultivars': 4,
  'data.leaves.train_per_class': 3, 'data.leaves.test_per_class': 2,
  'data.leaves.size': 40, 'data.canvas': 36, 'data.test_resize': 36,
  'model.name': 'efficientnet_tiny', 'model.size': 32,
  'method.csdnet.queue': 24,
}  # fmt: skip


def flags(**fields) -> list[str]:
  """Returns the flags of the tiny run, with some fields changed."""
  return ['--config=configs/quickstart.py'] + [
    f'--config.{key}={value}' for key, value in (TINY | fields).items()
  ]


def start(
  *args, module='csdnet_jax.main', cwd=ROOT, env=None
) -> subprocess.Popen:
  """Starts `python -m csdnet_jax.main` with these arguments."""
  return _start([sys.executable, '-m', module, *args], cwd, env)


def _start(words, cwd, env) -> subprocess.Popen:
  plain = os.environ | {'JAX_NUM_CPU_DEVICES': '1', 'COLUMNS': '500'}
  return subprocess.Popen(
    [*map(str, words)],
    cwd=cwd,
    env=plain | (env or {}),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def run(*args, module='csdnet_jax.main', cwd=ROOT, env=None) -> tuple[int, str]:
  """Returns the exit status and the output."""
  process = start(*args, module=module, cwd=cwd, env=env)
  output, _ = process.communicate(timeout=600)
  return process.returncode, output


def program(*words, cwd=ROOT, env=None) -> tuple[int, str]:
  """The same of any program, by its path."""
  process = _start(words, cwd, env)
  output, _ = process.communicate(timeout=600)
  return process.returncode, output


def csdnet(*args, cwd=ROOT, env=None) -> tuple[int, str]:
  """The same of `python -m csdnet_jax`, with the subcommand."""
  return run(*args, module='csdnet_jax', cwd=cwd, env=env)


def here(main, *args) -> tuple[int, str]:
  """Runs a subcommand's `main` in this process: its status, what it said."""
  parsed = command_line.parse([str(a) for a in args])
  with terminal.console.capture() as captured:
    status = main(parsed)
  return status, captured.get()


def kill_when(process, path: pathlib.Path, text: str, number) -> None:
  """Sends the signal as soon as the file holds the text."""
  deadline = time.monotonic() + 300
  while not (path.exists() and text in path.read_text()):
    if process.poll() is not None or time.monotonic() > deadline:
      raise AssertionError(f'{text} never came: {process.stdout.read()}')
    time.sleep(0.005)
  process.send_signal(number)


kill = signal.SIGKILL
terminate = signal.SIGTERM
