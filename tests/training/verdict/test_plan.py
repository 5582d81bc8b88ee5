"""The plan of a verdict: what fits the minutes, kept for the next start."""

import numpy as np
import pytest

from csdnet_jax.data.images import splits
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training.verdict import plan as planning
from csdnet_jax.training.verdict.plan import LEVELS, Level

import images
import runs

CLASSES, EACH = 4, 10
# Images of 160 px a second, forward alone.
FAST, SLOW = 1e5 * 160**2, 60 * 160**2


def _dataset():
  labels = np.repeat(np.arange(CLASSES, dtype=np.int32), EACH)
  names = tuple(f'{c}/{i}.png' for i, c in enumerate(labels))
  train = splits.Split(names, labels, lambda i: b'')
  return splits.Dataset('leaves', tuple('abcd'), train)


def _plan(tmp_path, rate=FAST, minutes=20.0, **fields):
  config, dataset = runs.config(tmp_path, **fields), _dataset()
  folds = np.tile(np.arange(5, dtype=np.int32), len(dataset.train.names) // 5)
  return planning.make(
    config, dataset, (folds, np.arange(len(folds), dtype=np.int32)),
    minutes=minutes, rate=rate, open_levels=LEVELS,
  )  # fmt: skip


def test_a_fast_device_tries_all_at_the_most_thorough_level(tmp_path):
  plan = _plan(tmp_path)
  assert plan.tuned == planning.TUNED and plan.level == LEVELS[0]
  assert plan.left_out == () and sum(plan.seconds.values()) < 20 * 60


def test_lighter_trainings_go_before_fewer_candidates(tmp_path):
  plans = [_plan(tmp_path, SLOW, minutes) for minutes in (1000, 30, 15, 1)]
  assert [plan.tuned for plan in plans] == [
    planning.TUNED, planning.TUNED, planning.TUNED[:1], ()
  ]  # fmt: skip
  assert [plan.level.size for plan in plans] == [224, 128, 128, 224]
  for plan in plans[:-1]:
    assert sum(plan.seconds.values()) <= 60 * plan.minutes
  assert len(plans[-1].left_out) == 2
  assert plans[-1].left_out[0].startswith('CSDNet is left out: with it this')


def test_what_is_left_out_fits_the_minutes_that_are_named(tmp_path):
  (sentence,) = _plan(tmp_path, SLOW, 15).left_out
  minutes = float(sentence.partition('--minutes=')[2].split(' ')[0])
  assert _plan(tmp_path, SLOW, minutes).tuned == planning.TUNED


def test_small_folders_get_steps_and_large_ones_epochs(tmp_path):
  plan = _plan(tmp_path)
  level = plan.level
  assert plan.steps(20) == level.least
  assert plan.steps(300) == round(level.epochs * 300 / plan.batch)
  assert plan.steps(10**6) < 10**4


def test_a_batch_is_no_larger_than_what_a_fold_trains_on(tmp_path):
  assert _plan(tmp_path, batch_size=64).batch == 32


def test_the_size_that_a_user_has_set_stays(tmp_path):
  config, root = runs.config(tmp_path), tmp_path / 'leaves'
  for c, (height, width) in enumerate([(300, 180), (200, 310)]):
    for i in range(3):
      data = images.encode(images.pixels(i, height, width))
      images.write(root / str(c) / f'{i}.png', data)
  dataset = images.load(root, test_fraction=0.0)
  config.model.size = 96
  for given in (['model.size'], ['model.name']):
    assert {x.size for x in planning.levels(config, dataset, given)} == {96}
  assert planning.levels(config, dataset, ['seed']) == list(LEVELS)


def test_small_pictures_are_not_enlarged(tmp_path):
  root = images.class_folders(tmp_path / 'leaves', {'a': 3, 'b': 3})
  for path in root.rglob('*.png'):
    number = int(path.stem) + 10 * (path.parent.name == 'a')
    images.write(path, images.encode(images.pixels(number, 90, 145)))
  dataset = images.load(root, test_fraction=0.0)
  found = planning.levels(runs.config(tmp_path), dataset, [])
  assert [level.size for level in found] == [128, 128, 128]
  assert [level.epochs for level in found] == [30, 30, 20]


def test_the_plan_is_told_with_its_times(tmp_path):
  plan = _plan(tmp_path)
  plan.folds[plan.dataset.train.labels == 2] = -1
  first, *others = planning.describe(plan)
  assert first.startswith('Plan: 5 folds x (frozen features ')
  for word in ('fine-tuning by cross-entropy ', 'CSDNet ', 'final model '):
    assert word in first
  assert others[0].startswith('30 of 40 images are each tested once')
  assert others[1].endswith('belong together: c.')


def test_a_plan_is_kept_whatever_is_said_later(tmp_path):
  plan, path = _plan(tmp_path), tmp_path / 'plan.json'
  assert planning.read(path) is None
  planning.write(path, plan)
  kept = planning.read(path)
  again = planning.again(kept, plan.config, plan.dataset)
  for one, other in zip(again, plan, strict=True):
    if isinstance(one, np.ndarray):
      np.testing.assert_array_equal(one, other)
    elif one is not plan.dataset and one is not plan.config:
      assert one == other
  assert isinstance(again.level, Level)
  planning.require_same(kept, plan.config, 20.0, tmp_path)
  other = plan.config.copy_and_resolve_references()
  other.optim.lr = 0.5
  with pytest.raises(UserError, match='verdict of another config .optim.lr: '):
    planning.require_same(kept, other, 20.0, tmp_path)
  path.write_text('{')
  with pytest.raises(UserError, match='plan.json cannot be read'):
    planning.read(path)
