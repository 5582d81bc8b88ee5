"""Tables of finished grids as text: Markdown, CSV, and those of documents."""

import csv
import itertools
import pathlib
import statistics

from experiments import results
from experiments.report import collect

METHOD = (
  'The difference is from the baseline (in plots the open circle), in '
  'percentage points, under the same seeds on the same splits. Intervals are '
  'of 95 %, and one seed has none. Where each seed has a split of its own they '
  'are t intervals over seeds, of the mean over re-splits of these images. '
  'Where all seeds share one split they are percentile intervals of a paired '
  'bootstrap over seeds and images of that split, 2,000 resamples, the '
  'deviations of n seeds widened by sqrt(n / (n - 1)), and say nothing of '
  'another split. A difference is visible from half the width of its interval '
  'on: a smaller one could not have been told from zero.'
)
COLUMNS = (
  'arm', 'n', 'splits', 'mean', 'sd', 'diff', 'low', 'high', 'visible'
)  # fmt: skip


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
  return (
    'arm', 'seeds', 'splits', table.figure, '95 % of it', 'difference',
    '95 % of it', 'visible from',
  )  # fmt: skip


def cells(table, arm) -> tuple[str, ...]:
  """An arm's row."""
  return (
    arm.name + ' (baseline)' * (arm.name == table.baseline),
    str(len(arm.seeds)), str(arm.splits), spread(arm.mean, arm.sd),
    between(arm.spread), number(arm.diff, '+'), between(arm.ends, '+'),
    number(arm.visible),
  )  # fmt: skip


def document(tables, answers) -> str:
  """Returns all tables, those of a grid under its question and answer.

  Args:
    tables: of `collect.tables`.
    answers: of `answers.read`; {} for tables alone.
  """
  parts = []
  for grid, own in itertools.groupby(tables, lambda table: table.grid):
    if grid in answers:
      parts.append(f'## {answers[grid].question}\n\n{answers[grid].answer}\n')
    parts += map(markdown, own)
  return '\n'.join(parts)


def markdown(table) -> str:
  """Returns a heading and the table of a set."""
  rows = [heads(table), *(cells(table, arm) for arm in table.arms)]
  lines = [f'| {" | ".join(row)} |' for row in rows]
  lines.insert(1, '|---' + '|---:' * (len(rows[0]) - 1) + '|')
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
  images = collect.span(*table.images)
  text = f'{figure} in percent on {images} {part} images, last epoch'
  if table.classes:
    text += (
      f', of the {table.classes} classes without a group (config.data.group) '
      f'both in train and in {part}'
    )
  if table.stages > 1:
    text += f', the mean of {table.stages} sets'
  text += f'; mean ± standard deviation over seeds. {_claim(table)}'
  fewer = [a.name for a in table.arms if a.diff is not None
           and a.shared < len(a.seeds)]  # fmt: skip
  if fewer:
    text += (
      ' Differences are over the seeds that the baseline has too, fewer for '
      f'{"; ".join(fewer)}.'
    )
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
  return text + _made_by([table])


def _claim(table) -> str:
  """What the intervals of a table are over."""
  if any(arm.splits > 1 for arm in table.arms):
    return (
      'Each seed has a split of its own: intervals are over re-splits of these '
      'images.'
    )
  if any(len(arm.seeds) > 1 for arm in table.arms):
    return 'One split: intervals are over seeds and images of this split.'
  return 'One seed, no interval.'


def _made_by(tables) -> str:
  """Says what a reader must know of the code, '' if it is as a commit has it.

  Rows of one table are by one code, see `collect.check`.
  """
  rows = [row for table in tables for arm in table.arms for row in arm.rows]
  made = dict.fromkeys(results.made_by(row['code']) for row in rows)
  words = ', '.join(filter(None, made))
  return f' Made by {words}.' if words else ''


