"""The order of rows, as a table and as batches."""

import numpy as np

from csdnet_jax.data import batches


def test_the_table_is_what_the_batches_hold():
  table = batches.order(7, batch=3, seed=5, steps=6)
  read = batches.shuffled(
    lambda places, ids: {'id': ids}, 7, batch=3, seed=5, start=0, stop=6
  )
  np.testing.assert_array_equal(table, [batch['id'] for batch in read])
  # Every row once before any comes again.
  assert sorted(table.ravel()[:7]) == list(range(7))
