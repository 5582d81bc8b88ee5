"""Promises of what all methods share."""

import jax
import numpy as np

from csdnet_jax.methods import base

import tiny


def test_the_mean_over_test_views_is_of_probabilities_and_mirrors():
  model = tiny.model()
  weights = model.init(jax.random.key(0), tiny.SIZE)
  image = np.random.default_rng(0).integers(
    0, 256, (3, tiny.SIZE, tiny.SIZE, 3), np.uint8
  )

  def softmax(predict, image):
    return jax.nn.softmax(predict(*weights, {'image': image})['logits'])

  plain, mean = base.predictor(model), base.predictor(model, average=True)
  found, mirrored = (mean(*weights, {'image': x})
                     for x in (image, image[:, :, ::-1]))  # fmt: skip
  np.testing.assert_allclose(np.exp(found['logits']).sum(axis=1), 1, rtol=1e-5)
  np.testing.assert_allclose(found['logits'], mirrored['logits'], atol=1e-5)
  np.testing.assert_array_equal(
    found['embedding'], plain(*weights, {'image': image})['embedding']
  )
  # One pixel of 16 is cut at each side.
  closer = jax.image.resize(
    image[:, 1:-1, 1:-1].astype(np.float32), image.shape, 'linear'
  )
  four = [image, image[:, :, ::-1], closer, closer[:, :, ::-1]]
  np.testing.assert_allclose(
    np.exp(found['logits']),
    np.mean([softmax(plain, x) for x in four], axis=0),
    atol=1e-5,
  )
