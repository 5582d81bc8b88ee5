"""The report of finished grids as one HTML page that loads nothing."""

import base64
import html
import io
import itertools
import json
import pathlib
import textwrap
from collections.abc import Mapping

import matplotlib
import matplotlib.figure
import matplotlib.ticker

from experiments.report.answers import Answer
from experiments.report.text import METHOD, cells, describe, heads

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 62rem; margin: 2.5rem auto; padding: 0 1rem; }
h1 { font-weight: 600; font-size: 1.6rem; margin-bottom: .2rem; }
h2 { font-weight: 600; font-size: 1.15rem; margin: 2.5rem 0 .2rem;
  border-top: 1px solid #ddd; padding-top: 1.2rem; }
h3 { font-weight: 600; font-size: 1rem; margin: 1.8rem 0 .2rem; }
p { color: #555; max-width: 46rem; }
p.note { color: #222; white-space: pre-line; }
figure { margin: 1.5rem 0; } figcaption { color: #555; font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0;
  font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 600; border-bottom: 2px solid #222; }
td { text-align: right; border-bottom: 1px solid #eee; }
th, td { padding: .3rem .7rem; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0;
  white-space: normal; overflow-wrap: anywhere; }
tr.baseline td { background: #f4f4f4; }
img { width: 100%; height: auto; margin: .5rem 0; }
code, pre { font-size: .85rem; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; }
details { margin: .6rem 0; } summary { cursor: pointer; color: #555; }
"""

# The pictures of a workdir in the order in which a run makes them.
_PICTURES = {
  'views': 'The augmented views of training images, as the network sees them.',
  'early_late': "SSDP's map and mask on test images, before and after "
  'training.',
  'curves': 'The terms of the loss and the accuracies over the steps.',
  'queue': "The memory queue's classes and the age of its keys.",
  'crops': 'Random crops of training images, with their labels.',
  'confusion': 'The confusion matrix of the test images.',
  'confused': 'The pairs of classes that are confused most, side by side.',
  'embedding': 'A t-SNE map of the test embeddings.',
}


def page(
  title: str,
  tables,
  *,
  answers: Mapping[str, Answer] | None = None,
  notes: str = '',
  run: pathlib.Path | None = None,
) -> str:
  """Returns the page.

  Args:
    title: of the grids.
    tables: of `collect.tables`.
    answers: of `answers.read`, which stand above the tables of their grids.
    notes: what was found, in paragraphs with an empty line between them.
    run: the workdir of a run whose pictures are shown at the end.
  """
  paragraphs = ''.join(
    f'<p class="note">{html.escape(paragraph)}</p>\n'
    for paragraph in notes.split('\n\n')
    if paragraph.strip()
  )
  body = paragraphs
  for grid, own in itertools.groupby(tables, lambda table: table.grid):
    words = (answers or {}).get(grid)
    if words:
      body += (
        f'<h2>{html.escape(words.question)}</h2>\n'
        f'<p class="note">{html.escape(words.answer)}</p>\n'
      )
    body += ''.join(_section(table, 3 if words else 2) for table in own)
  if run:
    body += _gallery(run)
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<title>{html.escape(title)}</title>\n<style>{_STYLE}</style></head>\n'
    f'<body><h1>{html.escape(title)}</h1>\n<p>{METHOD}</p>\n{body}'
    '</body></html>\n'
  )


def _section(table, level: int) -> str:
  rows = []
  for arm in table.arms:
    base = arm.name == table.baseline
    row = ''.join(f'<td>{html.escape(x)}</td>' for x in cells(table, arm))
    rows.append(f'<tr{" class=baseline" * base}>{row}</tr>\n')
  head = ''.join(f'<th>{name}</th>' for name in heads(table))
  return (
    f'<h{level}>{html.escape(f"{table.grid}: {table.set}")}</h{level}>\n'
    f'<p>{html.escape(describe(table))}</p>\n{_picture(table)}'
    f'<div class="wide"><table><tr>{head}</tr>\n{"".join(rows)}</table></div>\n'
    # Those of the classes that are not cut are the same runs.
    f'{"" if table.classes else _runs(table)}'
  )


def _gallery(run: pathlib.Path) -> str:
  """What the workdir of a run shows of it."""
  config = json.loads((run / 'config.json').read_text(encoding='utf-8'))
  data = config['data']
  name = data['name'] or pathlib.PurePath(data['root']).name or data['source']
  what = (
    f'{config["method"]["name"]} on {name}, seed {config["seed"]}, '
    f'{config["epochs"]:g} epochs.'
  )
  parts = [f'<h2>Pictures of one run</h2>\n<p>{html.escape(what)}</p>\n']
  for name, caption in _PICTURES.items():
    path = run / 'pictures' / f'{name}.png'
    if path.exists():
      data = base64.b64encode(path.read_bytes()).decode()
      parts.append(
        f'<figure><img alt="{html.escape(caption)}" '
        f'src="data:image/png;base64,{data}">'
        f'<figcaption>{html.escape(caption)}</figcaption></figure>\n'
      )
  return ''.join(parts)


def _runs(table) -> str:
  """What is needed to run the arms again, folded away."""
  # Two arms may be the same run.
  runs = {row['command']: row for arm in table.arms for row in arm.rows}
  rows = list(runs.values())
  devices = sorted({row['devices'] for row in rows})
  packages = {json.dumps(row['packages'], sort_keys=True) for row in rows}
  versions = [
    ', '.join(f'{name} {version}' for name, version in json.loads(p).items())
    for p in sorted(packages)
  ]
  text = '\n'.join(f'python -m {command}' for command in runs)
  hours = sum(row['seconds'] for row in rows) / 3600
  return (
    f'<details><summary>{len(rows)} runs, {hours:.1f} hours on '
    f'{html.escape(", ".join(devices))}: commands and versions</summary>\n'
    f'<pre>{html.escape(text)}</pre>\n'
    f'<p>{html.escape("; ".join(versions))}</p></details>\n'
  )


def _picture(table) -> str:
  """Top-1 and differences, an arm a line, as an inline SVG."""
  rows = len(table.arms)
  settings = {
    'font.size': 9, 'svg.hashsalt': 'report', 'svg.fonttype': 'path',
    'font.family': 'DejaVu Sans',
  }  # fmt: skip
  with matplotlib.rc_context(settings):
    figure = matplotlib.figure.Figure(
      figsize=(9, 1.0 + 0.36 * rows), layout='constrained'
    )
    left, right = figure.subplots(1, 2, sharey=True)
    for y, arm in enumerate(table.arms):
      base = arm.name == table.baseline
      values = list(arm.seeds.values())
      left.plot(values, [y] * len(values), '|', color='0.6', markersize=8)
      _dot(left, arm.mean, arm.spread, y, base)
      if arm.diff is not None:
        _dot(right, arm.diff, arm.ends, y, base)
    right.axvline(0, color='0.5', linewidth=0.8, linestyle='--')
    left.set_yticks(range(rows), [_label(arm.name) for arm in table.arms])
    left.set_ylim(rows - 0.5, -0.5)
    left.set_xlabel(f'{table.figure}, percent (ticks: single seeds)')
    right.set_xlabel('difference from the baseline, points')
    for axes in (left, right):
      axes.spines[['top', 'right', 'left']].set_visible(False)
      axes.tick_params(left=False)
      axes.xaxis.set_major_locator(
        matplotlib.ticker.MaxNLocator(6, steps=(1, 2, 5, 10))
      )
      axes.grid(color='0.92')
      axes.set_axisbelow(True)
    file = io.BytesIO()
    figure.savefig(file, format='svg', metadata={'Date': None})
  # An image of its own: the identifiers of two inline SVGs would collide.
  data = base64.b64encode(file.getvalue()).decode()
  text = f'{table.figure} and differences, {table.grid} on {table.set}'
  return (
    f'<img alt="{html.escape(text)}" src="data:image/svg+xml;base64,{data}">\n'
  )


def _dot(axes, x, ends, y, base) -> None:
  if ends:
    axes.plot(ends, (y, y), '-', color='0.15', linewidth=1.4)
  face = 'white' if base else '0.15'
  axes.plot([x], [y], 'o', color='0.15', markerfacecolor=face, markersize=5)


def _label(arm: str, width: int = 48) -> str:
  """Breaks a long name at its words; a $ would start mathematics."""
  words = arm.replace('$', r'\$').replace(' %', '\N{NO-BREAK SPACE}%')
  return textwrap.fill(words, width)
