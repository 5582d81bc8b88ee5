"""The images of all runs are there once, and each run finds its own."""

import numpy as np

from csdnet_jax.data.images import splits
from csdnet_jax.tasks import classification
from csdnet_jax.training.fit import fit
from csdnet_jax.training.together import pool

import runs


def test_rows_of_smaller_parts_end_in_padding():
  prepared = pool.Prepared(None, {name: i for i, name in enumerate('abcde')})
  parts = [
    splits.Split(tuple(names), np.zeros(len(names), np.int32), None)
    for names in ('dbe', 'a', 'ca')
  ]
  rows = pool.rows(prepared, parts)
  assert rows.dtype == np.int32
  assert rows.tolist() == [[3, 1, 4], [0, -1, -1], [2, 0, -1]]
  assert pool.in_batches(rows, 2).tolist() == [
    [[3, 1], [0, -1], [2, 0]], [[4, -1], [-1, -1], [-1, -1]]
  ]  # fmt: skip


def test_each_run_finds_the_arrays_that_it_would_have_alone(tmp_path):
  loaded = []
  for seed in range(2):
    config = runs.config(
      tmp_path / 'cache',
      **{'data.resplit': True, 'data.split_seed': seed,
         'data.leaves.test_per_class': 3},
    )  # fmt: skip
    dataset = classification.load(config)
    config, _ = fit(config, len(dataset.train.names))
    loaded.append((config, dataset))
  assert loaded[0][1].train.names != loaded[1][1].train.names
  prepared = pool.prepare(loaded[0][0], [dataset for _, dataset in loaded])
  assert len(prepared.images.labels) == 24
  for config, dataset in loaded:
    own, _ = classification.prepare(config, dataset)
    (train,) = pool.rows(prepared, [dataset.train])
    (test,) = pool.rows(prepared, [dataset.test])
    images = prepared.images
    np.testing.assert_array_equal(images.canvases[train], own.train.images)
    np.testing.assert_array_equal(images.extents[train], own.train.extents)
    np.testing.assert_array_equal(images.labels[train], own.train.labels)
    np.testing.assert_array_equal(images.views[test], own.parts['test'].images)
    np.testing.assert_array_equal(images.labels[test], own.parts['test'].labels)
