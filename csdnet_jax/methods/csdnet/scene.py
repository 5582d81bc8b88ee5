"""Where the leaf of a view is, and the view blurred.

For photographs on a plain ground, and for silhouettes. All is our choice.
"""

import jax
import jax.numpy as jnp
import numpy as np


def foreground(images: jax.Array, side: int, *, rounds: int = 4) -> jax.Array:
  """Where the leaf is: what differs in colour from the ground.

  The ground's colour is the border's median, channel by channel, since a leaf
  may be cut by a part of the border. The distances to it are parted by the
  threshold that lies halfway between the means of both parts (Ridler and
  Calvard, IEEE Transactions on Systems, Man, and Cybernetics, 1978), found from
  half of the largest.

  Args:
    images: [B, H, W, 3] float32.
    side: of the result, at most H and W.
    rounds: how often the threshold is moved.

  Returns:
    [B, side, side] bool; False all over where the image is of one colour.
  """
  shape = (images.shape[0], side, side, 3)
  small = jax.image.resize(images, shape, 'linear')
  border = jnp.concatenate(
    [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1
  )
  ground = jnp.median(border, axis=1)[:, None, None]
  distance = jnp.sqrt(jnp.sum((small - ground) ** 2, axis=-1))

  def mean(part):
    total = jnp.sum(distance * part, axis=(1, 2), keepdims=True)
    return total / jnp.maximum(jnp.sum(part, axis=(1, 2), keepdims=True), 1)

  threshold = jnp.max(distance, axis=(1, 2), keepdims=True) / 2
  for _ in range(rounds):
    above = distance > threshold
    threshold = (mean(above) + mean(~above)) / 2
  # Where all is ground, what is left is rounding.
  threshold = jnp.maximum(threshold, 1 / 255)
  return distance > threshold


def blur(images: jax.Array, sigma: float) -> jax.Array:
  """Smooths by a Gaussian, along rows and along columns.

  Written as two matrix products: shifts by so wide a kernel would be many. What
  lies outside of the image takes no part.

  Args:
    images: [B, H, W, 3].
    sigma: its standard deviation in pixels, > 0.

  Returns:
    [B, H, W, 3] float32.
  """

  def weights(n):
    distance = np.arange(n)[:, None] - np.arange(n)
    kernel = np.exp(-0.5 * (distance / sigma) ** 2)
    return (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)

  down, across = (weights(n) for n in images.shape[1:3])
  rows = jnp.einsum('yi,bixc->byxc', down, images, precision='highest')
  return jnp.einsum('xj,byjc->byxc', across, rows, precision='highest')
