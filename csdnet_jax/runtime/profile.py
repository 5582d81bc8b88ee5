"""A trace of a few steps, for TensorBoard or xprof."""

import contextlib
import os
from collections.abc import Callable, Iterator

import jax

from csdnet_jax.runtime.terminal import say

# The step compiles in the first and loads its buffers in the second.
SKIPPED, TRACED = 2, 3


@contextlib.contextmanager
def tracer(folder: os.PathLike | None, first: int) -> Iterator[Callable]:
  """Yields `(step, figures)`, to be called after each step.

  Traces the steps `first + SKIPPED + 1` to `first + SKIPPED + TRACED`, and
  waits for the device at both ends so that they hold whole steps.

  Args:
    folder: where the trace goes, or None for none.
    first: the step that the run starts or continues from.
  """
  running = False

  def after(step: int, figures) -> None:
    nonlocal running
    if folder is None:
      return
    if step == first + SKIPPED:
      jax.block_until_ready(figures)
      jax.profiler.start_trace(folder)
      running = True
    elif step == first + SKIPPED + TRACED:
      jax.block_until_ready(figures)
      jax.profiler.stop_trace()
      running = False
      say(
        f'A trace of steps {first + SKIPPED + 1} to {step} is in {folder}: '
        f'tensorboard --logdir={folder} (pip install tensorboard xprof).'
      )

  try:
    yield after
  finally:
    if running:
      jax.profiler.stop_trace()
