"""The pictures of a run: which there are, and that they show what they say."""

import collections
import json
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from csdnet_jax import memory, methods, sharding
from csdnet_jax.data.images import pipeline, splits
from csdnet_jax.evaluation import accuracy
from csdnet_jax.pictures import draw, measure, of_run
from csdnet_jax.state import TrainState
from csdnet_jax.tasks.classification import Data

import tiny

NAMES = tuple(f'cultivar {c}' for c in range(tiny.CLASSES))
ALWAYS = {
  'views.png', 'early.npz', 'curves.png', 'confusion.png', 'confused.png',
  'embedding.png',
}  # fmt: skip


def config(name='csdnet', **fields):
  c = tiny.config(**fields)
  c.method.name = name
  return c


def part(seed, n, side):
  """n random images, classes in turn."""
  rng = np.random.default_rng(seed)
  labels = np.arange(n, dtype=np.int32) % tiny.CLASSES
  return pipeline.Prepared(
    rng.integers(0, 256, (n, side, side, 3), np.uint8),
    np.full((n, 2), side - 3, np.int32),
    labels,
    np.full((n, 2), side, np.int32),
  )


def setup(config, devices=1):
  """A method, a state with keys in its memory, and data."""
  train, test = part(0, 12, tiny.SIZE + 4), part(1, 20, tiny.SIZE)
  dataset = splits.Dataset('leaves', NAMES, None, None, None)
  model = tiny.model()
  method = methods.make(config, model)
  params, model_state = model.init(jax.random.key(0), tiny.SIZE)
  queue = method.init_memory(tiny.WIDTH)
  if queue:
    queue = memory.push(
      queue, jnp.ones((16, tiny.WIDTH)), jnp.arange(16) % 3, jnp.arange(16) // 2
    )
  step = jnp.zeros((), jnp.int32)
  state = TrainState(step, params, model_state, (), queue, ())
  state = sharding.replicate(state, sharding.make_mesh(jax.devices()[:devices]))
  return method, state, Data(dataset, train, {'test': test})


def trained(state):
  """The state as if it had learnt something."""
  params = jax.tree.map(lambda x: x + 0.3 * jnp.sin(9.0 * x), state.params)
  return state.replace(step=state.step + 7, params=params)


def finish(workdir, method, state, data):
  """Writes what a run leaves behind, and its last pictures."""
  matrix = np.full((tiny.CLASSES, tiny.CLASSES), 1) - np.eye(5, dtype=int)
  accuracy.write_confusion(workdir / 'confusion.csv', matrix, NAMES)
  records = [
    {'step': 7, 'kind': 'train', 'loss': 2.0, 'ce': 1.0, 'train_top1': 50.0},
    {'step': 7, 'kind': 'test', 'loss': 2.0, 'top1': 9, 'mean_per_class': 8.0},
  ]
  lines = ''.join(json.dumps(r) + '\n' for r in records)
  (workdir / 'metrics.jsonl').write_text(lines)
  rng = np.random.default_rng(0)
  n = len(data.parts['test'].labels)
  found = {
    'logits': rng.normal(size=(n, tiny.CLASSES)),
    'embedding': rng.normal(size=(n, 8)),
  }
  of_run.write_end(method, state, data, found, workdir, keys_per_step=16)


def check_png(path):
  assert path.stat().st_size < 400_000
  with Image.open(path) as image:
    assert image.format == 'PNG'
    assert min(image.size) > 250 and max(image.size) < 2000
    assert len(np.unique(np.asarray(image.convert('L')))) > 5


