"""A run starts from another's head by the names of its classes."""

import jax
import numpy as np
import pytest

from csdnet_jax.config import from_json
from csdnet_jax.runtime import terminal
from csdnet_jax.training.build import build
from csdnet_jax.training.fit import fit
from csdnet_jax.training.initial import initial_weights

import runs


@pytest.mark.parametrize(
  ('names', 'columns', 'words'),
  [
    (('yew', 'ash', 'oak'), (2, 0, 1), 'head: 3 of 3 classes by name;'),
    (('elm', 'oak', 'fir', 'ash'), (None, 1, None, 0), '2 of 4 classes by'),
    (('x_b', 'y_c', 'z_a'), (None, None, None), 'of 3 classes starts at zero'),
  ],
)
def test_rows_of_the_head_are_taken_by_name(folder_run, names, columns, words):
  workdir, _ = folder_run
  config = from_json((workdir / 'config.json').read_text())
  config.init_from = str(workdir)
  config, _ = fit(config, 8)
  program = build(
    config, classes=len(names), n_train=8, devices=jax.devices()[:1]
  )
  with terminal.console.capture() as captured:
    params, _, report = initial_weights(config, program.model, names)
  assert words in ' '.join(captured.get().split())
  theirs = runs.saved_state(workdir).params
  assert theirs['head']['kernel'].any(axis=0).all()
  for i, column in enumerate(columns):
    for key in ('kernel', 'bias'):
      found = params['head'][key][..., i]
      want = theirs['head'][key][..., column] if column is not None else 0
      np.testing.assert_array_equal(found, np.broadcast_to(want, found.shape))
  known = [n for n, c in zip(names, columns, strict=True) if c is not None]
  assert report['known'] == known
