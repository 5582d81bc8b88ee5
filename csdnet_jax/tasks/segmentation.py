"""Segmentation: a class for each pixel (see `tasks`)."""

import io
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from csdnet_jax import sharding
from csdnet_jax.data import batches, cache, report, sources
from csdnet_jax.data.masks import crops, layouts as sets, pairs, saved
from csdnet_jax.evaluation import metrics, windows
from csdnet_jax.pictures import draw, overlays
from csdnet_jax.runtime import paths, processes, writers
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import progress_bar
from csdnet_jax.state import averaged
from csdnet_jax.tasks.base import Experiment

FIGURE, NAME = 'miou', 'mIoU'

# The tables of the classes, and what is kept of each image.
CLASSES = {'test': 'classes.csv', 'val': 'classes_val.csv'}
COUNTS = {'test': 'counts.npz', 'val': 'counts_val.npz'}

_SHOWN = 4  # Images that are drawn.
_DRAWS = 2  # Random crops of each.


class Data(NamedTuple):
  """A data set made ready: the pairs, decoded.

  Attributes:
    dataset: names and classes of every part.
    train: what the crops are cut from; None where nothing is trained.
    parts: {'val', 'test'}: the pairs that judge, at their own size.
  """

  dataset: sets.SegmentationSet
  train: pairs.Prepared | None
  parts: dict[str, pairs.Prepared]


def load(config, split=None) -> sets.SegmentationSet:
  """Finds the pairs; with a split they are those that it names."""
  dataset = sources.load_masks(config.data)
  if config.data.unreadable == 'skip':
    dataset = pairs.usable(dataset)
  dataset = pairs.scanned(dataset)
  return dataset if split is None else saved.apply_split(dataset, split)


split_of = saved.split_to_json


def load_whole(config, folder: str, table: str = '') -> sets.SegmentationSet:
  """Finds all pairs of a folder of the same layout; a table is refused."""
  config = config.copy_and_resolve_references()
  config.data.update({'root': folder, 'table': table})
  dataset = load(config)
  rows = [
    (name, i)
    for name, part in sets.parts_of(dataset).items()
    for i in range(len(part.names))
  ]
  return saved.select(dataset, {'test': rows})


def judges(dataset: sets.SegmentationSet, class_names, trained_on):
  """Returns the pairs of another data set that can judge a run.

  Args:
    dataset: its test part judges.
    class_names: of the run.
    trained_on: `(name, digest) -> whether the run has learnt from it`.

  Returns:
    The test part alone, without what the run has learnt from.

  Raises:
    UserError: if the classes are not those of the run, in the same order.
  """
  if list(dataset.class_names) != list(class_names):
    raise UserError(
      f'The classes of {dataset.name} are not those of the run '
      f'({len(dataset.class_names)} and {len(class_names)} of them); a mask '
      'holds their numbers, so they must be the same, in the same order.'
    )
  names, digests = dataset.test.names, dataset.scans['test'].images
  seen = [trained_on(*x) for x in zip(names, digests, strict=True)]
  rows = [('test', int(i)) for i in np.flatnonzero(np.invert(seen))]
  return saved.select(dataset, {'test': rows})


def prepare_test(config, dataset: sets.SegmentationSet) -> Data:
  """Decodes the test part alone, to be judged by.

  Raises:
    UserError: lists every unusable image and mask.
  """
  alone = dataset._replace(train=None, val=None)
  with progress_bar('pairs decoded') as progress:
    parts = pairs.prepare(
      alone, resize=config.data.resize,
      cache_dir=cache.cache_dir(config.data.cache), progress=progress,
    )  # fmt: skip
  return Data(dataset, None, {'test': parts.test})


def prepare(
  config, dataset: sets.SegmentationSet, told: bool = False
) -> tuple[Data, dict]:
  """Decodes a data set once into the cache, and reports on it.

  Args:
    config: of the run.
    dataset: with its parts.
    told: whether the report was said before.

  Returns:
    The pairs, and the figures of the report.

  Raises:
    UserError: lists every unusable image and mask; with `config.data.strict`,
      for what the report finds.
  """
  c = config.data
  with progress_bar('pairs decoded') as progress:
    parts = pairs.prepare(
      dataset, resize=c.resize, cache_dir=cache.cache_dir(c.cache),
      progress=progress,
    )  # fmt: skip
  prepared = {n: p for n, p in parts._asdict().items() if p is not None}
  checked = report.pairs_report(
    dataset, dataset.scans,
    {name: part.counts for name, part in prepared.items()}, strict=c.strict,
  )  # fmt: skip
  if not told:
    report.tell(checked)
  train = prepared.pop('train')
  return Data(dataset, train, prepared), checked.figures