@pytest.mark.parametrize(
  ('config', 'devices', 'more'),
  [
    (config(), 1, {'early_late.png', 'queue.png'}),
    (config(mode='erase'), 4, {'early_late.png', 'queue.png'}),
    (config(queue=0, mode='views'), 1, set()),
    (config('supervised'), 1, set()),
    (config('supcon'), 4, set()),
  ],
)
def test_a_run_leaves_its_pictures_and_is_not_changed(
  config, devices, more, tmp_path
):
  method, state, data = setup(config, devices)
  of_run.write_start(method, state, data, tmp_path)
  check_png(tmp_path / 'pictures' / 'views.png')
  state = trained(state)
  before = jax.device_get(state)
  finish(tmp_path, method, state, data)
  chex.assert_trees_all_equal(jax.device_get(state), before)
  written = set((tmp_path / 'pictures').iterdir())
  assert {path.name for path in written} == ALWAYS | more
  for path in written - {tmp_path / 'pictures' / 'early.npz'}:
    check_png(path)


def test_a_real_run_has_them(trained):
  names = {path.name for path in (trained / 'pictures').iterdir()}
  assert names >= {'views.png', 'early_late.png', 'curves.png', 'queue.png'}
  report = (trained / 'report.html').read_text()
  assert 'leaves right that it had not' in report and 'Model card' in report
  assert str(trained) not in report and str(pathlib.Path.home()) not in report


def test_only_the_first_process_draws(tmp_path, monkeypatch):
  method, state, data = setup(config())
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  of_run.write_start(method, state, data, tmp_path)
  of_run.write_end(method, state, data, {}, tmp_path, keys_per_step=16)
  assert not list(tmp_path.iterdir())


@pytest.fixture
def sheets(monkeypatch):
  """What goes onto the contact sheets, by file name."""
  found = {}

  def contact_sheet(path, columns, names, *, title):
    found[path.name] = columns, names, title

  monkeypatch.setattr(draw, 'contact_sheet', contact_sheet)
  return found


def test_the_training_views_are_those_of_a_step(tmp_path, sheets):
  method, state, data = setup(config())
  of_run.write_start(method, state, data, tmp_path)
  columns, names, _ = sheets['views.png']
  assert list(columns) == [
    'image', 'view, draw 1', '2nd view, draw 1', 'view, draw 2',
    '2nd view, draw 2', 'view, draw 3', '2nd view, draw 3',
  ]  # fmt: skip
  rows = [0, 3, 7, 11]
  assert names == [NAMES[row % tiny.CLASSES] for row in rows]
  # Of the canvas only the part that an image covers.
  assert [x.shape for x in columns['image']] == [(17, 17, 3)] * 4
  batch = {
    'image': data.train.images[rows], 'extent': data.train.extents[rows],
  }  # fmt: skip
  keys = sharding.row_keys(jax.random.key(1), 4, None)
  drawn = method.views(keys, batch)
  np.testing.assert_allclose(columns['view, draw 2'], drawn['raw'], atol=1e-5)
  # Each pixel of the second is that of its draw, or dimmed towards the mean.
  second = columns['2nd view, draw 2']
  kept = np.isclose(drawn['aug'], second, atol=1e-5).all(-1).mean((1, 2))
  assert (kept > 0.5).all() and (kept < 0.9).all()


def test_one_view_is_shown_alone(tmp_path, sheets):
  of_run.write_start(*setup(config('supervised')), tmp_path)
  columns, _, _ = sheets['views.png']
  assert [name for name in columns if '2nd' in name] == []
  of_run.write_start(*setup(config('supcon')), tmp_path)
  columns, _, _ = sheets['views.png']
  assert '2nd view, draw 3' in columns


def test_early_and_late_stand_side_by_side(tmp_path, sheets):
  method, state, data = setup(config())
  of_run.write_start(method, state, data, tmp_path)
  finish(tmp_path, method, trained(state), data)
  columns, names, _ = sheets['early_late.png']
  maps = 'SSDP map', 'mask', 'augmented view'
  steps = [f'{name}\nstep {step}' for name in maps for step in (0, 7)]
  assert list(columns) == ['raw view', *steps]
  np.testing.assert_array_equal(
    columns['raw view'], data.parts['test'].images[[0, 6, 12, 19]] / 255.0
  )
  assert names == [NAMES[row % tiny.CLASSES] for row in (0, 6, 12, 19)]


