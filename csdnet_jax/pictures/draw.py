"""Figures from plain arrays to PNG files; all of them are readable in grey."""

import io
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from csdnet_jax.pictures.measure import Pair
from csdnet_jax.runtime import paths, writers

_DPI = 140
_BYTES = 400_000  # Of a file, at most, as long as 32 colours suffice.
# The palette of Okabe and Ito, which the colour-blind tell apart; a line has
# its own dashes and a marker its own shape beside the colour.
_COLOURS = (
  '#000000', '#d55e00', '#0072b2', '#009e73', '#cc79a7', '#e69f00', '#56b4e9',
  '#808080',
)  # fmt: skip
_DASHES = ('-', '--', '-.', ':', (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
_MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '*', '<', '>')
_NAMED = 64  # Classes whose names an axis has room for.
_COUNTED = 24  # Classes for which a cell has room for its count.

# Of a record: no terms of the loss.
_OTHER = (
  'step', 'kind', 'images_per_s', 'grad_norm', 'labelled',
  'crops_without_label',
)  # fmt: skip
# Of an evaluation, in percent.
_PERCENT = ('top1', 'mean_per_class', 'miou', 'macc', 'pixel_accuracy')


def contact_sheet(
  path: paths.Path,
  columns: Mapping[str, Sequence[np.ndarray]],
  names: Sequence[str],
  *,
  title: str,
) -> None:
  """Writes a grid of images: a column for each kind, a row for each leaf.

  Args:
    path: of the PNG.
    columns: {heading: n images [H, W, 3], float in [0, 1]}.
    names: n names for the rows.
    title: over all.
  """
  rows = [
    [('' if i else heading, images[i]) for heading, images in columns.items()]
    for i in range(len(names))
  ]
  _sheet(path, rows, names, title=title)


def over(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
  """Lays maps over images, in colours that are brighter where a map is higher.

  Args:
    images: [n, H, W, 3] uint8 or in [0, 255].
    maps: [n, H, W] in [0, 1].

  Returns:
    [n, H, W, 3] float in [0, 1].
  """
  import matplotlib

  grey = np.mean(images, axis=-1, keepdims=True) / 255.0
  return 0.7 * matplotlib.colormaps['viridis'](maps)[..., :3] + 0.3 * grey


def confused_pairs(
  path: paths.Path,
  pairs: Sequence[Pair],
  leaves: Sequence[Sequence[tuple[int, int, np.ndarray]]],
  class_names: Sequence[str],
  *,
  title: str,
) -> None:
  """Writes pairs of classes with leaves side by side, a row for each pair.

  Args:
    path: of the PNG.
    pairs: of classes.
    leaves: of each pair: (label, prediction, image [H, W, 3] in [0, 1]).
    class_names: by label.
    title: over all.
  """
  rows = [
    [
      (f'{_short(class_names[label])}\n{_verdict(label, guess, class_names)}',
       image)
      for label, guess, image in row
    ]
    for row in leaves
  ]  # fmt: skip
  counts = [f'mistaken {p.there} →, {p.back} ←' for p in pairs]
  _sheet(path, rows, counts, title=title)


def _verdict(label, guess, class_names):
  if label == guess:
    return 'right'
  return f'taken for\n{_short(class_names[guess])}'


def _short(name: str) -> str:
  return name if len(name) <= 24 else f'{name[:23]}…'


def confusion(
  path: paths.Path,
  matrix: np.ndarray,
  class_names: Sequence[str],
  *,
  title: str,
) -> None:
  """Writes the confusion matrix, each cell its share of the label's images.

  Args:
    path: of the PNG.
    matrix: integer [classes, classes], rows the labels.
    class_names: by label; drawn where there is room, else their numbers.
    title: over it.
  """
  n = len(matrix)
  side = 5.0  # Inches of the axes, nearly.
  figure = _figure(7.0, 6.0)
  axes = figure.subplots()
  label, guess = np.nonzero(matrix)
  share = matrix[label, guess] / matrix.sum(axis=1)[label]
  # Squares, not an image: of two thousand classes each is still seen.
  area = max(72 * 0.85 * side / n, 1.5) ** 2
  dots = axes.scatter(
    guess, label, area, share, marker='s', linewidths=0, cmap='Greys',
    vmin=-0.4, vmax=1.0,
  )  # fmt: skip
  if n <= _COUNTED:
    for i, j, s in zip(label, guess, share, strict=True):
      axes.text(
        j, i, str(matrix[i, j]), ha='center', va='center', fontsize=6,
        color='white' if s > 0.4 else 'black',
      )  # fmt: skip
  axes.set(xlim=(-0.6, n - 0.4), ylim=(n - 0.4, -0.6), aspect='equal')
  number = '' if n <= _NAMED else ', its place in class_names.json, from 0'
  axes.set(xlabel=f'predicted class{number}', ylabel=f'true class{number}')
  if n <= _NAMED:
    names = [_short(name) for name in class_names]
    font = {'fontsize': min(6, 48 * side / n), 'parse_math': False}
    axes.set_xticks(range(n), names, rotation=90, **font)
    axes.set_yticks(range(n), names, **font)
  else:
    axes.grid(linewidth=0.3)
    axes.set_axisbelow(True)
  bar = figure.colorbar(dots, ax=axes, shrink=0.6)
  bar.ax.set_ylim(0, 1)
  bar.set_label('share of the images of the true class')
  axes.set_title(title, fontsize=10, parse_math=False)
  _save(figure, path)


def queue(
  path: paths.Path,
  labels: np.ndarray,
  ids: np.ndarray,
  ages: np.ndarray,
  classes: int,
  *,
  title: str,
) -> None:
  """Writes what a memory queue holds: keys of each class, and their ages.

  Args:
    path: of the PNG.
    labels: integer [n], of the n filled slots.
    ids: integer [n], the images they came from.
    ages: integer [n], steps since they were pushed.
    classes: of the data set.
    title: over it.
  """
  keys = np.bincount(labels, minlength=classes)
  figure = _figure(8.0, 3.2)
  left, right = figure.subplots(1, 2)
  covered = ', '.join(str(np.sum(keys >= k)) for k in (1, 2, 4))
  _bars(left, np.bincount(keys), 'keys of a class', 'classes')
  left.set_title(
    f'{covered} of {classes} classes with 1, 2, 4 keys or more', fontsize=8
  )
  _bars(right, np.bincount(ages), 'age of a key, steps since its push', 'keys')
  right.set_title(
    f'{len(labels)} keys of {len(np.unique(ids))} images', fontsize=8
  )
  figure.suptitle(title, fontsize=10, parse_math=False)
  _save(figure, path)


def _bars(axes, counts, x_label, y_label):
  axes.bar(
    np.arange(len(counts)), counts, width=0.9, color='0.6', edgecolor='0.2',
    linewidth=0.5,
  )  # fmt: skip
  axes.set(xlabel=x_label, ylabel=y_label)
  for axis in (axes.xaxis, axes.yaxis):
    axis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def curves(path: paths.Path, records: Sequence[Mapping], *, title: str) -> None:
  """Writes the terms of the loss and the accuracies over the steps.

  Args:
    path: of the PNG.
    records: of `metrics.jsonl`: 'step', 'kind' ('train', 'val' or 'test') and
      figures by name.
    title: over it.
  """
  losses, accuracies = {}, {}
  for record in records:
    kind, step = record['kind'], record['step']
    if kind == 'train':
      for name in [name for name in record if name not in _OTHER]:
        group = accuracies if 'top1' in name else losses
        group.setdefault(name, []).append((step, record[name]))
    else:
      for name in ('loss', *_PERCENT):
        if name in record:
          group = losses if name == 'loss' else accuracies
          group.setdefault(f'{kind}_{name}', []).append((step, record[name]))
  figure = _figure(8.0, 4.0)
  left, right = figure.subplots(1, 2)
  for axes, lines in ((left, losses), (right, accuracies)):
    ordered = sorted(lines.items(), key=lambda line: line[0] != 'loss')
    for i, (name, points) in enumerate(ordered):
      x, y = zip(*points, strict=True)
      axes.plot(
        x, y, label=name, color=_COLOURS[i % len(_COLOURS)], linewidth=1.2,
        linestyle=_DASHES[i % len(_DASHES)], markersize=4,
        marker=_MARKERS[i % len(_MARKERS)], markevery=max(1, len(x) // 8),
      )  # fmt: skip
    axes.grid(linewidth=0.3)
    axes.set_xlabel('step')
    axes.xaxis.get_major_locator().set_params(integer=True)
    if lines:
      axes.legend(
        fontsize=6.5, handlelength=4, ncols=3, loc='upper center',
        bbox_to_anchor=(0.5, -0.16), frameon=False,
      )  # fmt: skip
  # The terms of a contrastive loss are small beside a cross-entropy.
  left.set_yscale('symlog', linthresh=0.01)
  left.set_ylabel('loss and its terms')
  right.set(ylabel='accuracy, percent', ylim=(-2, 102))
  figure.suptitle(title, fontsize=10, parse_math=False)
  _save(figure, path)


def embedding_map(
  path: paths.Path,
  points: np.ndarray,
  labels: np.ndarray,
  shown: Sequence[int],
  class_names: Sequence[str],
  *,
  title: str,
) -> None:
  """Writes points in the plane: some classes marked, the others in grey.

  Args:
    path: of the PNG.
    points: float [n, 2].
    labels: integer [n].
    shown: labels with a marker of their own, the first ten of them.
    class_names: by label.
    title: over it.
  """
  figure = _figure(7.0, 4.6)
  axes = figure.subplots()
  shown = list(shown)[: len(_MARKERS)]
  other = ~np.isin(labels, shown)
  axes.scatter(*points[other].T, 8, color='0.75', label='other classes')
  for i, label in enumerate(shown):
    axes.scatter(
      *points[labels == label].T, 42, marker=_MARKERS[i],
      color=_COLOURS[i % len(_COLOURS)], edgecolors='black', linewidths=0.5,
      label=_short(class_names[label]),
    )  # fmt: skip
  axes.set(xlabel='t-SNE 1', ylabel='t-SNE 2', xticks=[], yticks=[])
  legend = figure.legend(loc='outside right upper', fontsize=7)
  for text in legend.get_texts():
    text.set_parse_math(False)
  axes.set_title(title, fontsize=10, parse_math=False)
  _save(figure, path)


def side_by_side(
  path: paths.Path,
  panels: Mapping[str, np.ndarray],
  legend: Sequence[tuple[str, np.ndarray]],
  *,
  title: str,
) -> None:
  """Writes images in a row over the names of the colours in them.

  Args:
    path: of the PNG.
    panels: {heading: image [h, w, 3], float in [0, 1]}, all of one size.
    legend: (name, colour [3] in [0, 1]) pairs.
    title: over all.
  """
  from matplotlib.patches import Patch

  h, w = next(iter(panels.values())).shape[:2]
  columns = min(max(len(legend), 1), 8)
  lines = -(-len(legend) // columns)
  panel = min(3.6, 5.0 * w / h)
  figure = _figure(
    max(panel * len(panels), 8.0), panel * h / w + 0.6 + 0.2 * lines
  )
  for axes, (heading, image) in zip(
    figure.subplots(1, len(panels)), panels.items(), strict=True
  ):
    axes.imshow(image, interpolation='nearest')
    axes.set_title(heading, fontsize=8)
    axes.set_axis_off()
  figure.suptitle(title, fontsize=10, parse_math=False)
  style = {'edgecolor': '0.3', 'linewidth': 0.5}
  key = figure.legend(
    handles=[Patch(facecolor=c, label=_short(n), **style) for n, c in legend],
    loc='outside lower center', ncols=columns, fontsize=7, frameon=False,
  )  # fmt: skip
  for text in key.get_texts():
    text.set_parse_math(False)
  _save(figure, path)


def _sheet(path, rows, names, *, title):
  """Writes rows of (heading, image); a row may be shorter than the others."""
  width = max(map(len, rows))
  lines = [max(len(h.splitlines()) for h, _ in row) for row in rows]
  figure = _figure(
    max(1.25 * width + 0.4, 4.0), sum(1.25 + 0.12 * n for n in lines) + 0.3
  )
  grid = figure.subplots(len(rows), width, squeeze=False)
  for row, axes, name in zip(rows, grid, names, strict=True):
    for axis in axes:
      axis.set(xticks=[], yticks=[])
      axis.set_frame_on(False)
    axes[0].set_ylabel(_short(name), fontsize=7, parse_math=False)
    for axis, (heading, image) in zip(axes, row, strict=False):
      axis.imshow(np.clip(image, 0.0, 1.0))
      axis.set_title(heading, fontsize=6.5, parse_math=False)
  figure.suptitle(title, fontsize=10, parse_math=False)
  _save(figure, path)


def _figure(width, height):
  """A figure of its own, in inches: pyplot would keep it, and ask a display."""
  from matplotlib.figure import Figure

  return Figure(figsize=(width, height), dpi=_DPI, layout='constrained')


def _save(figure, path):
  """Writes a PNG with a palette, which takes a third of the bytes, whole."""
  drawn = io.BytesIO()
  with warnings.catch_warnings():
    # A name in a script that the font lacks is drawn as boxes.
    warnings.filterwarnings('ignore', 'Glyph .* missing', UserWarning)
    figure.savefig(drawn, format='png')
  with Image.open(drawn) as image:
    image = image.convert('RGB')
  for colours in (256, 96, 32):
    packed = io.BytesIO()
    image.quantize(colours).save(packed, format='png', optimize=True)
    if packed.tell() <= _BYTES:
      break
  writers.write_bytes(path, packed.getvalue())
