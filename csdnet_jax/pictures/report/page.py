"""From the content of a report to the page."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from csdnet_jax.data.batches import spread
from csdnet_jax.data.images import inputs
from csdnet_jax.evaluation import calibration
from csdnet_jax.pictures import measure, speaks
from csdnet_jax.pictures.report import classes, said
from csdnet_jax.pictures.report.content import Content
from csdnet_jax.runtime import paths, writers

# What a page has room for: 60 classes of 12 small pictures are some 3 MB.
_CLASSES = 60  # With pictures.
_PICTURES = 6  # Of a class, and as many of its mistakes.
_PAIRS = 8
_POINTS = 200  # Of a curve.
_COUNTED = 24  # Classes for which a cell of the matrix has room for its count.
_SIDE = 112  # Pixels of a small picture.
_LARGE = 224  # Of a leaf with its evidence.
# Units of the matrix, and what its numbers take of them.
_MATRIX, _MARGIN = 600, 44


def write(path: paths.Path, content: Content) -> None:
  """Writes a report: one HTML file that loads nothing and runs no script.

  Args:
    path: of the file.
    content: what it says.
  """
  writers.write_text(path, page(content))


def page(content: Content) -> str:
  """Returns the HTML of a report."""
  folders = content.folders
  # Names of classes stand in the first two.
  return _template().render(
    c=content._replace(predictions=None),  # The template gets no rows of n.
    verdict=[said.without(folders, s) for s in content.verdict],
    advice=content.advice and said.without(folders, content.advice),
    left_out=[said.without_paths(s, folders) for s in content.left_out],
    data=content.data
    and said.of_data(content.data, folders, content.folds is not None),
    unknown=content.unknown
    and content.unknown._replace(
      how=said.without_paths(content.unknown.how, folders)
    ),
    made=_without_paths(content.made, folders),
    card=_without_paths(content.card, folders),
    curves=_curves(content.records or ()),
    leaves=[_leaf(content, leaf) for leaf in content.leaves or ()],
    **_of_predictions(content),
  )


@functools.cache
def _template():
  import jinja2

  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('csdnet_jax.pictures.report'),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  environment.filters['breakable'] = _breakable
  return environment.get_template('report.html')


def _breakable(name: str):
  """Escapes a name, and lets its line break after an underscore."""
  import markupsafe

  return markupsafe.escape(name).replace('_', markupsafe.Markup('_<wbr>'))


def _without_paths(rows, folders):
  return rows and {
    what: said.without_paths(how, folders) for what, how in rows.items()
  }


def _of_predictions(content: Content) -> dict[str, Any]:
  """What the template shows of held-out pictures; None of each without any."""
  found = content.predictions
  if found is None or not len(found.labels):
    return dict.fromkeys(('matrix', 'pairs', 'classes', 'reliability', 'n'))
  n = len(content.class_names)
  guesses = classes.predicted(found.probabilities)
  matrix = classes.confusion(found.labels, guesses, n)
  ordered = classes.order(matrix)
  rows = classes.of(found.labels, found.probabilities, ordered)
  thumbnail = _thumbnails(content)
  return {
    'n': len(found.labels),
    'matrix': _matrix(matrix, ordered),
    'pairs': _pairs(matrix, found.labels, guesses, thumbnail, content),
    'classes': _classes(rows, thumbnail, content),
    'reliability': _reliability(content),
  }


def _thumbnails(content: Content) -> Callable[[int], dict[str, Any] | None]:
  """Returns `row -> picture`, made once each; None where none can be had."""
  found, image = content.predictions, content.image
  guesses = classes.predicted(found.probabilities)

  @functools.cache
  def thumbnail(row):
    name, guess = found.names[row], guesses[row]
    return {
      'image': image and inputs.thumbnail(image(name), _SIDE),
      'name': said.without(content.folders, name),
      'label': content.class_names[found.labels[row]],
      'guess': '' if guess < 0 else content.class_names[guess],
      'right': guess == found.labels[row],
      'sure': None if guess < 0 else 100 * found.probabilities[row, guess],
    }

  return thumbnail


def _matrix(matrix, ordered) -> dict[str, Any]:
  """The cells of the confusion matrix that hold anything, where they lie."""
  n = len(matrix)
  side = min((_MATRIX - _MARGIN) / n, 72)
  of_label = matrix.sum(axis=1)
  place = np.empty(n, int)
  place[ordered] = np.arange(n)
  # Of hundreds of classes a cell is drawn larger than it is, to be seen.
  drawn, step = max(side - 1, 4.0), _tick(n)
  cells = []
  for label, guess in zip(*np.nonzero(matrix), strict=True):
    count = int(matrix[label, guess])
    cells.append({
      'x': round(_MARGIN + place[guess] * side + (side - drawn) / 2, 1),
      'y': round(_MARGIN + place[label] * side + (side - drawn) / 2, 1),
      'label': int(label), 'guess': int(guess), 'count': count,
      'of': int(of_label[label]),
      'share': round(0.25 + 0.75 * count / int(of_label[label]), 2),
    })  # fmt: skip
  return {
    'cells': sorted(cells, key=lambda c: c['label'] != c['guess']),
    'side': side, 'drawn': round(drawn, 1), 'counted': n <= _COUNTED,
    'total': round(_MARGIN + n * side, 1), 'margin': _MARGIN,
    'font': round(min(18.0, 0.62 * side), 1),
    'ticks': [
      {'number': i + 1, 'at': round(_MARGIN + (i + 0.5) * side, 1)}
      for i in range(n)
      if i == 0 or (i + 1) % step == 0
    ],
  }  # fmt: skip


def _tick(n: int) -> int:
  """How many classes lie between two numbers on an axis of the matrix."""
  if n <= _COUNTED:
    return 1
  return next(step for step in (5, 10, 20, 50, 100, n) if n <= 12 * step)


def _pairs(matrix, labels, guesses, thumbnail, content) -> list[dict]:
  pairs = measure.most_confused(matrix, _PAIRS)
  rows = measure.confused_leaves(pairs, labels, guesses)
  names = content.class_names
  return [
    {
      'first': names[pair.first], 'second': names[pair.second],
      'there': pair.there, 'back': pair.back,
      'leaves': [thumbnail(row) for row in own] if content.image else [],
    }
    for pair, own in zip(pairs, rows, strict=True)
  ]  # fmt: skip


def _classes(rows, thumbnail, content) -> dict[str, Any]:
  """All classes in the matrix's order, and the worst with their pictures."""
  names = content.class_names

  def line(number, one):
    return {
      'number': number, 'name': names[one.label], 'n': one.n,
      'right': len(one.right),
      'taken_for': [
        (names[label] if label >= 0 else 'nothing', times)
        for label, times in one.taken_for[:3]
      ],
      'more': max(len(one.taken_for) - 3, 0),
    }  # fmt: skip

  lines = [line(i, one) for i, one in enumerate(rows, 1)]
  tested = [i for i, one in enumerate(rows) if one.n]
  worst = sorted(tested, key=lambda i: (len(rows[i].right) / rows[i].n, i))
  shown = []
  for i in worst[:_CLASSES] if content.image else ():
    good, bad = rows[i].right, rows[i].wrong
    shown.append(
      lines[i] | {
        'good': [thumbnail(row) for row in good[:_PICTURES]],
        'bad': [thumbnail(row) for row in bad[:_PICTURES]],
        'left_out': max(len(good) - _PICTURES, 0)
        + max(len(bad) - _PICTURES, 0),
      }
    )  # fmt: skip
  return {
    'all': lines, 'shown': shown, 'tested': len(tested),
    'left_out': max(len(tested) - _CLASSES, 0),
  }  # fmt: skip


