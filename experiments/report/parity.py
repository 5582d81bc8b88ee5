"""The parity table of docs/networks.md, out of what its tests measured.

python -m pytest -m slow tests/models/test_parity_*.py --junitxml=parity.xml
python -m experiments.report.parity parity.xml

keeps their figures in parity.csv, those of tests that were not run as they
were, and writes the table; without a file it writes the table alone.
"""

import csv
import pathlib
import sys
import xml.etree.ElementTree as ET
from typing import NamedTuple

from csdnet_jax.runtime.errors import UserError, first_line
from experiments import marks
from experiments.report.networks import PLACE

NAME = 'parity'  # Of the marks.
FIGURES = pathlib.Path(__file__).with_name('parity.csv')


class Difference(NamedTuple):
  """max |ours - the peer's| of a network on images of one size.

  Attributes:
    what: the network and the peer.
    px: pixels a side.
    features: of the feature map.
    logits: of the head.
    gradient: of the logits' weighted sum by the input, relative to its largest
      entry; of a ResNet as it is.
  """

  what: str
  px: int
  features: float
  logits: float
  gradient: float


def measured(path: pathlib.Path) -> list[Difference]:
  """Returns what the tests that pytest reports in a JUnit XML have recorded.

  Args:
    path: of the file.

  Raises:
    UserError: it cannot be read, a test of it did not pass, or none recorded.
  """
  try:
    root = ET.parse(path).getroot()
  except (OSError, ET.ParseError) as error:
    raise UserError(
      f'{path} cannot be read ({first_line(error)}): name what pytest wrote '
      'for --junitxml.'
    ) from error
  found = []
  for case in root.iter('testcase'):
    for outcome in ('failure', 'error', 'skipped'):
      if case.find(outcome) is not None:
        raise UserError(
          f'{path} has a test that did not pass, {case.get("name")}: no table '
          'is made of such.'
        )
    properties = {x.get('name'): x.get('value') for x in case.iter('property')}
    if properties.keys() == set(Difference._fields):
      found.append(_difference(properties))
  if not found:
    raise UserError(
      f'{path} has no differences: run tests/models/test_parity_*.py with '
      '-m slow.'
    )
  return found


def kept() -> list[Difference]:
  """Returns the figures of parity.csv."""
  with FIGURES.open(encoding='utf-8', newline='') as file:
    return [_difference(row) for row in csv.DictReader(file)]


def table(rows: list[Difference]) -> str:
  """Returns the table: of each network the largest difference of all sizes."""
  sizes, largest = {}, {}
  for what, px, *found in rows:
    sizes.setdefault(what, set()).add(px)
    largest[what] = [*map(max, largest.get(what, found), found)]
  lines = [
    '| network | px | features | logits | gradient |', '|---|---|---|---|---|'
  ]  # fmt: skip
  for what, found in largest.items():
    cells = ' | '.join(f'{x:.1e}' for x in found)
    px = ', '.join(map(str, sorted(sizes[what])))
    lines.append(f'| {what} | {px} | {cells} |')
  return '\n'.join(lines) + '\n'


def main(argv: list[str]) -> None:
  """Keeps what a report of the tests measured, and writes the table.

  Raises:
    UserError: as `measured`, and if docs/networks.md has no marks.
  """
  if argv:
    rows = kept() if FIGURES.exists() else []
    rows += measured(pathlib.Path(argv[0]))
    last = {(row.what, row.px): row for row in rows}
    rows = [last[key] for key in sorted(last)]
    with FIGURES.open('w', encoding='utf-8', newline='') as file:
      writer = csv.writer(file, lineterminator='\n')
      writer.writerow(Difference._fields)
      for what, px, *found in rows:
        writer.writerow((what, px, *(f'{x:.2e}' for x in found)))
  marks.fill(PLACE, NAME, table(kept()))


def _difference(texts):
  what, px, *found = (texts[name] for name in Difference._fields)
  return Difference(what, int(px), *map(float, found))


if __name__ == '__main__':
  try:
    main(sys.argv[1:])
  except UserError as error:
    sys.exit(f'error: {error}')
