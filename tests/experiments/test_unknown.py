"""The four scores that were measured, and how the package's was chosen."""

import json
import pathlib

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from csdnet_jax.evaluation import unknown as package
from experiments import unknown


@pytest.fixture(scope='module')
def given():
  rng = np.random.default_rng(0)
  labels = np.repeat([0, 1, 2], 5)
  known = unknown.Known(rng.normal(size=(15, 6)) + labels[:, None], labels)
  logits = rng.normal(size=(8, 3))
  return {'logits': logits, 'embedding': rng.normal(size=(8, 6))}, known


def test_the_scores_of_logits_by_their_formulas(given):
  exp = np.exp(given[0]['logits'])
  found = unknown.max_probability(*given)
  np.testing.assert_allclose(found, 1 - (exp.T / exp.sum(1)).max(0))
  np.testing.assert_allclose(unknown.energy(*given), -np.log(exp.sum(1)))


def test_mahalanobis_by_its_formula(given):
  outputs, (x, y) = given
  means = [x[y == c].mean(0) for c in range(3)]
  rest = np.concatenate([x[y == c] - means[c] for c in range(3)])
  inverse = np.linalg.inv(
    LedoitWolf(assume_centered=True).fit(rest).covariance_
  )
  expected = [
    min((v - m) @ inverse @ (v - m) for m in means)
    for v in outputs['embedding']
  ]
  np.testing.assert_allclose(unknown.mahalanobis(*given), expected)


def test_nearest_is_nothing_at_a_training_image(given):
  outputs = {'embedding': 3 * given[1].vectors[:4]}
  found = unknown.nearest(outputs, given[1])
  np.testing.assert_allclose(found, 0, atol=1e-12)


def test_folds_cut_no_group_and_hold_out_no_class_that_they_do_not_train_on():
  rng = np.random.default_rng(3)
  groups = np.repeat(np.arange(40), rng.integers(1, 4, 40))
  labels = groups % 11
  seen = []
  for train, held in unknown.folds_of(labels, groups, 5, 0):
    assert not set(groups[train]) & set(groups[held])
    assert set(labels[held]) <= set(labels[train])
    seen += held.tolist()
  assert len(set(seen)) == len(seen)


def test_a_fifth_of_the_classes_is_left_out_and_another_by_another_seed():
  draws = [unknown.left_out(58, seed) for seed in (0, 0, 1)]
  assert [len(set(draw.tolist())) for draw in draws] == [11] * 3
  assert draws[0].tolist() == draws[1].tolist() != draws[2].tolist()


def test_a_fold_is_judged_by_the_threshold_of_the_others():
  low = unknown.Scored(np.arange(1.0, 100), np.array([90.0, 96]))
  high = unknown.Scored(np.arange(2.0, 101), np.array([97.0, 1]))
  # Above 96, of which the known of the first have 3; and above 95, 5.
  assert unknown.shares([low, high]) == (100 * 8 / 198, 100 * 1 / 4)
  few = unknown.Scored(np.arange(39.0), np.array([5.0]))
  assert unknown.shares([low, few]) == (None, None)


def test_the_choice_weighs_trained_and_frozen_features_alike():
  def line(score, features, auroc, **changed):
    return {'set': 'grape58', 'score': score, 'features': features,
            'auroc': auroc} | changed  # fmt: skip

  lines = [
    line(s, x, 0.5) for s in unknown.SCORES for x in ('frozen', 'trained')
  ]
  lines += [line('energy', 'frozen', 0.7)] * 9
  lines += [line('nearest', 'trained', 0.9)]
  lines += [line('max_probability', 'frozen', 1.0, set='leaf99')] * 50
  found = unknown.choose(lines)
  assert list(found)[0] == 'nearest' and found['nearest'] == pytest.approx(0.6)
  assert found['energy'] == pytest.approx((0.68 + 0.5) / 2)
  assert found['max_probability'] == 0.5


def test_the_table_has_a_row_for_each_set_and_score():
  given = {'set': 'a', 'score': 'energy', 'features': 'frozen', 'head': 'probe'}
  shares = {'refused_known': 5.0, 'refused_unknown': 9.04}
  none = dict.fromkeys(shares)
  rows = unknown.table([
    given | {'auroc': 0.6} | shares, given | {'auroc': 0.7} | shares,
    given | {'features': 'trained', 'auroc': 0.5} | none,
    given | {'set': 'b', 'auroc': 1.0} | shares,
  ]).splitlines()  # fmt: skip
  assert rows == [
    '| set | score | frozen, probe | trained |',
    '| --- | --- | --- | --- |',
    '| a | energy | 0.650 ± 0.071 (2)<br>5.0, 9.0 | 0.500 (1) |',
    '| b | energy | 1.000 (1)<br>5.0, 9.0 |  |',
  ]


def test_the_committed_lines_make_the_table_and_the_choice():
  lines = json.loads(unknown.RESULTS.read_text())
  page = pathlib.Path(__file__).parents[2] / 'docs' / 'evidence.md'
  assert unknown.table(lines) in page.read_text()
  best, *_ = unknown.choose(lines)
  assert best == package.SCORE