def test_a_workdir_without_the_early_ones_gets_the_others(tmp_path):
  method, state, data = setup(config())
  finish(tmp_path, method, trained(state), data)
  names = {path.name for path in (tmp_path / 'pictures').iterdir()}
  assert names == ALWAYS - {'views.png', 'early.npz'} | {'queue.png'}


# ------------------------------------------------------------------- measures


@pytest.mark.parametrize('per_step', [1, 3, 4, 10])
@pytest.mark.parametrize('steps', [1, 2, 3, 7, 12])
def test_ages_are_those_of_a_deque(per_step, steps):
  size = 10
  queue, expected = memory.init(size, 1), collections.deque(maxlen=size)
  for step in range(steps):
    # Labels say at which step a key came.
    queue = memory.push(
      queue,
      jnp.zeros((per_step, 1)),
      jnp.full(per_step, step),
      jnp.zeros(per_step, int),
    )
    expected.extend([step] * per_step)
  count = int(queue.count)
  ages = measure.key_ages(int(queue.ptr), count, size, per_step)
  assert sorted(ages) == sorted(steps - 1 - step for step in expected)
  np.testing.assert_array_equal(ages, steps - 1 - queue.labels[:count])


def test_the_most_confused_pairs_are_those_with_most_mistakes():
  matrix = np.random.default_rng(0).integers(0, 4, (9, 9))
  matrix[2, 5] = 9
  counts = {
    (i, j): matrix[i, j] + matrix[j, i] for i in range(9) for j in range(i)
  }
  pairs = measure.most_confused(matrix, 6)
  assert pairs[0].first == 2 and pairs[0].second == 5
  assert [p.there + p.back for p in pairs] == sorted(counts.values())[:-7:-1]
  for p in pairs:
    assert (p.there, p.back) == (
      matrix[p.first, p.second], matrix[p.second, p.first]
    )  # fmt: skip
    assert p.there >= p.back
  assert len({frozenset(p[:2]) for p in pairs}) == 6


def test_without_mistakes_there_are_no_pairs():
  assert measure.most_confused(7 * np.eye(4, dtype=int), 5) == []


def test_mistaken_leaves_stand_beside_each_other():
  labels = np.array([0, 0, 0, 1, 1, 2])
  predicted = np.array([0, 2, 1, 1, 0, 2])
  pairs = [measure.Pair(0, 1, 1, 1), measure.Pair(2, 1, 1, 0)]
  assert measure.confused_leaves(pairs, labels, predicted) == [
    [2, 0, 4, 3], [5, 3, 4],
  ]  # fmt: skip


