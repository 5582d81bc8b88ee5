"""Nearest neighbours by cosine, against a slow loop."""

import numpy as np
import pytest

from csdnet_jax.evaluation import neighbours
from csdnet_jax.runtime.errors import UserError


@pytest.mark.parametrize('part', [1, 7, 1000])
def test_nearest_is_brute_force(part, monkeypatch):
  monkeypatch.setattr(neighbours, '_ROWS', part)
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(20, 8)), rng.normal(size=(15, 8))
  rows, cosine = neighbours.nearest(x, y, 4)
  for i in range(20):
    c = [x[i] @ k / np.linalg.norm(x[i]) / np.linalg.norm(k) for k in y]
    best = sorted(range(15), key=lambda j: -c[j])[:4]
    assert rows[i].tolist() == best
    np.testing.assert_allclose(cosine[i], np.array(c)[best])


@pytest.mark.parametrize('part', [2, 1000])
def test_an_image_does_not_find_itself(part, monkeypatch):
  monkeypatch.setattr(neighbours, '_ROWS', part)
  x = np.random.default_rng(0).normal(size=(6, 3))
  rows, _ = neighbours.nearest(x, x, 5, leave_out=np.arange(6))
  for i, row in enumerate(rows):
    assert set(row) == set(range(6)) - {i}


def test_of_equal_ones_the_earlier_is_first_and_zero_is_no_nan():
  rows, cosine = neighbours.nearest(np.zeros((1, 2)), np.ones((3, 2)), 3)
  assert rows.tolist() == [[0, 1, 2]]
  assert cosine.tolist() == [[0, 0, 0]]
  rows, _ = neighbours.nearest(np.zeros((0, 2)), np.ones((3, 2)), 3)
  assert rows.shape == (0, 3)


def test_of_many_equal_keys_the_earlier_come_first():
  """Where a partial sort would pick any of them."""
  keys = np.tile([[0.0, 5.0], [3.0, 4.0], [4.0, 3.0], [5.0, 0.0]], (10, 1))
  found, _ = neighbours.nearest(keys[:4], keys, 25)
  for i, rows in enumerate(found):
    # Ten of its own direction, ten of that beside it, and half of the next.
    order = sorted(range(40), key=lambda j: -(keys[i] @ keys[j]))
    assert rows.tolist() == order[:25]


def test_embeddings_are_kept_and_read_again(tmp_path):
  assert neighbours.read(tmp_path) is None
  made = neighbours.Embeddings(
    ('a/é.png', 'b "x",\ny.png'), np.array([0, 1], np.int32),
    np.array([[1.5, 2], [3, 4]], np.float32), 7,
  )  # fmt: skip
  neighbours.write(tmp_path, made)
  again = neighbours.read(tmp_path)
  assert (again.names, again.step) == (made.names, 7)
  np.testing.assert_array_equal(again.labels, made.labels, strict=True)
  np.testing.assert_array_equal(again.vectors, made.vectors, strict=True)


@pytest.mark.parametrize(
  'data',
  [b'', b'no archive', b'PK\x05\x06' + bytes(18)],
  ids=['nothing', 'text', 'an empty archive'],
)
def test_damaged_embeddings_are_said(data, tmp_path):
  (tmp_path / 'embeddings.npz').write_bytes(data)
  with pytest.raises(UserError, match='embeddings.npz cannot be read .*remove'):
    neighbours.read(tmp_path)
