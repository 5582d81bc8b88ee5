"""Class evidence: which places of a picture speak for one class, not another.

Occlusion (Zeiler and Fergus, Visualizing and Understanding Convolutional
Networks, ECCV 2014): a place speaks for a class against its rival by as much as
the margin between their logits falls when the detail around it is gone. Detail
is what a Gaussian blur takes away, our choice in place of Zeiler's grey square:
colours and outline stay. All of it needs `method.predict` alone, whatever the
network and its head, and no gradient.

Integrated gradients from the blurred copy, which take about as long, were
measured beside it: blurring what they find strongest lowered the margin less on
grape58; how sure that is, docs/evidence.md says.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

CELLS = 8  # Squares a side that lose their detail, one at a time.
# Standard deviations of Gaussians, in shares of the picture's side.
_DETAIL = 1 / 16  # What is detail.
_SHOWN = 1 / 20  # So that no corner of a square is taken for a finding.


def of_classes(
  predict: Callable[..., dict[str, jax.Array]],
  params: Any,
  model_state: Any,
  images: jax.Array,
  chosen: jax.Array,
  rival: jax.Array,
) -> jax.Array:
  """Which places speak for the chosen class (> 0), and for its rival (< 0).

  E = margin(x) - margin(x without the detail of the square of the place), with
  margin = logit[chosen] - logit[rival]; 65 forward passes.

  Args:
    predict: a method's.
    params: of it.
    model_state: of it.
    images: [B, S, S, 3] in [0, 255], uint8 or floating, test views.
    chosen: [B] int32, the class that is spoken for.
    rival: [B] int32, the class that is spoken against.

  Returns:
    float32 [B, S, S], in logits, equal all over each of 8 x 8 squares. Their
    sum is the margin that all detail makes only where the network is linear.
  """
  sharp = jnp.asarray(images, jnp.float32)
  blurred = without_detail(sharp)
  rows = jnp.arange(len(sharp))
  square = jnp.arange(sharp.shape[1]) * CELLS // sharp.shape[1]

  def margin(x):
    logits = predict(params, model_state, {'image': x})['logits']
    return logits[rows, chosen] - logits[rows, rival]

  def without(i):
    gone = (square[:, None] == i // CELLS) & (square == i % CELLS)
    return margin(jnp.where(gone[..., None], blurred, sharp))

  falls = margin(sharp) - jax.lax.map(without, jnp.arange(CELLS**2))
  maps = falls.T.reshape(-1, CELLS, CELLS).astype(jnp.float32)
  return maps[:, square][:, :, square]


def places(*args) -> jax.Array:
  """Returns `of_classes`, smoothed for the eye: float32 [B, S, S]."""
  return smooth(of_classes(*args))


def without_detail(images: jax.Array) -> jax.Array:
  """Returns images [B, S, S, C] blurred by a Gaussian of S / 16 pixels."""
  return blur(images, _DETAIL)


def smooth(maps: jax.Array) -> jax.Array:
  """Returns maps [B, S, S] blurred by a Gaussian of S / 20 pixels."""
  return blur(maps[..., None], _SHOWN)[..., 0]


def blur(images: jax.Array, share: float) -> jax.Array:
  """Returns images [B, H, W, C] blurred by a Gaussian.

  Its weights within the picture sum to 1, also at the edge: what is of one
  colour stays as it is.

  Args:
    images: floating.
    share: its standard deviation, of the height and of the width.
  """
  h, w = (_weights(n, share) for n in images.shape[1:3])
  exact = jax.lax.Precision.HIGHEST
  return jnp.einsum('ih,jw,bhwc->bijc', h, w, images, precision=exact)


def _weights(n: int, share: float) -> jax.Array:
  """The weights [n, n] of a Gaussian of n * share pixels along one axis."""
  at = jnp.arange(n, dtype=jnp.float32)
  apart = (at[:, None] - at) / (n * share)
  return jax.nn.softmax(-(apart**2) / 2, axis=1)
