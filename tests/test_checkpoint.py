"""The best checkpoint stays, and is found."""

import contextlib

import jax.numpy as jnp
import pytest

from csdnet_jax.checkpoint import Checkpoints
from csdnet_jax.runtime.errors import UserError


@pytest.mark.parametrize(
  ('selections', 'best'),
  [
    ([None, None], None),
    ([50.0, None, 40.0, None], 1),
    ([50.0, 50.0, None], 2),
    ([50.0, 60.0, 40.0, 30.0], 2),
  ],
)
def test_the_best_is_the_highest_and_of_equal_ones_the_later(
  selections, best, tmp_path
):
  with contextlib.closing(Checkpoints(tmp_path / 'c', keep=1)) as checkpoints:
    for step, selection in enumerate(selections, 1):
      checkpoints.save({'x': jnp.full(3, step)}, step, selection)
  with contextlib.closing(
    Checkpoints(tmp_path / 'c', read_only=True)
  ) as checkpoints:
    if best is None:
      with pytest.raises(UserError, match='was evaluated'):
        checkpoints.best()
    else:
      assert checkpoints.best() == best
