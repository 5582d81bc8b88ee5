"""The pictures of a run of classification, in its workdir.

At the start: the training views. At the end: what the method makes of a few
test images early and late, the curves, the memory, the mistakes and a map of
the embeddings. It all happens on the first process with its own copy of the
weights, so that no other process is needed, and changes nothing of the run.
"""

import io
from typing import Any, NamedTuple

import jax
import numpy as np

from csdnet_jax import sharding
from csdnet_jax.data.batches import spread
from csdnet_jax.evaluation import accuracy
from csdnet_jax.memory import Memory
from csdnet_jax.pictures import draw, measure
from csdnet_jax.runtime import paths, writers
from csdnet_jax.state import averaged

_LEAVES = 4  # Rows of a contact sheet.
_DRAWS = 3  # Of the random views of each.
_PAIRS = 5  # Most confused ones that are shown.
_POINTS = 400  # Images of the embedding map.


class _Shown(NamedTuple):
  """A run at one of its steps: this process's copy of the averaged weights."""

  method: Any
  weights: Any
  data: Any
  folder: paths.Path
  step: int

  @property
  def judge(self):
    """The images that the run is judged by, in the test view."""
    return self.data.parts[self.data.judge]

  @property
  def class_names(self):
    return self.data.dataset.class_names

  def title(self, what: str) -> str:
    return f'{self.data.dataset.name}: {what}'

  def title_at_step(self, what: str) -> str:
    return f'{self.title(what)}, step {self.step}'


def write_start(method, state, data, workdir: paths.Path) -> None:
  """Writes the training views, and keeps what the method draws at step 0.

  Args:
    method: of the run.
    state: its initial state.
    data: with the data set, `train`, `parts` and `judge`.
    workdir: gets `pictures/`, on the first process.
  """
  if jax.process_index():
    return
  shown = _shown(method, state, data, workdir)
  pictures = _pictures(shown)
  _training_views(shown, pictures)
  early = io.BytesIO()
  np.savez_compressed(early, **_of_judge(shown, pictures))
  writers.write_bytes(shown.folder / 'early.npz', early.getvalue())


def write_end(
  method, state, data, found, workdir: paths.Path, *, keys_per_step: int
) -> None:
  """Writes the other pictures of a run that has taken its last step.

  Args:
    method: of the run.
    state: its last state.
    data: with the data set, `parts` and `judge`.
    found: `logits` and `embedding` of the part that judges, as the network
      makes them.
    workdir: with `metrics.jsonl` and `confusion.csv`, on the first process.
    keys_per_step: pushed into the memory queue, where there is one.
  """
  if jax.process_index():
    return
  shown = _shown(method, state, data, workdir)
  _early_late(shown, _of_judge(shown, _pictures(shown)))
  records = writers.read_records(workdir / 'metrics.jsonl')
  draw.curves(
    shown.folder / 'curves.png', records, title=shown.title('training')
  )
  if isinstance(state.memory, Memory):
    _queue(shown, _local(state.memory), keys_per_step)
  if data.judge != 'train':  # Else nothing was evaluated.
    confusion = accuracy.read_confusion(workdir / 'confusion.csv')
    _mistakes(shown, confusion, found)


def _shown(method, state, data, workdir) -> _Shown:
  folder = workdir / 'pictures'
  folder.mkdir(exist_ok=True)
  weights = _local(averaged(state))
  return _Shown(method, weights, data, folder, int(state.step))


def _pictures(shown: _Shown):
  """Returns `(batch, key) -> {name: images}`.

  The method's pictures, [n, H, W, 3] in [0, 1] each, in its own order; a map is
  laid over the image that it is of.
  """
  headings = []

  @jax.jit
  def compiled(weights, batch, key):
    columns = shown.method.pictures(*weights, batch, key)
    headings[:] = columns  # While traced: jit would sort a dict's keys.
    return list(columns.values())

  def pictures(batch, key):
    drawn = jax.device_get(compiled(shown.weights, batch, key))
    return {
      name: images if images.ndim == 4 else draw.over(batch['image'], images)
      for name, images in zip(headings, drawn, strict=True)
    }

  return pictures


