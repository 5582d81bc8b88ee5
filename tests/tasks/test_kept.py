"""What a finished classifier keeps, and says of it."""

import numpy as np
import pytest

from csdnet_jax.data.images import splits
from csdnet_jax.evaluation import calibration
from csdnet_jax.runtime import terminal
from csdnet_jax.tasks import kept


def _found(logits, labels):
  return {
    'logits': np.array(logits, np.float32), 'label': np.array(labels),
    'embedding': np.eye(len(labels), dtype=np.float32),
  }  # fmt: skip


def _split(name, labels):
  names = tuple(f'{name}/{i}.png' for i in range(len(labels)))
  return splits.Split(names, np.array(labels, np.int32), lambda i: b'')


@pytest.mark.parametrize('wrong, words', [
  (True, 'is at its bound, 100'), (False, 'all 3 validation images are right')
])  # fmt: skip
def test_how_the_temperature_was_found_is_said_once(tmp_path, wrong, words):
  right = [0, 1, 2]
  labels = [1, 2, 0] if wrong else right
  dataset = splits.Dataset(
    'set', ('a', 'b', 'c'), _split('train', right), _split('val', labels)
  )
  found = {
    'train': _found(np.eye(3), right), 'val': _found(5 * np.eye(3), labels)
  }  # fmt: skip
  with terminal.console.capture() as captured:
    kept.write(tmp_path, dataset, found, step=4)
  said = ' '.join(captured.get().split())
  assert said.count(str(tmp_path)) == 1 and words in said
  assert calibration.read(tmp_path).how in said