def train_batches(config, mesh, data: Data, start: int, stop: int) -> Iterator:
  """This process's rows of the batches of steps `start` to `stop` - 1."""
  return crops.train_batches(
    data.train, batch=config.batch_size, seed=config.seed, start=start,
    stop=stop, canvas=config.data.canvas, size=config.model.size,
    scale=config.crops.scale, rotate=config.crops.rotate,
    host=jax.process_index(), hosts=jax.process_count(),
    order=sharding.row_order(config.batch_size, mesh.size, config.accumulate),
  )  # fmt: skip


def compile_eval(config, method, mesh, classes: int):
  """Returns `((params, model_state), images [n, S, S, 3]) -> logits`.

  Traceable, not compiled: `windows.evaluate` compiles it with what
  follows. The images of this process are spread over its own devices.
  """
  del config, classes
  local = sharding.make_mesh(mesh.local_mesh.devices.flatten().tolist())
  rows = NamedSharding(local, sharding.ROWS)

  def forward(weights, images):
    if images.shape[0] % local.size == 0:
      images = jax.lax.with_sharding_constraint(images, rows)
    return method.predict(*weights, {'image': 255 * images})['logits']

  return forward


def start(experiment: Experiment, state) -> dict[str, float]:
  """A head that starts at zero is worth nothing: there are no baselines."""
  del experiment, state
  return {}


def evaluate(experiment: Experiment, state, part: str, last: bool):
  """Returns the figures of a part, and its `windows.Result`.

  Before the last evaluation at most `config.evaluation.images` are taken, at
  the first scale alone. Each process evaluates its share of the images.
  """
  config, program, data = experiment
  e, prepared = config.evaluation, data.parts[part]
  n = len(prepared.sizes)
  rows = batches.spread(n, n if last else e.images or n)
  mine = rows[jax.process_index() :: jax.process_count()]
  weights = jax.tree.map(lambda x: x.addressable_data(0), averaged(state))
  local = sharding.make_mesh(program.mesh.local_mesh.devices.flatten().tolist())
  # Windows at a time, or twice as many images where they are mirrored.
  batch = local.size * math.ceil(config.batch_size / program.mesh.size)
  with processes.collective(), progress_bar(f'{part} images') as progress:
    found = windows.evaluate(
      program.eval_step, _on(local, weights), prepared,
      windows.Windows(
        config.model.size, scales=e.scales if last else e.scales[:1],
        flip=e.flip, base_size=e.base_size, resize=config.data.resize,
      ),
      classes=len(data.dataset.class_names), batch=batch, rows=mine,
      keep=mine[batches.spread(len(mine), _SHOWN)], progress=progress,
    )  # fmt: skip
  found = _of_all_processes(found, rows)
  return found.figures, found


def _on(mesh, weights):
  where = NamedSharding(mesh, sharding.REPLICATED)
  return jax.device_put(weights, where)


def _of_all_processes(found: windows.Result, rows) -> windows.Result:
  """Joins what the processes counted; the predictions stay where they are."""
  if jax.process_count() == 1:
    return found
  from jax.experimental import multihost_utils

  counts = np.zeros((len(rows), *found.counts.shape[1:]), np.int64)
  counts[np.searchsorted(rows, found.rows)] = found.counts

  def total(x):
    # In halves, since JAX would cut 64 bits to 32.
    halves = multihost_utils.process_allgather(x.view(np.int32))
    return halves.view(np.int64).sum(0)

  counts, confusion = total(counts), total(found.confusion)
  figures = metrics.segmentation_figures(counts.sum(0)) | {'n': len(rows)}
  return windows.Result(figures, confusion, rows, counts, found.predictions)