def write_csv(path: pathlib.Path, table) -> None:
  """Writes the arms; an absent figure is an empty field."""
  with open(path, 'w', newline='', encoding='utf-8') as file:
    lines = csv.writer(file)
    lines.writerow(COLUMNS)
    for arm in table.arms:
      figures = (
        arm.mean, arm.sd, arm.diff, arm.low, arm.high, arm.visible
      )  # fmt: skip
      exact = ['' if x is None else f'{x:.4f}' for x in figures]
      lines.writerow([arm.name, len(arm.seeds), arm.splits, *exact])


_FROZEN = {
  'linear_probe': 'linear probe', 'prototypes': 'prototypes', 'knn': 'kNN'
}  # fmt: skip


def _frozen(table) -> dict[str, str]:
  """What the features are worth before training, in the mean over seeds.

  {} where an arm differs from the baseline in it under one seed.
  """
  if table.part != 'test' or table.stages > 1 or table.classes:
    return {}  # A run measures them on its own test part, all of it.
  base = next(arm for arm in table.arms if arm.name == table.baseline)
  starts = {row['seed']: _start(row) for row in base.rows}
  for arm in table.arms:
    shared = [row for row in arm.rows if row['seed'] in starts]
    same = all(_said(_start(row)) == _said(starts[row['seed']])
               for row in shared)  # fmt: skip
    if not shared or not same:
      return {}
  keys = set.intersection(*map(set, starts.values()))
  return _said(
    {key: statistics.mean(x[key] for x in starts.values()) for key in keys}
  )


def _start(row) -> dict[str, float]:
  return row['summary'].get('start', {})


def _said(start) -> dict[str, str]:
  return {w: number(start[k]) for k, w in _FROZEN.items() if k in start}


def overview(tables) -> str:
  """Returns a row for each arm and baseline, and a column for each set."""
  return _beside(tables, _arms(tables), list(_FROZEN.values()))


def summary(tables) -> str:
  """Returns the rows of `overview` that a reader asks for first.

  The baseline, of the arms of cross-entropy the strongest, that is the one
  whose difference from the baseline is highest in the mean over its sets, and
  the linear probe on the features before training.
  """
  arms = _arms(tables)
  first = [name for name in arms if name == tables[0].baseline]
  rivals = [name for name in arms if name.startswith('cross-entropy')]
  if rivals:
    first.append(max(rivals, key=lambda name: _mean_difference(tables, name)))
  return _beside(tables, first, [_FROZEN['linear_probe']])


def _arms(tables) -> list[str]:
  return list(dict.fromkeys(a.name for table in tables for a in table.arms))


def _mean_difference(tables, name) -> float:
  arms = [arm for table in tables for arm in table.arms if arm.name == name]
  found = [arm.diff for arm in arms if arm.diff is not None]
  return statistics.mean(found) if found else -float('inf')


def _beside(tables, names, frozen) -> str:
  """The named arms and figures of frozen features, and who made them."""
  arms = [{arm.name: arm for arm in table.arms} for table in tables]
  rows = [
    ('arm', *(table.set for table in tables)),
    ('---',) * (len(tables) + 1),
  ]
  rows += [
    (name, *(_cell(own[name]) if name in own else '' for own in arms))
    for name in names
  ]
  before = [_frozen(table) for table in tables]
  rows += [
    (f'frozen features, {words}', *(own.get(words, '') for own in before))
    for words in frozen
  ]
  made_by = _made_by(tables).strip()
  text = ''.join(f'| {" | ".join(row)} |\n' for row in rows)
  return text + (f'\n{made_by}\n' if made_by else '')


def _cell(arm) -> str:
  """An arm's mean, its seeds, and the difference with its interval."""
  text = f'{spread(arm.mean, arm.sd)} ({len(arm.seeds)})'
  if arm.diff is not None:
    text += f'<br>{number(arm.diff, "+")}'
  if arm.ends:
    text += f' ({between(arm.ends, "+")})'
  return text
