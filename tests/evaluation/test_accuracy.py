"""Evaluation of a whole part: exact, and a batch behind the devices."""

import numpy as np
import pytest

from csdnet_jax.evaluation import accuracy, metrics

N, B, CLASSES = 11, 4, 3
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, CLASSES, N).astype(np.int32)
LOGITS = RNG.normal(size=(N, CLASSES)).astype(np.float32)
EMBEDDING = RNG.normal(size=(N, 2)).astype(np.float32)


def _step(begun):
  """A step that notes when it begins and when its rows are fetched."""

  class Rows:
    is_fully_addressable = True

    def __init__(self, i, rows):
      self._i, self._rows = i, rows

    def __array__(self, dtype=None, copy=None):
      begun.append(f'fetch {self._i}')
      return self._rows

  def step(state, i):
    begun.append(f'begin {i}')
    taken = np.arange(i * B, min(i * B + B, N))
    fill = ((0, B - len(taken)), (0, 0))
    # What fills up the last batch counts for nothing, whatever it holds.
    logits, embedding = (
      np.pad(x[taken], fill, constant_values=9) for x in (LOGITS, EMBEDDING)
    )
    labels = np.pad(LABELS[taken], fill[0])
    sums = metrics.classification_sums(
      logits, labels, np.arange(B) < len(taken), CLASSES
    )
    found = {'logits': logits, 'embedding': embedding}
    return sums, {name: Rows(i, x) for name, x in found.items()}

  return step


def test_the_figures_are_those_of_all_images_at_once():
  begun = []
  found = accuracy.evaluate(_step(begun), None, range(3), LABELS)
  predicted = LOGITS.argmax(1)
  assert found.figures['n'] == N
  right = 100 * np.mean(predicted == LABELS)
  assert found.figures['top1'] == pytest.approx(right)
  confusion = np.zeros((CLASSES, CLASSES), int)
  np.add.at(confusion, (LABELS, predicted), 1)
  np.testing.assert_array_equal(found.confusion, confusion)
  # The device has the next batch while one is fetched.
  assert begun == [
    'begin 0', 'begin 1', 'fetch 0', 'begin 2', 'fetch 1', 'fetch 2'
  ]  # fmt: skip


def test_the_outputs_are_those_of_every_image_in_order():
  found = accuracy.outputs(_step([]), None, range(3), LABELS)
  np.testing.assert_array_equal(found['logits'], LOGITS)
  np.testing.assert_array_equal(found['embedding'], EMBEDDING)
  np.testing.assert_array_equal(found['label'], LABELS)
