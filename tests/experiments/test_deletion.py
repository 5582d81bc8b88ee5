"""The deletion test: what it takes away is a tenth, and the highest."""

import numpy as np

from experiments import deletion


def test_the_strongest_tenth_of_each_map():
  maps = np.random.default_rng(0).normal(size=(3, 20, 20))
  gone = deletion.strongest(maps)
  assert gone.sum((1, 2)).tolist() == [40] * 3
  for i in range(3):
    assert maps[i][gone[i]].min() > maps[i][~gone[i]].max()
