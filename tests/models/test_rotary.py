"""Rotary positions: what turns, by how much, and what stays."""

import numpy as np

from csdnet_jax.models import rotary


def test_periods_are_those_of_the_paper_and_of_the_release():
  exact = rotary.periods(16)
  np.testing.assert_allclose(exact, [1, 10**0.5, 10, 10**1.5], rtol=1e-6)
  # bfloat16 keeps eight bits.
  rounded = rotary.periods(16, dtype=np.dtype('bfloat16'))
  np.testing.assert_array_equal(rounded, [1, 3.15625, 10, 31.625])
  assert rounded.dtype == np.float32


def test_angles_are_those_of_the_centres_of_the_patches():
  # Two rows at y = -1/2 and 1/2; three columns at x = -2/3, 0 and 2/3.
  turn = rotary.rotation(2, 3, np.float32([1, 4]), unplaced=1)
  assert turn.cos.shape == turn.sin.shape == (7, 1, 8)
  np.testing.assert_array_equal(turn.cos[0], np.ones((1, 8)))
  np.testing.assert_array_equal(turn.sin[0], np.zeros((1, 8)))
  angles = [-np.pi, -np.pi / 4, 4 * np.pi / 3, np.pi / 3]
  # The third patch, at the end of the first row.
  np.testing.assert_allclose(turn.cos[3, 0], np.cos(angles * 2), atol=1e-6)
  np.testing.assert_allclose(turn.sin[3, 0], np.sin(angles * 2), atol=1e-6)


def test_products_know_the_distance_of_two_patches_and_nothing_else():
  rng = np.random.default_rng(0)
  turn = rotary.rotation(4, 4, rotary.periods(8), unplaced=2)
  query, key = rng.standard_normal((2, 8)).astype(np.float32)
  query, key = (
    np.asarray(rotary.rotate(np.tile(x, (1, 18, 1, 1)), turn))[0, :, 0]
    for x in (query, key)
  )
  np.testing.assert_allclose(
    np.linalg.norm(query, axis=1), np.linalg.norm(query[0]), rtol=1e-5
  )
  products = (query @ key.T)[2:, 2:].reshape(4, 4, 4, 4)
  # From (0, 0) to (1, 2) is as far as from (2, 1) to (3, 3).
  np.testing.assert_allclose(
    products[0, 0, 1, 2], products[2, 1, 3, 3], rtol=1e-4
  )
  assert abs(products[0, 0, 1, 2] - products[0, 0, 1, 1]) > 1e-3
  assert not np.allclose(query[1], query[2])
  np.testing.assert_array_equal(query[0], query[1])