def write_details(workdir: paths.Path, part: str, data: Data, details) -> None:
  """Writes the table of the classes, the counts of each image, and overlays."""
  windows.write_classes(
    workdir / CLASSES[part], data.dataset.class_names, details.counts.sum(0)
  )
  names = sets.parts_of(data.dataset)[part].names
  archive = io.BytesIO()
  np.savez_compressed(
    archive, names=[names[i] for i in details.rows], counts=details.counts
  )
  writers.write_bytes(workdir / COUNTS[part], archive.getvalue())
  (workdir / 'pictures').mkdir(exist_ok=True)
  for i, predicted in details.predictions.items():
    name = names[i].rpartition('/')[2]
    overlays.write(
      workdir / 'pictures' / f'overlay_{part}_{i}.png',
      data.parts[part].image(i), data.parts[part].mask(i), predicted,
      data.dataset.class_names, title=f'{data.dataset.name}: {name}',
    )  # fmt: skip


def line(figures: dict[str, float]) -> str:
  """Returns the figures of an evaluation in a line."""
  return (
    f'mIoU {figures["miou"]:.2f}  mean accuracy {figures["macc"]:.2f}  pixel '
    f'accuracy {figures["pixel_accuracy"]:.2f}  ({figures["n"]} images)'
  )


def summarise(records, steps: int, parts, start: dict[str, float]) -> dict:
  """Makes the summary of the last step, as the papers report it.

  Args:
    records: of `metrics.jsonl`.
    steps: of the whole run.
    parts: that were evaluated, by name.
    start: of `start`.
  """
  last = {r['kind']: r for r in records if r['step'] == steps}
  keys = ('miou', 'miou_present', 'macc', 'pixel_accuracy')
  summary = {key: last['test'][key] for key in keys}
  if 'val' in parts:
    summary['val'] = {key: last['val'][key] for key in keys}
  return summary | {
    'start': start,
    'n_test': last['test']['n'],
    'steps': steps,
  }


def shown(figures: dict[str, float]) -> dict[str, float]:
  """Returns the figures of an evaluation under the names that people use."""
  return {
    'mIoU, percent': figures['miou'],
    'mIoU of the classes that occur': figures['miou_present'],
    'mean accuracy of a class': figures['macc'],
    'pixel accuracy': figures['pixel_accuracy'],
    'images': figures['n'],
  }


def rows(summary: dict) -> dict[str, float]:
  """Returns {name: figure} of a summary."""
  shown = {
    'mIoU, last epoch': summary['miou'],
    'mIoU of the classes that occur': summary['miou_present'],
    'mean accuracy of a class': summary['macc'],
    'pixel accuracy': summary['pixel_accuracy'],
  }
  if 'val' in summary:
    shown['mIoU, validation part'] = summary['val']['miou']
  return shown


def remark(summary: dict) -> str:
  """There are no baselines to fall below."""
  del summary
  return ''


def write_start(experiment: Experiment, state, workdir: paths.Path) -> None:
  """Writes random crops of a few images of the first batch, with labels."""
  del state
  config, program, data = experiment
  if jax.process_index():
    return
  batch = next(train_batches(config, program.mesh, data, 0, 1))
  batch = {name: x[:_SHOWN] for name, x in batch.items()}
  cut = zip(batch['image'], batch['extent'], strict=True)
  columns = {'window': [image[:h, :w] / 255.0 for image, (h, w) in cut]}
  n = len(data.dataset.class_names)
  colours = np.concatenate([overlays.palette(n), [overlays.IGNORED]])
  views = jax.jit(program.method.views)
  for i in range(_DRAWS):
    keys = sharding.row_keys(jax.random.key(i), len(batch['id']), None)
    seen = jax.device_get(views(keys, batch))
    columns[f'crop, draw {i + 1}'] = seen['raw']
    columns[f'labels, draw {i + 1}'] = colours[np.minimum(seen['label'], n)]
  names = sets.parts_of(data.dataset)['train'].names
  (workdir / 'pictures').mkdir(exist_ok=True)
  draw.contact_sheet(
    workdir / 'pictures' / 'crops.png', columns,
    [names[i].rpartition('/')[2] for i in batch['id']],
    title=f'{data.dataset.name}: training crops, step 0',
  )  # fmt: skip


def write_end(experiment: Experiment, state, workdir: paths.Path) -> None:
  """Writes the curves; the overlays are there since the last evaluation."""
  del state
  if jax.process_index():
    return
  (workdir / 'pictures').mkdir(exist_ok=True)
  draw.curves(
    workdir / 'pictures' / 'curves.png',
    writers.read_records(workdir / 'metrics.jsonl'),
    title=f'{experiment.data.dataset.name}: training',
  )
