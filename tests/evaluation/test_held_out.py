"""What a cross-validation keeps comes back as it was."""

import numpy as np
import pytest

from csdnet_jax.evaluation import held_out
from csdnet_jax.runtime.errors import UserError


def _found(names, first=0):
  n, rng = len(names), np.random.default_rng(first)
  return held_out.HeldOut(
    names, np.arange(n, dtype=np.int32) % 3, np.full(n, first, np.int32),
    np.arange(first, first + n, dtype=np.int32),
    np.eye(3, dtype=np.float32)[[0] * n], rng.random((n, 4), np.float32),
    rng.random(n, np.float32),
  )  # fmt: skip


def test_the_folds_are_joined_kept_and_read(tmp_path):
  parts = [_found(('a', 'été'), 0), _found(('c', 'd', 'e'), 2)]
  whole = held_out.joined(parts)
  assert whole.names == ('a', 'été', 'c', 'd', 'e')
  assert whole.right.tolist() == [True, False, True, False, False]
  held_out.write(tmp_path / 'held_out.npz', whole)
  again = held_out.read(tmp_path / 'held_out.npz')
  assert again.names == whole.names
  for field in held_out.HeldOut._fields[1:]:
    np.testing.assert_array_equal(getattr(again, field), getattr(whole, field))


def test_a_file_that_is_none_ends_in_a_sentence(tmp_path):
  path = tmp_path / 'held_out.npz'
  path.write_bytes(b'half')
  with pytest.raises(UserError, match='held_out.npz cannot be read'):
    held_out.read(path)
