"""Embeddings of images, and a page of their nearest training leaves.

  python -m csdnet_jax.inference.embed --run=DIR --out=emb.npz IMAGES...
  python -m csdnet_jax.inference.embed --run=DIR --out=emb.npz --part=test

IMAGES are files, folders (every picture in them, at any depth) or quoted globs;
--part takes the run's own train, val or test part instead, whose labels are
known. The archive holds `path` [n], `label` [n] int32 (-1 where unknown),
`vector` [n, C] float32 and `class_names`. With --neighbours=FILE.html a page
shows each image beside its nearest training leaves. Images that cannot be read
are listed at the end; the others are done and written, and the exit status
is 1.
"""

import functools
import html
import io
import string

import numpy as np

from csdnet_jax.data.batches import spread
from csdnet_jax.data.images import inputs
from csdnet_jax.evaluation.neighbours import nearest
from csdnet_jax.inference import command
from csdnet_jax.runtime import paths, writers
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import progress_bar, say

_NEIGHBOURS = 5
# Six thumbnails of 5 kB each in a row: a page stays under 10 MB.
_MOST_ROWS = 200
_SIDE = 144  # Pixels of a thumbnail.


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit status."""
  parser = command.parser('embed', __doc__)
  parser.add_argument('--out', required=True, metavar='FILE.npz')
  parser.add_argument('--part', choices=('train', 'val', 'test'))
  parser.add_argument('--neighbours', metavar='FILE.html')
  parser.add_argument('images', nargs='*', metavar='IMAGES')
  args = parser.parse_args(argv)
  if bool(args.part) == bool(args.images):
    raise UserError('Say which images: their paths, or --part=test, not both.')
  out = command.out_path('--out', args.out, '.npz')
  page_path = args.neighbours and command.out_path(
    '--neighbours', args.neighbours, '.html'
  )
  given = inputs.find(args.images)
  run = command.open_run(args.run)
  split = run.part(args.part) if args.part else given
  problems = []
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
    queries = train = split, rows, vectors
    itself = args.part == 'train'
    if not itself:
      leaves = run.part('train')
      train = leaves, *embed(run, leaves, problems, 'training images')
    text = page(run, queries, train, itself=itself)
    writers.write_text(page_path, text)
    say(f'Nearest training leaves: {page_path}')
  return command.report(problems)


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
    for some, outputs in run.outputs(split, problems, progress):
      rows += some
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
  train_split, train_rows, keys = train
  near, cosine = nearest(
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
    path = split.names[rows[q]]
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
  return _PAGE.substitute(
    title=html.escape(title),
    facts=' '.join(facts), side=_SIDE, rows='\n'.join(lines),
  )  # fmt: skip


def _breakable(name: str) -> str:
  """Escapes a name and lets its line break after an underscore."""
  return html.escape(name).replace('_', '_<wbr>')


_FIGURE = string.Template(
  '<figure class="$kind"><div><img src="$image" alt="" title="$path"></div>'
  '<figcaption>$name<small>$note</small></figcaption></figure>'
)

_PAGE = string.Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 2rem auto;
  max-width: 64rem; padding: 0 1rem; color: #222; background: #fff; }
h1 { font-size: 1.4rem; margin: 0; }
p { color: #555; margin: .4rem 0 1.5rem; }
section { display: flex; padding: 1rem 0; border-top: 1px solid #ddd; }
section > div { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; width: ${side}px; }
figure.query { flex: none; margin-right: 3rem; }
figure div { height: ${side}px; display: flex; align-items: center;
  justify-content: center; border-bottom: 3px solid #bbb; }
figure.same div { border-color: #2a7d46; }
figure.other div { border-color: #b4472e; }
figure.query div { border-color: #222; }
img { max-width: 100%; max-height: 100%; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; margin-top: .3rem; }
figure.query figcaption { font-weight: 600; }
small { display: block; color: #666; font-weight: normal; }
</style>
<h1>$title</h1>
<p>$facts</p>
$rows
</html>
""")


if __name__ == '__main__':
  command.start(main)