def _leaf(content: Content, leaf) -> dict[str, Any]:
  chosen, rival = speaks.panels(leaf.view, leaf.speaks)
  names = content.class_names
  return {
    'name': said.without(content.folders, leaf.name),
    'label': names[leaf.label], 'chosen': names[leaf.chosen],
    'rival': names[leaf.rival], 'right': leaf.chosen == leaf.label,
    'images': [
      inputs.thumbnail(image, _LARGE) for image in (leaf.view, chosen, rival)
    ],
  }  # fmt: skip


def _reliability(content: Content) -> dict[str, Any]:
  """Confidence against accuracy, at T = 1 and as calibrated."""
  found, made = content.predictions, content.calibration
  raw = calibration.softmax(found.logits, 1.0)
  curves = [('as the network says it', raw)]
  if made is not None and made.temperature != 1.0:
    curves.append(('calibrated', found.probabilities))
  return {
    'curves': [
      {'name': name, 'error': 100 * r.error, 'bins': _bins(r)}
      for name, p in curves
      for r in [calibration.reliability(p, found.labels)]
    ],
    'how': said.without_paths(made.how, content.folders) if made else '',
  }


def _bins(found: calibration.Reliability) -> list[dict[str, float]]:
  n = len(found.counts)
  return [
    {
      'from': 100 * i / n, 'to': 100 * (i + 1) / n, 'n': int(count),
      'sure': 100 * float(found.confidence[i]),
      'right': 100 * float(found.right[i]),
    }
    for i, count in enumerate(found.counts)
    if count
  ]  # fmt: skip


def _curves(records) -> list[dict[str, Any]]:
  """The loss over the steps, and the top-1 of every part, as points."""
  lines: dict[str, dict[str, list]] = {'loss': {}, 'top-1, percent': {}}
  for record in records:
    kind = record['kind']
    for figure, names in (
      ('loss', ('loss',)), ('top-1, percent', ('top1', 'train_top1'))
    ):  # fmt: skip
      for name in names:
        if math.isfinite(record.get(name, math.nan)):
          points = lines[figure].setdefault(kind, [])
          points.append((record['step'], record[name]))
  return [
    _plot(figure, of_kind) for figure, of_kind in lines.items() if of_kind
  ]


def _plot(figure, of_kind) -> dict[str, Any]:
  points = [p for line in of_kind.values() for p in line]
  last, heights = max(x for x, _ in points), [y for _, y in points]
  # A loss of one's own may be below 0.
  bottom, top = min(0.0, *heights), max(0.0, *heights)
  if 'percent' in figure:
    top = 100.0
  high = top - bottom or 1.0
  top = bottom + high
  return {
    'title': figure, 'last': last, 'top': top, 'bottom': bottom,
    'lines': [
      {
        'name': kind,
        # In shares of the plot, from its upper left corner.
        'points': [
          (
            round(line[i][0] / max(last, 1), 4),
            round((top - line[i][1]) / high, 4),
          )
          for i in spread(len(line), _POINTS)
        ],
      }
      for kind, line in of_kind.items()
    ],
  }  # fmt: skip
