"""What the commands share that use a finished run."""

import argparse
from collections.abc import Iterable

from csdnet_jax import methods
from csdnet_jax.data import folders
from csdnet_jax.data.cache import cache_dir
from csdnet_jax.inference.trained import TrainedRun, load_run
from csdnet_jax.runtime import commands, environment
from csdnet_jax.runtime.errors import UserError, counted, preview
from csdnet_jax.runtime.terminal import say


def open_run(args: argparse.Namespace, *, segments: bool = False) -> TrainedRun:
  """Loads the run of a command and says what it is.

  Args:
    args: its --run, the workdir, its --checkpoint and --data_root.
    segments: whether the command can use a run of segmentation.

  Raises:
    UserError: if it cannot, and as `load_run`.
  """
  if idle := environment.idle_accelerator():
    say(idle, style='bold yellow')
  run = load_run(args.run, args.checkpoint, data_root=args.data_root)
  if methods.task(run.config) == 'segmentation' and not segments:
    raise UserError(
      f'{args.run} is a run of segmentation, which this command cannot use: it '
      'names one class for a whole image. Export the network (csdnet export), '
      'or evaluate it (csdnet evaluate).'
    )
  commands.keep_compiled(cache_dir(run.config.data.cache) / 'xla')
  say(
    f'{args.run}: {run.config.method.name} with {run.config.model.name} at '
    f'{run.config.model.size} px, {len(run.class_names)} classes, step '
    f'{run.step}.'
  )
  return run


def report(problems: list[str], unused: Iterable[folders.Unused] = ()) -> int:
  """Lists the pictures that a command has left out; returns its exit status.

  Args:
    problems: a sentence for each that cannot be read.
    unused: what lies where it was told to look and is not read.
  """
  groups = folders.by_reason(unused)
  if groups:
    n = sum(map(len, groups.values()))
    say(f'Not used, {n} in all{folders.remedies(groups)}:', style='red')
  for reason, names in groups.items():
    say(
      f'  {folders.numbered(reason, len(names))}: {preview(names)}',
      style='red',
    )
  if problems:
    left = counted(len(problems), 'images that cannot be read')
    say(f'Left out, {left}:', style='red')
  for problem in problems:
    say(f'  {problem}', style='red')
  return 1 if groups or problems else 0