def _training_views(shown: _Shown, pictures):
  """The random views of a few training images, as the network gets them."""
  train, names = shown.data.train, shown.class_names
  rows = spread(len(train.labels), _LEAVES)
  batch = {
    'image': np.asarray(train.images[rows]),
    'extent': train.extents[rows],
    'label': train.labels[rows],
    'id': rows.astype(np.int32),
  }
  cut = zip(batch['image'], batch['extent'], strict=True)
  columns = {'image': [image[:h, :w] / 255.0 for image, (h, w) in cut]}
  views = jax.jit(shown.method.views)
  for i in range(_DRAWS):
    key = jax.random.key(i)
    seen = jax.device_get(views(sharding.row_keys(key, len(rows), None), batch))
    columns[f'view, draw {i + 1}'] = seen['raw']
    # SSDP makes the second view in the loss, with the network's help.
    second = pictures(seen, key).get('augmented view', seen.get('aug'))
    if second is not None:
      columns[f'2nd view, draw {i + 1}'] = second
  draw.contact_sheet(
    shown.folder / 'views.png', columns,
    [names[label] for label in batch['label']],
    title=shown.title_at_step('training views'),
  )  # fmt: skip


def _of_judge(shown: _Shown, pictures) -> dict[str, np.ndarray]:
  """The method's pictures of some held-out images, uint8 [n, H, W, 3]."""
  test = shown.judge
  rows = spread(len(test.labels), _LEAVES)
  images = np.asarray(test.images[rows], np.float32)
  batch = {'image': images, 'label': test.labels[rows]}
  drawn = pictures(batch, jax.random.key(0))
  return {
    heading: np.clip(np.round(255 * images), 0, 255).astype(np.uint8)
    for heading, images in drawn.items()
  }


def _early_late(shown: _Shown, late):
  """What the method makes of a few of these images, before and after."""
  path, step = shown.folder / 'early.npz', shown.step
  if not path.exists():  # Of a version before the pictures.
    return
  with np.load(io.BytesIO(path.read_bytes())) as file:
    early = dict(file)
  columns = {}
  for heading, images in late.items():
    changed = not np.array_equal(early[heading], images)
    if changed:
      columns[f'{heading}\nstep 0'] = early[heading] / 255.0
    columns[f'{heading}\nstep {step}' if changed else heading] = images / 255.0
  if len(columns) == len(late):
    return  # Nothing in them depends on the network.
  names, labels = shown.class_names, shown.judge.labels
  draw.contact_sheet(
    shown.folder / 'early_late.png', columns,
    [names[labels[row]] for row in spread(len(labels), _LEAVES)],
    title=shown.title(f'{shown.data.judge} images, early and late'),
  )  # fmt: skip


def _queue(shown: _Shown, queue: Memory, keys_per_step: int):
  count, size = int(queue.count), len(queue.labels)
  draw.queue(
    shown.folder / 'queue.png',
    np.asarray(queue.labels)[:count],
    np.asarray(queue.ids)[:count],
    measure.key_ages(int(queue.ptr), count, size, keys_per_step),
    len(shown.class_names),
    title=shown.title_at_step('memory queue'),
  )


def _mistakes(shown: _Shown, confusion: np.ndarray, found):
  """The confusion matrix, its worst pairs, and where their embeddings lie."""
  names, test = shown.class_names, shown.judge
  draw.confusion(
    shown.folder / 'confusion.png', confusion, names,
    title=shown.title_at_step(f'{shown.data.judge} images'),
  )  # fmt: skip
  pairs = measure.most_confused(confusion, _PAIRS)
  classes = list(dict.fromkeys(c for p in pairs for c in (p.first, p.second)))
  rows = measure.choose_rows(np.asarray(test.labels), classes, _POINTS)
  labels = test.labels[rows]
  predicted = found['logits'][rows].argmax(axis=1)
  if pairs:
    leaves = [
      [(labels[i], predicted[i], test.images[rows[i]] / 255.0) for i in pair]
      for pair in measure.confused_leaves(pairs, labels, predicted)
    ]
    draw.confused_pairs(
      shown.folder / 'confused.png', pairs, leaves, names,
      title=shown.title_at_step('most confused pairs'),
    )  # fmt: skip
  points = measure.tsne(found['embedding'][rows])
  if points is not None:
    draw.embedding_map(
      shown.folder / 'embedding.png', points, labels, classes, names,
      title=shown.title_at_step(f'{len(rows)} {shown.data.judge} embeddings'),
    )  # fmt: skip


def _local(tree):
  """This process's own copy of what all devices hold."""
  return jax.tree.map(lambda x: x.addressable_data(0), tree)
