"""What grids are made of, and what their points are told by."""

import pytest

from csdnet_jax.config import default
from csdnet_jax.runtime.errors import UserError
from experiments import grid as grid_lib
from experiments.grid import chain, product, seeds, slug, zip_
from experiments.grids import csdnet


def _expand(name, *arguments, n=1):
  grid = csdnet.GRIDS[name]
  return grid_lib.expand(name, grid, arguments, seeds_of_each=n)


def test_combinators():
  a, b = [{'x': 1}, {'x': 2}], [{'y': 3}, {'y': 4}]
  assert list(product(a, b))[1] == {'x': 1, 'y': 4}
  assert list(product(a, [{'x': 9}])) == [{'x': 9}] * 2
  assert list(zip_(a, b)) == [{'x': 1, 'y': 3}, {'x': 2, 'y': 4}]
  assert list(chain(a, b)) == a + b
  assert list(seeds(2)) == [{'seed': 0}, {'seed': 1}]
  with pytest.raises(ValueError, match='longer|shorter'):
    list(zip_(a, b[:1]))


def test_each_seed_draws_its_split_where_it_is_asked():
  root, anew = '--config.data.root=/a/x', '--config.data.resplit=True'
  points = _expand('saliency', root, anew, n=3)
  assert [p.seed for p in points] == [0, 0, 1, 1, 2, 2]
  for point in points:
    assert f'--config.data.split_seed={point.seed}' in point.arguments
    assert point.overrides[-2:] == ('data.split_seed', 'seed')
  assert len({point.hash for point in points}) == 6
  (one, *_) = _expand('saliency', root)
  assert 'data.split_seed' not in one.overrides
  with pytest.raises(UserError, match='a split for each seed; leave it out'):
    _expand('saliency', root, anew, '--config.data.split_seed=3')


def test_names_of_arms_are_joined():
  arms = product([grid_lib.named('a', {'x': 1})], grid_lib.field('m.y', (2, 3)))
  assert [arm[grid_lib.ARM] for arm in arms] == ['a, y 2', 'a, y 3']
  assert not any(grid_lib.ARM in x for x in grid_lib.field('data.name', 'ab'))


def test_a_slug_is_a_file_name():
  assert slug({'a.rate': 1e-4, 'data.name': 'soy/R1'}) == 'rate-0.0001_soy-r1'


def test_the_hash_forgets_paths_and_logging_but_not_the_set():
  def point(*arguments):
    return _expand('baselines', *arguments)[0].hash

  one = point('--config.data.root=/a/grape58')
  assert one == point('--config.data.root=/b/grape58')
  assert one == point('--config.data.root=/a/grape58', '--config.log_every=3')
  assert one != point('--config.data.root=/a/leaf99')
  table = [f'--config.data.table=/{d}/key.csv' for d in 'ab']
  assert point(table[0]) == point(table[1])
  assert point(table[0]) != point('--config.data.table=/a/other.csv')
  assert one != point('--config.data.root=/a/grape58', '--config.optim.lr=0.1')


def test_the_hash_forgets_what_the_run_does_not_read():
  root = '--config.data.root=/a/grape58'
  for unread in ('method.apd.pair=9', 'teacher.width=8', 'crops.blur=0'):
    (one, *_), (other, *_) = (
      _expand('baselines', root, *more)
      for more in ((), (f'--config.{unread}',))
    )
    assert one.hash == other.hash


def test_what_decides_the_images_is_part_of_a_point():
  one, other = default(), default()
  other.data.unreadable = 'skip'
  assert grid_lib.identity(one) != grid_lib.identity(other)
  other.data.unreadable, other.data.cache = 'stop', 'elsewhere'
  assert grid_lib.identity(one) == grid_lib.identity(other)


def test_the_older_word_for_the_same_weights_is_the_same_point():
  one, other = default(), default()
  other.init_from = 'imagenet'
  assert grid_lib.identity(one) == grid_lib.identity(other)
  other.init_from = ''
  assert grid_lib.identity(one) != grid_lib.identity(other)


