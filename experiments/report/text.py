"""Tables of finished grids as text: Markdown, CSV, and the README's table."""

import csv
import pathlib

METHOD = (
  'Intervals are 95 % percentile intervals of a paired bootstrap over seeds '
  'and images, 2,000 resamples; with few seeds they are too narrow. The '
  'difference is from the baseline (in plots the open circle), in percentage '
  'points, under the same seeds on the same images.'
)
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


def heads(table) -> tuple[str, ...]:
  """The heads of the columns that `cells` fills."""
  return ('arm', 'n', table.figure, '95 % of it', 'difference', '95 % of it')


def cells(table, arm) -> tuple[str, ...]:
  """An arm's row."""
  return (
    arm.name + ' (baseline)' * (arm.name == table.baseline),
    str(len(arm.seeds)), spread(arm.mean, arm.sd), between(arm.spread),
    number(arm.diff, '+'), between(arm.ends, '+'),
  )  # fmt: skip


def markdown(table) -> str:
  """Returns a heading and the table of a set."""
  rows = [heads(table), *(cells(table, arm) for arm in table.arms)]
  lines = [f'| {" | ".join(row)} |' for row in rows]
  lines.insert(1, '|---|---:|---:|---:|---:|---:|')
  title = f'### {table.grid}: {table.set}'
  return '\n'.join([title, '', describe(table), '', *lines]) + '\n'


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
      f'{"; ".join(fewer)}.'
    )
  if any(a.spread and len(a.seeds) < 2 for a in table.arms):
    text += ' With one seed the interval is over the images alone.'
  others = {arm.name for arm in table.arms}
  for arm in table.arms:
    same = others & {row.get('same_as') for row in arm.rows} - {arm.name}
    if same:
      text += f' {arm.name}: the runs of {"; ".join(sorted(same))}.'
  frozen = ', '.join(f'{words} {x}' for words, x in _frozen(table).items())
  if frozen:
    text += f' The features before training: {frozen}.'
  if table.unfinished:
    text += f' Not finished: {"; ".join(table.unfinished)}.'
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


def _frozen(table) -> dict[str, str]:
  """What the features are worth before training, {} where arms differ in it."""
  if table.part != 'test' or table.stages > 1:
    return {}  # A run measures them on its own test part.
  found = []
  for row in (row for arm in table.arms for row in arm.rows):
    start = row['summary'].get('start', {})
    found.append({w: number(start.get(key)) for key, w in _FROZEN.items()})
  first = {w: x for w, x in found[0].items() if x}
  return first if all(one == found[0] for one in found) else {}


def readme_table(tables) -> str:
  """Returns the README's table: a row for each arm, a column for each set."""
  arms = [{arm.name: arm for arm in table.arms} for table in tables]
  rows = [
    ('arm', *(table.set for table in tables)),
    ('---',) * (len(tables) + 1),
  ]
  rows += [
    (name, *(_cell(own[name]) if name in own else '' for own in arms))
    for name in dict.fromkeys(name for own in arms for name in own)
  ]
  frozen = [_frozen(table) for table in tables]
  rows += [
    (f'frozen features, {words}', *(own.get(words, '') for own in frozen))
    for words in _FROZEN.values()
  ]
  return ''.join(f'| {" | ".join(row)} |\n' for row in rows)


def _cell(arm) -> str:
  """An arm's mean, its seeds, and the difference with its interval."""
  text = f'{spread(arm.mean, arm.sd)} ({len(arm.seeds)})'
  if arm.diff is not None:
    text += f'<br>{number(arm.diff, "+")}'
  if arm.ends:
    text += f' ({between(arm.ends, "+")})'
  return text
