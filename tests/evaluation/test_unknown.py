"""None of these: the score, whom its threshold refuses, and how often."""

import fractions
import json
import math

import numpy as np
import pytest
from sklearn import metrics

from csdnet_jax.evaluation import neighbours, unknown
from csdnet_jax.runtime.errors import UserError


def _leaves(vectors):
  vectors = np.array(vectors, np.float32)
  names = tuple(map(str, range(len(vectors))))
  return neighbours.Embeddings(names, np.zeros(len(names)), vectors, 7)


def _outputs(vectors):
  vectors = np.array(vectors, np.float32)
  return {'logits': np.zeros((len(vectors), 2)), 'embedding': vectors}


# ------------------------------------------------------------------- the score


def test_the_score_is_the_cosine_distance_to_the_nearest_leaf():
  rng = np.random.default_rng(0)
  x, keys = rng.normal(size=(7, 5)), rng.normal(size=(9, 5))
  found = unknown.score(_outputs(x), _leaves(keys))
  for vector, score in zip(x, found, strict=True):
    expected = min(
      1 - vector @ key / (np.linalg.norm(vector) * np.linalg.norm(key))
      for key in keys
    )
    assert score == pytest.approx(expected, abs=1e-6)


def test_the_score_knows_no_length_and_a_leaf_itself_is_at_nothing():
  keys = np.random.default_rng(1).normal(size=(6, 4))
  np.testing.assert_allclose(
    unknown.score(_outputs(37 * keys), _leaves(keys)), 0, atol=1e-6
  )
  found = unknown.score(_outputs([[0, 0], [-1, 0]]), _leaves([[1, 0]]))
  np.testing.assert_allclose(found, [1, 2])


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('name', ['logits', 'embedding'])
def test_what_is_not_finite_is_like_nothing_known(name, value):
  outputs = _outputs([[1, 0], [1, 0]])
  outputs[name][1, 0] = value
  found = unknown.score(outputs, _leaves([[1, 0]]))
  assert found.tolist() == [0.0, np.inf]


# --------------------------------------------------------------- the threshold


@pytest.mark.parametrize(
  ('n', 'expected'), [(0, None), (39, None), (40, 39), (99, 95), (100, 96)]
)
def test_the_rank_by_hand(n, expected):
  scores = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
  assert unknown.threshold(scores) == expected


@pytest.mark.parametrize('level', ['0.01', '0.05', '0.1', '0.3'])
def test_the_rank_is_exact_for_every_number_of_leaves(level):
  exact = fractions.Fraction(level)
  for n in range(40, 2000):
    rank = math.ceil((n + 1) * (1 - exact))
    found = unknown.threshold(np.arange(1, n + 1), float(level))
    assert found == (rank if rank <= n else None)


@pytest.mark.parametrize(('n', 'share'), [(40, 2 / 41), (99, 5 / 100)])
def test_a_known_leaf_is_refused_at_most_5_percent_of_the_time(n, share):
  rng = np.random.default_rng(n)
  refused = []
  for _ in range(4000):
    # Whatever the distribution: here a skewed one.
    scores = rng.exponential(size=n + 1)
    refused.append(scores[n] > unknown.threshold(scores[:n]))
  error = math.sqrt(share * (1 - share) / 4000)
  assert abs(np.mean(refused) - share) < 4 * error
  assert share <= 0.05


def test_equal_scores_refuse_no_leaf_that_has_them():
  made = unknown.fit(np.ones(60), step=1)
  assert made.threshold == 1
  scores = np.array([0, 1, 1.0000001, np.inf, np.nan])
  found = unknown.refused(scores, made)
  assert found.tolist() == [False, False, True, True, True]


def test_scores_that_are_no_numbers_are_the_highest():
  scores = np.arange(99.0)
  scores[:4] = np.nan, np.inf, np.nan, np.nan
  assert unknown.threshold(scores) == scores[98]
  # A fifth, and nothing could be refused.
  scores[4] = np.nan
  assert unknown.threshold(scores) is None
  made = unknown.fit(scores, step=1)
  assert 'not finite' in made.how and '99 held-out' in made.how