def test_fields_of_their_own_count_where_they_are_chosen(monkeypatch):
  c = default()
  c.data.source = 'folder'
  c.method.loss = {'weight': 1.0}

  def sections():
    parts = [key.split('.') for key in grid_lib.identity(c)]
    return {tuple(part[:2]) for part in parts if len(part) == 3}

  assert sections() == {('method', 'csdnet')}
  c.data.source = 'leaves'
  assert sections() == {('method', 'csdnet'), ('data', 'leaves')}
  # A method from outside the package.
  c.method.name, c.data.source = 'mine.loss', 'folder'
  monkeypatch.setattr(grid_lib.methods, 'task', lambda _: 'classification')
  assert sections() == {('method', 'loss')}


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    (['--config.optim.lrr=1'], r"no field 'optim.lrr'.*optim.lr"),
    (['--config.optim.lr=big'], '--config'),
    (['--config=configs/none.py'], 'no config file configs/none.py'),
    (['--config.optim.lr=-1'], 'config.optim.lr is -1'),
    (['--config=configs'], 'no config file configs'),
    (['--config=README.md'], 'README.md is no config file'),
    (['--config', 'x.py'], 'Write --config=FILE'),
    (['--config.seed=3'], 'say --seeds=N'),
    (['extra'], "Cannot use the argument 'extra'"),
  ],
)
def test_mistakes_end_in_a_sentence(arguments, words):
  with pytest.raises(UserError, match=words):
    _expand('baselines', *arguments)


def test_a_field_that_makes_arms_the_same_is_refused():
  words = "'CSDNet' and 'CSDNet without SSDT' are the same run"
  with pytest.raises(UserError, match=words):
    _expand('components', '--config.method.csdnet.beta=0')


def test_an_arm_without_a_name_is_called_by_what_it_sets():
  arms = [{}, {'optim.lr': 0.1}, grid_lib.named('short', {'epochs': 1.0})]
  grid = grid_lib.Grid(lambda base: arms)
  points = grid_lib.expand(
    'mine', grid, ['--config.data.root=/a/grape58'], seeds_of_each=1
  )
  assert [p.arm for p in points] == ['baseline', 'lr-0.1', 'short']
  assert {p.baseline for p in points} == {'baseline'}


def test_a_set_is_no_arm():
  sets = grid_lib.field('data.name', ('soy/R1', 'soy/R3'))
  grid = grid_lib.Grid(lambda base: product([{}, {'optim.lr': 0.1}], sets))
  points = grid_lib.expand('mine', grid, seeds_of_each=1)
  assert [p.arm for p in points] == ['baseline', 'baseline', 'lr-0.1', 'lr-0.1']
  assert {p.baseline for p in points} == {'baseline'}


@pytest.mark.parametrize('arms', [lambda base: [], lambda base: None])
def test_a_grid_without_arms_is_refused(arms):
  with pytest.raises(UserError, match='The grid mine has no arms'):
    grid_lib.expand('mine', grid_lib.Grid(arms))


def test_a_module_that_fails_to_import_is_said(tmp_path, monkeypatch):
  (tmp_path / 'my_broken_grid.py').write_text('import no_such_thing\n')
  monkeypatch.syspath_prepend(tmp_path)
  words = 'importing my_broken_grid failed .*no_such_thing.*; mend it'
  with pytest.raises(UserError, match=words):
    grid_lib.find('my_broken_grid:x')


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('csdnet:component', 'no grid .component..*Did you mean "components"'),
    ('nothing:x', 'experiments/grids/nothing.py holds no grids'),
    ('csdnet', 'its grids are'),
    ('collect:x', 'holds no grids'),
  ],
)
def test_an_unknown_grid_is_refused(name, words):
  with pytest.raises(UserError, match=words):
    grid_lib.find(name)
