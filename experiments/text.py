"""Tables of finished grids as text: Markdown, CSV, and the README's table."""

import csv
import pathlib

COLUMNS = ('arm', 'n', 'mean', 'sd', 'diff', 'low', 'high')


def number(value: float | None, sign: str = '') -> str:
  """Percent with one digit, '' for None.

  >>> number(61.84), number(2.5, '+'), number(None)
  ('61.8', '+2.5', '')
  """
  return '' if value is None else f'{value:{sign}.1f}'


def spread(mean: float, sd: float | None) -> str:
  """The mean with its standard deviation over seeds, where there is one."""
  return number(mean) + (f' ± {number(sd)}' if sd is not None else '')


def markdown(table) -> str:
  """Returns a heading and the table of a set."""
  lines = [
    f'### {table.grid}: {table.set}', '', describe(table), '',
    f'| arm | n | {table.figure} | 95 % of it | difference | 95 % of it |',
    '|---|---:|---:|---:|---:|---:|',
  ]  # fmt: skip
  for arm in table.arms:
    base = ' (baseline)' if arm.name == table.baseline else ''
    lines.append(
      f'| {arm.name}{base} | {len(arm.seeds)} | {spread(arm.mean, arm.sd)} | '
      f'{between(arm.spread)} | {number(arm.diff, "+")} | '
      f'{between(arm.low is not None and (arm.low, arm.high), "+")} |'
    )
  return '\n'.join(lines) + '\n'


def between(ends, sign: str = '') -> str:
  """An interval, '' where there is none."""
  if not ends:
    return ''
  return f'{number(ends[0], sign)} to {number(ends[1], sign)}'


def describe(table) -> str:
  """Returns what the figures of a table are, in sentences."""
  part = {'test': 'test', 'val': 'validation'}[table.part]
  figure = {'top-1': 'Top-1'}.get(table.figure, table.figure)
  text = f'{figure} in percent on {table.images} {part} images, last epoch'
  if table.stages > 1:
    text += f', the mean of {table.stages} sets'
  text += '; mean ± standard deviation over n seeds.'
  fewer = [a.name for a in table.arms if a.diff is not None
           and a.shared < len(a.seeds)]  # fmt: skip
  if fewer:
    text += (
      ' Differences are over the seeds that the baseline has too, fewer for '
      f'{", ".join(fewer)}.'
    )
  if any(a.spread and len(a.seeds) < 2 for a in table.arms):
    text += ' With one seed the interval is over the images alone.'
  for arm in table.arms:
    same = {row.get('same_as', arm.name) for row in arm.rows} - {arm.name}
    if same:
      text += f' {arm.name}: the runs of {", ".join(sorted(same))}.'
  start = table.arms[0].rows[0]['summary'].get('start')
  if start:
    frozen = (f'{words} {number(start[k])}' for k, words in _FROZEN.items())
    text += f' The features before training: {", ".join(frozen)}.'
  if table.unfinished:
    text += f' Not finished: {", ".join(table.unfinished)}.'
  return text


def write_csv(path: pathlib.Path, table) -> None:
  """Writes the arms; an absent figure is an empty field."""
  with open(path, 'w', newline='', encoding='utf-8') as file:
    lines = csv.writer(file)
    lines.writerow(COLUMNS)
    for arm in table.arms:
      figures = (arm.mean, arm.sd, arm.diff, arm.low, arm.high)
      exact = ['' if x is None else f'{x:.4f}' for x in figures]
      lines.writerow([arm.name, len(arm.seeds), *exact])


_FROZEN = {
  'linear_probe': 'linear probe', 'prototypes': 'prototypes', 'knn': 'kNN'
}  # fmt: skip


def readme_table(tables) -> str:
  """Returns the README's table: a row for each arm, a column for each set.

  What the features are worth before training is that of the first run.
  """
  names = dict.fromkeys(arm.name for table in tables for arm in table.arms)
  lines = [
    f'| arm | {" | ".join(table.set for table in tables)} |',
    f'|---|{"---|" * len(tables)}',
  ]
  for name in names:
    cells = [_cell(table, name) for table in tables]
    lines.append(f'| {name} | {" | ".join(cells)} |')
  starts = [table.arms[0].rows[0]['summary']['start'] for table in tables]
  for key, words in _FROZEN.items():
    cells = [number(start[key]) for start in starts]
    lines.append(f'| frozen features, {words} | {" | ".join(cells)} |')
  return '\n'.join(lines) + '\n'


def _cell(table, name: str) -> str:
  """An arm's mean, n, and the difference with its interval."""
  for arm in table.arms:
    if arm.name == name:
      mean = f'{spread(arm.mean, arm.sd)} ({len(arm.seeds)})'
      ends = between(arm.low is not None and (arm.low, arm.high), '+')
      difference = f', {number(arm.diff, "+")}' if arm.diff is not None else ''
      return mean + difference + (f' ({ends})' if ends else '')
  return ''
