"""Classification: a class for each image (see `tasks`)."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from csdnet_jax import sharding
from csdnet_jax.data import cache, report, sources
from csdnet_jax.data.images import dividing, pipeline, saved, splits
from csdnet_jax.data.naming import class_name, loose
from csdnet_jax.evaluation import accuracy
from csdnet_jax.pictures import of_run
from csdnet_jax.pictures.report import single
from csdnet_jax.runtime import paths, processes
from csdnet_jax.runtime.errors import UserError, preview
from csdnet_jax.runtime.terminal import progress_bar, say
from csdnet_jax.state import averaged
from csdnet_jax.step import make_eval_step
from csdnet_jax.tasks import baselines, kept
from csdnet_jax.tasks.base import Experiment
from csdnet_jax.tasks.summary import (  # noqa: F401
  judge_of,
  line,
  remark,
  rows,
  shown,
  summarise,
)

FIGURE, NAME = 'top1', 'top-1'


class Data(NamedTuple):
  """A data set made ready: the split, and arrays on the host.

  Attributes:
    dataset: names, labels and classes of every part.
    train: canvases for random views; None where nothing is trained.
    parts: {'train', 'val', 'test'}: the finished test views of each; of those
      that there are.
  """

  dataset: splits.Dataset
  train: pipeline.Prepared | None
  parts: dict[str, pipeline.Prepared]

  @property
  def judge(self) -> str:
    """The part that the run is judged by; 'train' where nothing is held out."""
    return judge_of(self.parts)


def load(config, split=None) -> splits.Dataset:
  """Finds the images, and draws or applies the split."""
  return sources.load_images(config.data, split=split)


split_of = saved.split_to_json


def load_whole(config, folder: str, table: str = '') -> splits.Dataset:
  """Finds all images of a labelled folder, whatever its layout."""
  return sources.load_whole(folder, config.data, table)


def judges(dataset: splits.Dataset, class_names, trained_on) -> splits.Dataset:
  """Returns the images of another data set that can judge a run.

  Args:
    dataset: its test part judges.
    class_names: of the run.
    trained_on: `(name, digest) -> whether the run has learnt from it`.

  Returns:
    The test part alone, with the classes of the run, without what it has learnt
    from.

  Raises:
    UserError: names the classes that the run does not have.
  """
  number = {class_name(name): i for i, name in enumerate(class_names)}
  split, names = dataset.test, dataset.class_names
  known = {loose(name): name for name in class_names}
  unknown = [
    names[label]
    for label in np.unique(split.labels)
    if class_name(names[label]) not in number
  ]
  if unknown:
    said = [
      f'{name} (the run has {known[loose(name)]})'
      if loose(name) in known
      else name
      for name in unknown
    ]
    raise UserError(
      f'Classes of {dataset.name} are none of the run: {preview(said)}; rename '
      'them as they were trained, or take them out.'
    )
  kept = [
    (split, i)
    for i, name in enumerate(split.names)
    if not trained_on(name, dataset.digests[name])
  ]
  test = splits.gather(kept)
  labels = [number[class_name(names[label])] for label in test.labels]
  return dataset._replace(
    class_names=tuple(class_names), train=splits.EMPTY, val=None,
    test=test._replace(labels=np.array(labels, np.int32)),
  )  # fmt: skip


def prepare_test(config, dataset: splits.Dataset) -> Data:
  """Decodes the test part alone, to be judged by.

  Raises:
    UserError: lists every unreadable image.
  """
  c, split = config.data, dataset.test
  with progress_bar('images decoded') as progress:
    test = pipeline.prepare_test(
      split, [dataset.digests[name] for name in split.names],
      size=config.model.size, resize=c.test_resize,
      square=c.aspect == 'square', cache_dir=cache.cache_dir(c.cache),
      progress=progress,
    )  # fmt: skip
  return Data(dataset, None, {'test': test})


def reported(config, dataset: splits.Dataset, folds=None) -> report.Report:
  """Reports on a data set, whose train part may be dealt over folds.

  Raises:
    UserError: as `prepare`.
  """
  c = config.data
  return report.data_report(
    dataset, dividing.prints_of(dataset, c), size=config.model.size,
    group=c.group, test_fraction=c.test_fraction, strict=c.strict, folds=folds,
  )  # fmt: skip


def prepare(
  config, dataset: splits.Dataset, told: bool = False
) -> tuple[Data, dict]:
  """Decodes a data set once into the cache, and reports on it.

  Args:
    config: of the run.
    dataset: with its parts.
    told: whether the report was said before.

  Returns:
    The arrays, and the figures of the report.

  Raises:
    UserError: lists every unreadable image; with `config.data.strict`, for
      what the report finds.
  """
  # Before the decoding, which takes longer.
  checked = reported(config, dataset)
  if not told:
    report.tell(checked)
  c = config.data
  digests = {
    name: [dataset.digests[image] for image in part.names]
    for name, part in splits.parts_of(dataset).items()
  }
  with progress_bar('images decoded') as progress:
    prepared = pipeline.prepare(
      dataset, digests, canvas=c.canvas, size=config.model.size,
      resize=c.test_resize, square=c.aspect == 'square',
      cache_dir=cache.cache_dir(c.cache), progress=progress,
    )  # fmt: skip
  parts = {n: p for n, p in prepared._asdict().items() if p is not None}
  canvases = parts.pop('canvases')
  return Data(dataset, canvases, parts), checked.figures


def train_batches(config, mesh, data: Data, start: int, stop: int) -> Iterator:
  """This process's rows of the batches of steps `start` to `stop` - 1."""
  return pipeline.train_batches(
    data.train, batch=config.batch_size, seed=config.seed, start=start,
    stop=stop, host=jax.process_index(), hosts=jax.process_count(),
    order=sharding.row_order(config.batch_size, mesh.size, config.accumulate),
  )  # fmt: skip


