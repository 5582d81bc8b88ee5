"""Class names and probabilities of new images, as a table.

  python -m csdnet_jax.inference.predict --run=DIR --out=pred.csv IMAGES...

IMAGES are files, folders (every picture in them, at any depth) or quoted globs.
The table has a row for each image: its path, then the names and probabilities
of the five likeliest classes. Images that cannot be read are listed at the end;
the others are done and written, and the exit status is 1.
"""

import csv
import io

import numpy as np

from csdnet_jax.data.images import inputs
from csdnet_jax.inference import command
from csdnet_jax.runtime import writers
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


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit status."""
  parser = command.parser('predict', __doc__)
  parser.add_argument('--out', required=True, metavar='FILE.csv')
  parser.add_argument('images', nargs='+', metavar='IMAGES')
  args = parser.parse_args(argv)
  out = command.out_path('--out', args.out, '.csv')
  split = inputs.find(args.images)
  run = command.open_run(args.run)
  say(run.calibration.how)
  names, probabilities, problems = [], [], []
  with progress_bar('images') as progress:
    for rows, outputs in run.outputs(split, problems, progress):
      names += [split.names[i] for i in rows]
      probabilities.append(run.probabilities(outputs['logits']))
  csv_text = table(names, np.concatenate(probabilities), run.class_names)
  writers.write_text(out, csv_text)
  say(f'{len(names)} images: {out}')
  return command.report(problems)


if __name__ == '__main__':
  command.start(main)