@pytest.mark.parametrize('n', [10, 60, 99, 100, 300])
def test_rows_of_the_classes_that_matter_come_first(n):
  labels = np.arange(100) % 20
  rows = measure.choose_rows(labels, [3, 4], n)
  assert len(rows) == len(set(rows.tolist())) == min(n, 100)
  np.testing.assert_array_equal(rows, np.sort(rows))
  assert np.isin(labels[rows], [3, 4]).sum() == min(10, max(n // 2, n - 90))


def test_the_map_keeps_neighbours_and_repeats():
  rng = np.random.default_rng(0)
  labels = np.repeat(np.arange(4), 8)
  x = 5 * np.eye(4, 16)[labels] + rng.normal(size=(32, 16))
  points = measure.tsne(x)
  assert points.shape == (32, 2)
  distance = np.linalg.norm(points[:, None] - points, axis=-1)
  np.fill_diagonal(distance, np.inf)
  assert (labels[distance.argmin(1)] == labels).mean() > 0.9
  np.testing.assert_array_equal(points, measure.tsne(x))


def test_there_is_no_map_of_one_place():
  assert measure.tsne(np.ones((30, 4))) is None
  assert measure.tsne(np.eye(4)) is None
  assert measure.tsne(np.eye(5)).shape == (5, 2)


def test_a_confusion_matrix_is_read_as_written(tmp_path):
  matrix = np.arange(9).reshape(3, 3)
  names = ('a,b', 'c "d"', 'e\nf')
  accuracy.write_confusion(tmp_path / 'c.csv', matrix, names)
  read = accuracy.read_confusion(tmp_path / 'c.csv')
  np.testing.assert_array_equal(read, matrix)


# ------------------------------------------------------------------- drawings


@pytest.fixture
def figures(monkeypatch):
  """The figures that are saved, by name; they are written as well."""
  found, save = {}, draw._save

  def spy(figure, path):
    found[path.stem] = figure
    save(figure, path)

  monkeypatch.setattr(draw, '_save', spy)
  return found


def test_curves_show_every_term_and_accuracy(tmp_path, figures):
  terms = {'ce': 1.0, 'ddl': 2.0, 'loss': 3.0}
  train = {'kind': 'train', 'train_top1': 9.0, 'grad_norm': 7.0}
  test = {'loss': 1.0, 'top1': 30.0, 'mean_per_class': 20.0, 'top5': 1.0}
  records = [{'step': s} | train | terms for s in (2, 4, 6)]
  records += [{'step': 6, 'kind': kind} | test for kind in ('test', 'val')]
  draw.curves(tmp_path / 'c.png', records, title='leaves')
  left, right = figures['c'].axes
  lines = {line.get_label(): line for line in left.lines + right.lines}
  assert [line.get_label() for line in left.lines] == [
    'loss', 'ce', 'ddl', 'test_loss', 'val_loss'
  ]  # fmt: skip
  assert {line.get_label() for line in right.lines} == {
    'train_top1', 'test_top1', 'test_mean_per_class', 'val_top1',
    'val_mean_per_class',
  }  # fmt: skip
  assert lines['ddl'].get_xydata().tolist() == [[2, 2], [4, 2], [6, 2]]
  # Readable in grey: no two lines share both dashes and marker.
  for axes in (left, right):
    kinds = {(x.get_linestyle(), x.get_marker()) for x in axes.lines}
    assert len(kinds) == len(axes.lines)
    assert axes.get_xlabel() == 'step' and axes.get_ylabel()


def test_curves_of_an_empty_log_are_no_error(tmp_path):
  draw.curves(tmp_path / 'c.png', [], title='leaves')
  check_png(tmp_path / 'c.png')


def test_the_queue_shows_coverage_and_ages(tmp_path, figures):
  labels, ids = np.array([0, 0, 0, 0, 2, 2, 3]), np.array([5, 5, 6, 6, 7, 7, 8])
  ages = np.array([0, 0, 0, 1, 1, 1, 2])
  draw.queue(tmp_path / 'q.png', labels, ids, ages, 5, title='leaves')
  left, right = figures['q'].axes
  assert [bar.get_height() for bar in left.patches] == [2, 1, 1, 0, 1]
  assert [bar.get_height() for bar in right.patches] == [3, 3, 1]
  assert left.get_title().startswith('3, 2, 1 of 5 classes')
  assert right.get_title() == '7 keys of 4 images'


def test_an_empty_queue_is_no_error(tmp_path):
  none = np.zeros(0, int)
  draw.queue(tmp_path / 'q.png', none, none, none, 3, title='leaves')
  check_png(tmp_path / 'q.png')


@pytest.mark.parametrize('classes', [1, 12, 40, 300])
def test_the_confusion_matrix_shows_every_cell(classes, tmp_path, figures):
  rng = np.random.default_rng(0)
  matrix = np.diag(rng.integers(0, 3, classes))
  matrix[0, -1] += 4
  names = [f'class {c}' for c in range(classes)]
  draw.confusion(tmp_path / 'c.png', matrix, names, title='leaves')
  axes = figures['c'].axes[0]
  (cells,) = axes.collections
  where = cells.get_offsets()[:, ::-1].astype(int)
  assert sorted(map(tuple, where)) == sorted(
    zip(*np.nonzero(matrix), strict=True)
  )
  share = matrix[tuple(where.T)] / matrix.sum(1)[where[:, 0]]
  np.testing.assert_allclose(cells.get_array(), share)
  if classes <= 24:
    counts = [int(text.get_text()) for text in axes.texts]
    assert sum(counts) == matrix.sum()
  if classes <= 40:
    assert [t.get_text() for t in axes.get_yticklabels()] == names
  check_png(tmp_path / 'c.png')


def test_the_map_marks_the_classes_in_question(tmp_path, figures):
  points = np.random.default_rng(0).normal(size=(20, 2))
  labels = np.arange(20) % tiny.CLASSES
  draw.embedding_map(
    tmp_path / 'm.png', points, labels, [3, 1], NAMES, title='leaves'
  )
  (axes,) = figures['m'].axes
  shown = {dots.get_label(): dots for dots in axes.collections}
  assert list(shown) == ['other classes', 'cultivar 3', 'cultivar 1']
  np.testing.assert_allclose(
    shown['cultivar 3'].get_offsets(), points[labels == 3]
  )
  assert len(shown['other classes'].get_offsets()) == 12
  check_png(tmp_path / 'm.png')


def test_pairs_are_named_and_counted(tmp_path, figures):
  image = np.zeros((8, 8, 3))
  leaves = [[(0, 1, image), (0, 0, image), (1, 1, image)], [(2, 0, image)]]
  pairs = [measure.Pair(0, 1, 2, 1), measure.Pair(2, 0, 1, 0)]
  draw.confused_pairs(tmp_path / 'p.png', pairs, leaves, NAMES, title='leaves')
  axes = figures['p'].axes
  assert [a.get_title() for a in axes if a.images] == [
    'cultivar 0\ntaken for\ncultivar 1', 'cultivar 0\nright',
    'cultivar 1\nright', 'cultivar 2\ntaken for\ncultivar 0',
  ]  # fmt: skip
  assert [a.get_ylabel() for a in axes if a.get_ylabel()] == [
    'mistaken 2 →, 1 ←', 'mistaken 1 →, 0 ←'
  ]  # fmt: skip


def test_names_are_text_and_no_formulas(tmp_path):
  """Whatever people call their classes, in any script and length."""
  names = ['$5', r'a$\frac$b', '葡萄', 'x' * 90]
  path, title = tmp_path / 'sheet.png', r'leaves $\x$ {'
  columns = {name: np.zeros((4, 8, 8, 3)) for name in ('raw', *names)}
  draw.contact_sheet(path, columns, names, title=title)
  check_png(path)
  matrix = np.arange(16).reshape(4, 4)
  draw.confusion(path, matrix, names, title=title)
  points, labels = np.random.default_rng(0).normal(size=(4, 2)), np.arange(4)
  draw.embedding_map(path, points, labels, [0, 1, 2, 3], names, title=title)
  pairs = measure.most_confused(matrix, 5)
  leaves = [[(p.first, p.second, np.zeros((8, 8, 3)))] for p in pairs]
  draw.confused_pairs(path, pairs, leaves, names, title=title)
  check_png(path)


def test_photographs_do_not_make_a_file_large(tmp_path):
  image = np.random.default_rng(0).uniform(size=(48, 48, 3))
  noise = np.kron(image, np.ones((4, 4, 1)))
  noise += 0.2 * np.random.default_rng(1).normal(size=noise.shape)
  columns = {str(i): [noise] * 4 for i in range(7)}
  path = tmp_path / 'sheet.png'
  draw.contact_sheet(path, columns, 'abcd', title='noise')
  check_png(path)
