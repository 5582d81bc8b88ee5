"""The last layer of a network, which starts at zero."""

import functools

import jax
from flax import linen as nn

from csdnet_jax.models import initialise
from csdnet_jax.models.dropout import dropout

# `ZeroDense(classes, name=...)`: a dense layer in float32.
ZeroDense = functools.partial(
  nn.Dense,
  kernel_init=initialise.zeros,
  bias_init=initialise.zeros,
)


def classify(
  embedding: jax.Array,
  classes: int,
  *,
  drop_rate: float,
  train: bool,
  keys: jax.Array | None,
) -> jax.Array:
  """Logits of an embedding, by a layer 'head' of the module that calls this.

  Args:
    embedding: [B, C] float32.
    classes: the width of the layer.
    drop_rate: dropout of the embedding, in [0, 1).
    train: whether anything is dropped.
    keys: [B] PRNG keys, one a row.

  Returns:
    [B, classes] float32.
  """
  if train and drop_rate:
    embedding = dropout(embedding, keys, drop_rate)
  return ZeroDense(classes, name='head')(embedding)