def compile_eval(config, method, mesh, classes: int):
  """Returns the compiled `step.make_eval_step`."""
  step = make_eval_step(method, classes=classes, axis=sharding.axis_of(mesh))
  return sharding.compile_step(
    step, mesh, donate=False, parallel=config.parallel,
    out_specs=(sharding.REPLICATED, sharding.ROWS),
  )  # fmt: skip


def eval_batches(experiment: Experiment, part: str) -> Iterator:
  """Yields every image of a part once, on the devices.

  An accelerator takes as many at a time as it forwards in training, which fit
  since nothing is kept of them for a gradient; on a CPU, whose caches are
  small, more at a time take longer (docs/speed.md).
  """
  config, program, data = experiment
  on_cpu = program.mesh.devices.flat[0].platform == 'cpu'
  forwards = 1 if on_cpu else program.method.forwards
  for batch in pipeline.eval_batches(
    data.parts[part], batch=forwards * config.batch_size // config.accumulate,
    host=jax.process_index(), hosts=jax.process_count(),
  ):  # fmt: skip
    yield sharding.shard_batch(batch, program.mesh)


def outputs(experiment: Experiment, state, part: str):
  """Returns what the network makes of a part, see `accuracy.outputs`."""
  return accuracy.outputs(
    experiment.program.eval_step, state, eval_batches(experiment, part),
    experiment.data.parts[part].labels,
  )  # fmt: skip


def start(experiment: Experiment, state) -> dict[str, float]:
  """What the initial features are worth: the baselines to beat."""
  config, program, data = experiment
  judge, first = data.judge, jax.process_index() == 0
  if judge == 'train':
    return {}
  weights, known = averaged(state, program.method.extras), None
  with processes.collective():
    if first:
      path = baselines.place(config, data.dataset, *weights)
      known = baselines.read(path)
  # The other hosts have caches of their own, and measure if this one does.
  if any(processes.of_first(bytes([known is not None]))):
    say('The baselines on these initial features were measured before.')
    return known or {}
  say('Measuring the baselines on the initial features ...')
  train, held = (outputs(experiment, state, p) for p in ('train', judge))
  with processes.collective():
    if not first:
      return {}
    figures = baselines.measure(
      train['embedding'], train['label'], held['embedding'], held['label']
    )
    baselines.write(path, figures)
    return figures


def evaluate(experiment: Experiment, state, part: str, last: bool):
  """Returns the figures of a part, and its `accuracy.Result`."""
  del last  # A whole part, each time.
  found = accuracy.evaluate(
    experiment.program.eval_step, state, eval_batches(experiment, part),
    experiment.data.parts[part].labels,
  )  # fmt: skip
  return found.figures, found


def write_details(workdir: paths.Path, part: str, data: Data, details) -> None:
  """Writes the confusion matrix of the part that judges."""
  if part == data.judge:
    accuracy.write_confusion(
      workdir / 'confusion.csv', details.confusion, data.dataset.class_names
    )


def predictions(experiment: Experiment, state, part: str, workdir) -> str:
  """Returns the table of what the network makes of a part, as CSV.

  Says how it was made.

  Args:
    experiment: with the part.
    state: of the run.
    part: its name.
    workdir: of the run, for what it keeps.
  """
  known = kept.read(workdir, int(state.step))
  say(f'{known.fitted.how} {known.refusal.how}')
  if known.leaves is None:
    say(
      f'{workdir} keeps no training embeddings of step {int(state.step)}: the '
      'table has no distances.'
    )
  found = outputs(experiment, state, part)
  return kept.table(experiment.data.dataset, part, found, known)


def write_start(experiment: Experiment, state, workdir: paths.Path) -> None:
  """Writes the training views, and what the method draws at step 0."""
  method = experiment.program.method
  of_run.write_start(method, state, experiment.data, workdir)


def write_end(experiment: Experiment, state, workdir: paths.Path) -> None:
  """Writes what is fitted to the images, predictions, pictures and report.

  So that a finished run predicts without them: the embeddings of its training
  images and, from its validation part, the temperature.
  """
  data = experiment.data
  found = {part: outputs(experiment, state, part) for part in data.parts}
  if jax.process_index() == 0:
    kept.write(workdir, data.dataset, found, int(state.step))
  method = experiment.program.method
  of_run.write_end(
    method, state, data, found[data.judge], workdir,
    keys_per_step=method.forwards * experiment.config.batch_size,
  )  # fmt: skip
  single.write(experiment.config, method, state, data, found, workdir)
