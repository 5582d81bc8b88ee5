"""`csdnet predict`: names and probabilities of new images, as a table."""

import argparse
import csv
import io

import numpy as np

from csdnet_jax.data.images import inputs
from csdnet_jax.inference import command
from csdnet_jax.runtime import commands, writers
from csdnet_jax.runtime.terminal import progress_bar, say

_TOP = 5


def top(probabilities: np.ndarray, k: int) -> np.ndarray:
  """Returns the k likeliest classes [n, k], descending; ties to the lower.

  Args:
    probabilities: [n, classes].
    k: at most the number of classes.
  """
  return np.argsort(-probabilities, axis=-1, kind='stable')[:, :k]


def table(names, probabilities: np.ndarray, class_names) -> str:
  """Returns the CSV: path, class_1, probability_1, and so on to the fifth.

  Args:
    names: n paths.
    probabilities: [n, classes].
    class_names: of each class.
  """
  text = io.StringIO()
  rows = csv.writer(text, lineterminator='\n')
  k = min(_TOP, len(class_names))
  header = [(f'class_{i}', f'probability_{i}') for i in range(1, k + 1)]
  rows.writerow(['path', *sum(header, ())])
  for name, p, best in zip(
    names, probabilities, top(probabilities, k), strict=True
  ):
    pairs = [(class_names[c], f'{p[c]:.6f}') for c in best]
    rows.writerow([name, *sum(pairs, ())])
  return text.getvalue()


def main(args: argparse.Namespace) -> int:
  """Runs the command; returns its exit status."""
  out = commands.out_path('--out', args.out, '.csv')
  split, unused = inputs.find(args.images)
  run = command.open_run(args)
  say(run.calibration.how)
  names, probabilities, problems = [], [], []
  with progress_bar('images') as progress:
    for rows, outputs in run.outputs(split, problems, progress):
      names += [split.names[i] for i in rows]
      probabilities.append(run.probabilities(outputs['logits']))
  csv_text = table(names, np.concatenate(probabilities), run.class_names)
  writers.write_text(out, csv_text)
  say(f'{len(names)} images: {out}')
  return command.report(problems, unused)
