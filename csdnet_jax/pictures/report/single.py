"""The report of a single training: its held-out part is its judge."""

import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from PIL import Image

from csdnet_jax.data.images import draw, splits
from csdnet_jax.evaluation import calibration, comparison, unknown
from csdnet_jax.pictures import measure
from csdnet_jax.pictures.report import classes, leaves, origin, page
from csdnet_jax.pictures.report.content import Content, Predictions
from csdnet_jax.runtime import paths, writers
from csdnet_jax.runtime.errors import capitalised, counted
from csdnet_jax.state import averaged

FILE = 'report.html'
# Of a temperature that is fitted to what is shown.
FLATTERED = (
  'They are the pictures that this page shows, which flatters the calibrated '
  'curve a little.'
)
_METHODS = {
  'csdnet': 'CSDNet',
  'supervised': comparison.TITLES['cross_entropy'],
  'supcon': 'fine-tuning by supervised contrast',
}
# Figures of `start.json`; of a run without steps also what it is itself.
_BASELINES = {'knn': 'knn', 'prototypes': 'prototypes', 'linear_probe': 'probe'}


def write(config, method, state, data, found, workdir: paths.Path) -> None:
  """Writes `report.html`, on the first process.

  Args:
    config: of the run, fitted.
    method: of the run.
    state: its last state.
    data: with the data set, `parts` and `judge`.
    found: {part: `logits` and `embedding`}, what the network makes of each.
    workdir: with all other files of the run.
  """
  if jax.process_index():
    return
  weights = jax.tree.map(lambda x: x.addressable_data(0), averaged(state))
  page.write(
    workdir / FILE,
    content(config, method, weights, data, found, workdir, int(state.step)),
  )


def of_workdir(config, dataset, workdir: paths.Path, step: int) -> Content:
  """Returns what the files of a workdir say, without any held-out picture.

  Args:
    config: of the run, fitted.
    dataset: of the run.
    workdir: of it.
    step: of its weights.
  """
  figures = json.loads(paths.read_bytes(workdir / 'data_report.json'))
  if dataset.groups:
    figures['groups'] = len(set(dataset.groups.values()))
  told = unknown.read(workdir)
  if told is None or told.step != step:
    told = unknown.none(f'since none was found at step {step}', step)
  return Content(
    title=dataset.name,
    class_names=dataset.class_names,
    data=figures,
    unknown=told,
    records=writers.read_records(workdir / 'metrics.jsonl'),
    made=origin.made(config, workdir, step),
    card=origin.card(
      config, workdir, figures, refuses=told.threshold is not None
    ),
    folders=origin.folders(config, workdir),
  )


def content(
  config, method, weights, data, found, workdir, step: int
) -> Content:
  """Returns what the report of a run says; see `write`."""
  dataset, judge = data.dataset, data.judge
  filled = of_workdir(config, dataset, workdir, step)
  if judge == 'train':
    n = counted(len(dataset.train.names), 'pictures')
    return filled._replace(
      verdict=(
        f'Not known: the model has learnt from all {n}, and none was held out.',
        'To measure it, train once more with a part held out '
        '(--config.data.test_fraction=0.5).',
      )
    )
  fitted = calibration.read(workdir)
  if fitted is None or fitted.step != step:
    fitted = calibration.none('without a validation part', step)
  elif judge == 'val':
    fitted = fitted._replace(how=f'{fitted.how} {FLATTERED}')
  split, logits = splits.parts_of(dataset)[judge], found[judge]['logits']
  predictions = Predictions(
    split.names, split.labels, logits,
    calibration.softmax(logits, fitted.temperature),
  )  # fmt: skip
  start = json.loads(paths.read_bytes(workdir / 'start.json'))
  units = draw.units_of(split.names, dataset.groups, {})
  rows = candidates(config, predictions, start, units)
  part, place = data.parts[judge], {n: i for i, n in enumerate(split.names)}
  square = config.data.aspect == 'square'
  return filled._replace(
    verdict=verdict(predictions, rows, dataset.class_names),
    candidates=rows,
    predictions=predictions,
    image=lambda name: _proportioned(part, place[name], square),
    calibration=fitted,
    **leaves.drawn(
      filled.records, method.predict, weights, predictions,
      lambda row: part.images[row],
    ),
  )  # fmt: skip


def candidates(
  config, found: Predictions, start: Mapping[str, float], units: np.ndarray
) -> list[dict[str, Any]]:
  """Returns the rows of the run and of the frozen features that it began with.

  Args:
    config: of the run.
    found: of its judging part.
    start: of `start.json`, percent.
    units: int [n]; pictures of one number belong together.
  """
  n, name = len(found.labels), config.method.name
  right = classes.predicted(found.probabilities) == found.labels
  title = _METHODS.get(name, name)
  if name == 'frozen':
    title = comparison.TITLES[config.method.frozen.head]
  row = {'name': name, 'title': title, 'chosen': True, 'candidate': True}
  rows = [row | comparison.accuracy(right, units)._asdict()]
  for key, known in _BASELINES.items():
    title = comparison.TITLES[known]
    if key in start and title != rows[0]['title']:
      own = comparison.of_share(start[key], n)
      row = {'name': key, 'title': title, 'chosen': False, 'candidate': False}
      rows.append(row | own._asdict())
  return rows


def verdict(found: Predictions, rows, class_names) -> tuple[str, ...]:
  """Returns the sentences that a page begins with."""
  n, many = len(found.labels), len(class_names)
  guesses = classes.predicted(found.probabilities)
  right, own = int(np.sum(guesses == found.labels)), rows[0]
  chance = comparison.chance(found.labels)
  told = (
    f'the model names {right} of {n} leaves right that it had not seen; '
    f'always naming the most frequent of {counted(many, "classes")} would name '
    f'{chance:.1f} %.'
  )
  if own['low'] <= chance:
    told = f'not by this model: {told}'
  said = [capitalised(told)]
  frozen = [row for row in rows[1:] if row['name'] != 'knn']
  # What is itself without training has nothing to be compared with.
  if frozen and own['name'] != 'frozen':
    best = max(frozen, key=lambda row: row['top1'])
    gain = own['top1'] - best['top1']
    before = f'{best["title"]}: {best["top1"]:.1f} %'
    if gain > 0:
      text = f'That is {gain:.1f} points more than without training ({before})'
    else:
      text = f'Without training the network does as well or better ({before})'
    if own['low'] < best['high'] and best['low'] < own['high']:
      text += ', a difference that may be chance'
    said.append(f'{text}.')
  matrix = classes.confusion(found.labels, guesses, many)
  for pair in measure.most_confused(matrix, 1):
    said.append(
      f'Most often confused: {class_names[pair.first]} and '
      f'{class_names[pair.second]}.'
    )
  return tuple(said)


def _proportioned(part, row: int, square: bool) -> np.ndarray:
  """A test view, uint8 [h, w, 3]; what was squeezed is as wide as it was."""
  view = np.asarray(part.images[row])
  if not square:
    return view
  h, w = (int(side) for side in part.sizes[row])
  scale = len(view) / max(h, w)
  shape = max(round(w * scale), 1), max(round(h * scale), 1)
  return np.asarray(Image.fromarray(view).resize(shape, Image.BILINEAR))
