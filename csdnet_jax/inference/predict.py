"""`csdnet predict`: names and probabilities of new images, as a table."""

import argparse

from csdnet_jax.data.images import inputs
from csdnet_jax.evaluation import predictions
from csdnet_jax.inference import command
from csdnet_jax.runtime import commands, writers
from csdnet_jax.runtime.errors import counted
from csdnet_jax.runtime.terminal import progress_bar, say


def main(args: argparse.Namespace) -> int:
  """Runs the command; returns its exit status."""
  out = commands.out_path('--out', args.out, '.csv')
  split, unused = inputs.find(args.images)
  run = command.open_run(args)
  say(f'{run.calibration.how} {run.unknown.how}')
  leaves = run.leaves
  table, problems = [], []
  with progress_bar('images') as progress:
    for rows, outputs in run.outputs(split, problems, progress):
      table += predictions.rows(
        [split.names[i] for i in rows], split.labels[rows], outputs,
        run.class_names, temperature=run.calibration.temperature,
        leaves=leaves, refused=run.none_of_these(outputs),
      )  # fmt: skip
  writers.write_text(out, predictions.table(table, run.class_names))
  say(f'{counted(len(table), "images")}: {out}')
  return command.report(problems, unused)
