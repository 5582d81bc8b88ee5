"""Every grid of CSDNet expands, and each of its points can be trained."""

import functools
import itertools

import jax
import jax.numpy as jnp
import pytest

from csdnet_jax import models
from csdnet_jax.training import build as build_module
from csdnet_jax.training.build import build
from csdnet_jax.training.fit import step_of
from csdnet_jax.training.together import grouping
from experiments import grid as grid_lib
from experiments.grids import csdnet

QUESTIONS = (
  'components', 'queue_length', 'margin', 'alpha', 'beta', 'temperature',
  'ssdp_mode', 'redraw', 'saliency', 'kernel', 'hidden_area', 'direction',
  'averaging', 'backbone', 'soy_ageing', 'baselines', 'tuning', 'tuned',
  'batch_size', 'short', 'long', 'ssdp', 'recipe',
)  # fmt: skip
LONG = ('recipe',)  # Of some thirty arms.


def _expand(name, *arguments, n=1):
  grid = csdnet.GRIDS[name]
  return grid_lib.expand(name, grid, arguments, seeds_of_each=n)


@pytest.fixture(scope='module')
def abstract_models():
  """Traces each network once, for all the grids."""
  build = models.build

  @functools.cache
  def shapes(name, classes, size):
    model = build(name, classes=classes, drop_rate=0.0, drop_path=0.0)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), size))

  def cached(name, *, classes, **rest):
    def init(key, size):
      del key
      return jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), shapes(name, classes, size)
      )

    return build(name, classes=classes, **rest)._replace(init=init)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(build_module.models, 'build', cached)
    yield


@pytest.mark.parametrize(
  'name',
  [pytest.param(name, marks=pytest.mark.slow if name in LONG else ())
   for name in QUESTIONS],
)  # fmt: skip
def test_each_point_makes_its_train_state(name, abstract_models):
  for point in _expand(name):
    config = grid_lib.resolve(point.arguments)
    run = build(config, classes=20, n_train=3000, devices=jax.devices()[:1])
    state = jax.eval_shape(run.init)
    assert state.params['head']['kernel'].shape[1] == 20
    assert run.steps > 0


def test_there_is_no_other_grid():
  assert set(csdnet.GRIDS) == set(QUESTIONS)


@pytest.mark.parametrize('name', QUESTIONS)
def test_points_differ_and_the_baseline_is_one_of_them(name):
  points = _expand(name, n=2)
  assert len({p.name for p in points}) == len({p.hash for p in points})
  assert len({p.name for p in points}) == len(points)
  assert points[0].baseline in {p.arm for p in points}
  # A budget that ends early leaves whole seeds.
  assert [p.seed for p in points] == sorted(p.seed for p in points)
  assert all(len(p.name) < 200 and '/' not in p.name for p in points)


def test_components_are_all_eight():
  configs = [grid_lib.resolve(p.arguments) for p in _expand('components')]
  ours = [c.method.csdnet for c in configs if c.method.name == 'csdnet']
  on = {(c.mode != 'none', c.alpha > 0, c.beta > 0) for c in ours}
  assert on == set(itertools.product((False, True), repeat=3))
  assert len(ours) == 8 and len(configs) == 9


def test_what_ships_is_the_baseline_of_what_has_to_beat_it():
  shipped = grid_lib.resolve(['--config=configs/folder.py'])
  for name in ('baselines', 'ssdp', 'recipe'):
    point = _expand(name)[0]
    assert point.arm == point.baseline == 'CSDNet without SSDP'
    config = grid_lib.resolve(point.arguments)
    assert config.to_dict() == shipped.to_dict()


def test_many_arms_of_a_question_share_few_programs():
  def programs(name):
    points = _expand(name)
    configs = [grid_lib.resolve(p.arguments) for p in points]
    groups = grouping.groups(configs, [()] * len(configs))
    return [[points[i].arm for i in group] for group in groups]

  forms = programs('ssdp')
  assert [len(arms) for arms in forms] == [1, 2, 1, 1, 1]
  assert forms[1] == ['CSDNet', 'CSDNet, colour, 2 to 15 %']
  first, *_ = programs('recipe')
  assert len(first) == 14 and 'CSDNet without SSDP, alpha 3' in first


def test_the_recipe_gives_each_rival_the_same_rates():
  arms = {point.arm for point in _expand('recipe')}
  rivals = {arm.partition(', lr ')[0] for arm in arms if ', lr ' in arm}
  assert len(rivals) == 5
  for rival in rivals:
    assert {rival, f'{rival}, lr 0.0003', f'{rival}, lr 0.003'} <= arms


def test_equal_compute_is_as_many_steps_and_images():
  points = _expand('baselines', '--config=configs/folder.py')
  configs = {p.arm: grid_lib.resolve(p.arguments) for p in points}
  twice = configs['cross-entropy, one view, equal compute']
  ours = configs['CSDNet']
  once = configs['cross-entropy, one view, equal epochs']
  assert (ours.epochs, ours.batch_size) == (once.epochs, once.batch_size)
  assert twice.epochs == 2 * ours.epochs
  assert twice.optim.warmup == 2 * ours.optim.warmup
  for n_train in (129, 198):
    assert step_of(twice, twice.epochs, n_train) == step_of(
      ours, ours.epochs, n_train
    )
  assert twice.batch_size == 2 * ours.batch_size
  more = configs['cross-entropy, one view, equal compute, twice the steps']
  assert (more.epochs, more.batch_size) == (twice.epochs, ours.batch_size)


@pytest.mark.parametrize(('name', 'factor'), [('short', 1 / 3), ('long', 3)])
def test_short_and_long_training_keep_their_proportions(name, factor):
  base = grid_lib.resolve(['--config=configs/folder.py'])
  ours, more = (grid_lib.resolve(p.arguments) for p in _expand(name))
  assert (ours.method.name, more.method.name) == ('csdnet', 'supervised')
  assert (ours.epochs, more.epochs) == pytest.approx(
    (factor * base.epochs, 2 * factor * base.epochs)
  )
  assert ours.optim.warmup / ours.epochs == pytest.approx(
    more.optim.warmup / more.epochs
  )


def test_soy_ageing_has_five_stages_of_the_same_arms():
  points = _expand('soy_ageing')
  assert len({p.set for p in points}) == 5 and len(points) == 10
  assert len({p.arm for p in points}) == 2


def test_tuning_is_the_same_for_each_arm_and_never_on_test():
  rates = {}
  for point in _expand('tuning'):
    config = grid_lib.resolve(point.arguments)
    assert config.data.val_fraction == 0.34 and point.part == 'val'
    rates.setdefault(point.arm.partition(', lr ')[0], set()).add(
      config.optim.lr
    )
  assert len(rates) == 6
  assert all(r == {1e-3, 3e-4, 3e-3} for r in map(_rounded, rates.values()))


def _rounded(rates):
  return {round(rate, 9) for rate in rates}
