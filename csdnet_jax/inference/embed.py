"""`csdnet embed`: embeddings, and a page of the nearest training leaves."""

import argparse
import functools
import html
import importlib.resources
import io
import os
import string
from collections.abc import Sequence

import numpy as np

from csdnet_jax.data.batches import spread
from csdnet_jax.data.images import inputs
from csdnet_jax.evaluation import neighbours
from csdnet_jax.inference import command
from csdnet_jax.runtime import commands, paths, writers
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import progress_bar, say

_NEIGHBOURS = 5
# Six thumbnails of 5 kB each in a row: a page stays under 10 MB.
_MOST_ROWS = 200
_SIDE = 144  # Pixels of a thumbnail.


def main(args: argparse.Namespace) -> int:
  """Runs the command; returns its exit status."""
  if bool(args.part) == bool(args.images):
    raise UserError('Say which images: their paths, or --part=test, not both.')
  out = commands.out_path('--out', args.out, '.npz')
  page_path = args.neighbours and commands.out_path(
    '--neighbours', args.neighbours, '.html'
  )
  given, unused = inputs.find(args.images)
  run = command.open_run(args)
  split = run.part(args.part) if args.part else given
  itself, problems = args.part == 'train', []
  # Before anything else is embedded: they may be gone.
  if page_path and not itself:
    train = training_leaves(run, problems)
  rows, vectors = embed(run, split, problems, 'images')
  archive = io.BytesIO()
  np.savez(
    archive,
    path=np.array([split.names[i] for i in rows]),
    label=split.labels[rows],
    vector=vectors,
    class_names=np.array(run.class_names),
  )
  writers.write_bytes(out, archive.getvalue())
  say(f'{len(rows)} vectors of {vectors.shape[1]} figures: {out}')
  if page_path:
    queries = split, rows, vectors
    text = page(run, queries, queries if itself else train, itself=itself)
    writers.write_text(page_path, text)
    say(f'Nearest training leaves: {page_path}')
  return command.report(problems, unused)


def training_leaves(run, problems: list[str]):
  """Returns (split, rows, vectors) of a run's training images, for `page`.

  Args:
    run: a `TrainedRun`, which may keep their vectors.
    problems: gets a sentence for each that cannot be read.

  Raises:
    UserError: if they are not where the run found them.
  """
  train, known = run.part('train'), neighbours.read(run.workdir)
  if known and known.step == run.step:
    return train, list(range(len(train.names))), known.vectors
  return train, *embed(run, train, problems, 'training images')


def embed(run, split, problems: list[str], unit: str):
  """Embeds many pictures.

  Args:
    run: a `TrainedRun`.
    split: n pictures.
    problems: gets a sentence for each that cannot be read.
    unit: what the progress bar counts.

  Returns:
    The m rows of `split` that can be read, and their embeddings [m, C].

  Raises:
    UserError: if none can be read.
  """
  rows, vectors = [], []
  with progress_bar(unit) as progress:
    for read, outputs in run.outputs(split, problems, progress):
      rows += read
      vectors.append(outputs['embedding'])
  return rows, np.concatenate(vectors)


# ------------------------------------------------------------------- the page


def page(run, queries, train, *, itself: bool) -> str:
  """Returns a self-contained HTML page of nearest training leaves.

  Args:
    run: a `TrainedRun`.
    queries: (split, rows, vectors), what `embed` was given and returned.
    train: the same of the training part.
    itself: whether the queries are the training part, of which no image may
      find itself.
  """
  split, rows, vectors = queries
  paths_shown = _without_common_folder(split.names)
  train_split, train_rows, keys = train
  near, cosine = neighbours.nearest(
    vectors, keys, min(_NEIGHBOURS, len(train_rows) - itself),
    leave_out=np.arange(len(rows)) if itself else None,
  )  # fmt: skip
  labels = split.labels[rows]
  found = train_split.labels[np.array(train_rows)[near]]
  shown = spread(len(rows), _MOST_ROWS)
  thumbnail = functools.cache(
    lambda i: inputs.thumbnail(inputs.decoded(train_split, i), _SIDE)
  )

  def neighbour(q, j):
    row, same = train_rows[near[q, j]], found[q, j] == labels[q]
    kind = '' if labels[q] < 0 else 'same' if same else 'other'
    mark = {'': '', 'same': '✓ ', 'other': '✗ '}[kind]
    name = _breakable(run.class_names[found[q, j]])
    return _FIGURE.substitute(
      kind=kind, image=thumbnail(row), path=html.escape(train_split.names[row]),
      name=name, note=f'{mark}cos {cosine[q, j]:.3f}',
    )  # fmt: skip

  def line(q):
    path = paths_shown[rows[q]]
    file = path.rpartition('/')[2]
    known = labels[q] >= 0
    query = _FIGURE.substitute(
      kind='query', path=html.escape(path),
      image=inputs.thumbnail(inputs.decoded(split, rows[q]), _SIDE),
      name=_breakable(run.class_names[labels[q]] if known else file),
      note=_breakable(file) if known else '',
    )  # fmt: skip
    beside = ''.join(neighbour(q, j) for j in range(near.shape[1]))
    return f'<section>{query}<div>{beside}</div></section>'

  facts = [f'Images: {len(rows):,}; training leaves: {len(train_rows):,}.']
  if len(shown) < len(rows):
    facts.append(f'{len(shown)} of them are shown, evenly spread.')
  if np.all(labels >= 0):
    hits = int(np.sum(found[:, 0] == labels))
    facts.append(
      f'The nearest leaf is of the same class for {hits:,} of {len(rows):,} '
      f'({100 * hits / len(rows):.1f} %): ✓ the same class, ✗ another.'
    )
  with progress_bar('rows of the page') as progress:
    lines = []
    for q in shown:
      lines.append(line(q))
      progress(len(lines), len(shown))
  title = f'Nearest training leaves: {paths.absolute(run.workdir).name}'
  template = importlib.resources.files('csdnet_jax.inference').joinpath(
    'templates/neighbours.html'
  )
  return string.Template(template.read_text(encoding='utf-8')).substitute(
    title=html.escape(title),
    facts=' '.join(facts), side=_SIDE, rows='\n'.join(lines),
  )  # fmt: skip


def _without_common_folder(names: Sequence[str]) -> list[str]:
  """Names as a page may tell them: no path of this machine from its root.

  >>> _without_common_folder(['/home/me/a/1.png', '/home/me/b/2.png', 'c.png'])
  ['a/1.png', 'b/2.png', 'c.png']
  """
  folders = [os.path.dirname(name) for name in names if os.path.isabs(name)]
  common = os.path.commonpath(folders) if folders else ''

  def shown(name):
    if not os.path.isabs(name):
      return name
    if common == os.path.dirname(common):
      return os.path.basename(name)  # They share the root alone.
    return os.path.relpath(name, common)

  return list(map(shown, names))


def _breakable(name: str) -> str:
  """Escapes a name and lets its line break after an underscore."""
  return html.escape(name).replace('_', '_<wbr>')


_FIGURE = string.Template(
  '<figure class="$kind"><div><img src="$image" alt="" title="$path"></div>'
  '<figcaption>$name<small>$note</small></figcaption></figure>'
)