# ------------------------------------------------------------------- the AUROC


def test_the_auroc_is_the_share_of_pairs_with_ties_half():
  rng = np.random.default_rng(0)
  known, other = rng.integers(0, 6, 30) / 5, rng.integers(2, 9, 20) / 5
  pairs = [(b > a) + (b == a) / 2 for a in known for b in other]
  found = unknown.auroc(known, other)
  assert found == pytest.approx(np.mean(pairs))
  truth = np.repeat([0, 1], [30, 20])
  assert found == pytest.approx(
    metrics.roc_auc_score(truth, np.concatenate([known, other]))
  )
  assert unknown.auroc(other, known) == pytest.approx(1 - found)
  assert unknown.auroc(np.exp(known), np.exp(other)) == found
  assert unknown.auroc(known, known) == 0.5


def test_no_number_is_as_high_as_can_be():
  assert unknown.auroc(np.array([1.0]), np.array([np.nan, 0])) == 0.5
  assert unknown.auroc(np.array([np.inf]), np.array([np.nan])) == 0.5


# ---------------------------------------------------------------- what is kept


def test_the_sentence_says_how_many_leaves_it_is_from():
  scores = np.arange(99) / 100
  made = unknown.fit(scores, step=4)
  assert (made.n, made.step, made.threshold) == (99, 4, 0.94)
  assert '0.9400' in made.how and '99 held-out leaves' in made.how
  assert 'at most 5 %' in made.how and 'was not measured' in made.how
  left = {'auroc': 0.663, 'refused': 0.104, 'refused_known': 0.03, 'classes': 2}
  told = unknown.fit(scores, step=4, left_out=left)
  assert (told.auroc, told.refused, told.refused_known) == (0.663, 0.104, 0.03)
  assert (
    'AUROC 0.66 (0.50 is chance); 10 % of them were refused, and 3 % of the '
    'others.'
  ) in told.how
  assert 'not measured' not in told.how
  left = {'auroc': 0.6, 'refused': None, 'refused_known': None}
  few = unknown.fit(scores[:39], step=4, left_out=left)
  assert (few.threshold, few.n, few.auroc) == (None, 39, 0.6)
  assert 'AUROC 0.60 (0.50 is chance).' in few.how
  assert '39 held-out leaves' in few.how and '40 are needed' in few.how
  assert unknown.refused(scores, few) is None
  why = unknown.none('without a validation part', 4)
  assert 'without a validation part (0 held-out leaves' in why.how


@pytest.mark.parametrize('n', [12, 99])
def test_it_is_kept_and_read_again(tmp_path, n):
  assert unknown.read(tmp_path) is None
  left = {'auroc': 0.7, 'refused': 0.2, 'refused_known': 0.1}
  made = unknown.fit(np.arange(n) / n, step=4, left_out=left)
  unknown.write(tmp_path, made)
  assert unknown.read(tmp_path) == made
  kept = json.loads((tmp_path / 'unknown.json').read_text())
  assert kept['score'] == 'nearest' and (kept['threshold'] is None) == (n < 40)


@pytest.mark.parametrize(
  ('changed', 'words'),
  [
    ({'threshold': 'high'}, 'real number'),
    ({'threshold': math.nan}, 'threshold is nan'),
    ({'threshold': math.inf}, 'threshold is inf'),
    ({'score': 'energy'}, "score is 'energy', not 'nearest'"),
    ({'treshold': 1.0}, 'treshold'),
  ],
)
def test_a_file_of_another_kind_is_said(tmp_path, changed, words):
  made = unknown.fit(np.arange(99.0), step=4)._asdict()
  (tmp_path / 'unknown.json').write_text(json.dumps(made | changed))
  with pytest.raises(UserError, match=rf'unknown\.json .*{words}.*remove it'):
    unknown.read(tmp_path)


@pytest.mark.parametrize(
  'text', ['', '{', '[]', 'null', '{"score": "nearest"}']
)
def test_a_damaged_file_is_said(tmp_path, text):
  (tmp_path / 'unknown.json').write_text(text)
  with pytest.raises(UserError, match='cannot be read .*remove it'):
    unknown.read(tmp_path)
