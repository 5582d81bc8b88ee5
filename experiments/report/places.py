"""The tables of results that stand in README.md and docs/evidence.md."""

import pathlib

from experiments import marks, results
from experiments.report import text
from experiments.report.collect import tables

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = results.RESULTS / 'baselines.jsonl'
NAME = 'results'  # Of the marks.


def generated() -> dict[pathlib.Path, str]:
  """Returns what belongs between the marks of each file."""
  made = tables(results.read(RESULTS))
  return {
    ROOT / 'README.md': text.summary(made),
    ROOT / 'docs' / 'evidence.md': text.overview(made),
  }


def write() -> None:
  """Writes each file's table between its marks.

  Raises:
    UserError: if a file is absent or has no marks.
  """
  for path, table in generated().items():
    marks.fill(path, NAME, table)
