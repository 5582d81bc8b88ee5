"""What a program brings to the images of a batch."""

import jax
import numpy as np
import pytest

from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training.build import build
from csdnet_jax.training.together.program import another

import tiny


def test_another_image_is_of_the_class_and_not_the_same():
  labels = np.array([0, 1, 0, 2, 0, 1], np.int32)
  ids = np.repeat(np.arange(6), 50).astype(np.int32)
  found = np.asarray(another(jax.random.key(0), ids, labels))
  for i, expected in enumerate(([2, 4], [5], [0, 4], [3], [0, 2], [1])):
    assert sorted(set(found[ids == i])) == expected


def test_a_run_of_its_own_has_no_other_images_and_says_so():
  config = tiny.config(fill='class')
  config.model.name = 'efficientnet_tiny'
  with pytest.raises(UserError, match='--together, or choose another fill'):
    build(config, classes=5, n_train=30, devices=jax.devices()[:1])
