"""What a finished classifier keeps, and says of it."""

import csv

import numpy as np
import pytest

from csdnet_jax.data.images import splits
from csdnet_jax.evaluation import calibration, unknown
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
  assert unknown.read(tmp_path).how in said and '3 held-out leaves' in said


def test_the_threshold_of_the_validation_part_judges_the_test_part(tmp_path):
  rng = np.random.default_rng(0)
  labels = {'train': [0, 1] * 10, 'val': [0, 1] * 30, 'test': [0, 1] * 20}
  dataset = splits.Dataset(
    'set', ('a', 'b'), *(_split(name, x) for name, x in labels.items())
  )
  found = {
    name: _found(rng.normal(size=(len(x), 2)), x)
    | {'embedding': rng.normal(size=(len(x), 8)).astype(np.float32)}
    for name, x in labels.items()
  }
  kept.write(tmp_path, dataset, found, step=4)
  made = unknown.read(tmp_path)
  leaves = kept.read(tmp_path, 4).leaves
  scores = np.sort(unknown.score(found['val'], leaves))
  assert (made.n, made.step) == (60, 4) and made.threshold == scores[57]

  def column(part):
    path = tmp_path / kept.PREDICTIONS[part]
    rows = csv.DictReader(path.read_text().splitlines())
    return [row['none_of_these'] for row in rows]

  refused = unknown.score(found['test'], leaves) > made.threshold
  assert column('test') == ['yes' if x else 'no' for x in refused]
  assert column('val').count('yes') == 2
  # Of other weights, and without training leaves, there is no threshold.
  assert kept.read(tmp_path, 5).refusal.threshold is None
  assert 'at step 5' in kept.read(tmp_path, 5).refusal.how
  (tmp_path / 'embeddings.npz').unlink()
  assert kept.read(tmp_path, 4).refusal.threshold is None
