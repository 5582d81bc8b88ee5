"""A head on the network as it is: fitted in one go, in place of steps.

Either class means, whose logits are s cos(x, p_c), or a linear probe; both are
fitted by `csdnet_jax.evaluation.probes`, which says how. Nothing below the head
changes: this is what features are worth as they are, as a run like any other.
"""

import jax.numpy as jnp

from csdnet_jax.methods import base
from csdnet_jax.methods.losses import accuracy, cross_entropy, normalise
from csdnet_jax.models import Model
from csdnet_jax.runtime.fields import Field

# The head that reads embeddings of length 1.
PROTOTYPES = 'prototypes'


def make(config, model: Model) -> base.Method:
  """Returns a method that predicts and takes no steps.

  Args:
    config: of the run; reads `method.frozen.head`.
    model: the backbone, whose head is what was fitted.
  """
  normalised = config.method.frozen.head == PROTOTYPES
  forward = base.predictor(model)

  def predict(params, model_state, batch):
    outputs = forward(params, model_state, batch)
    x = outputs['embedding']
    kernel, bias = model.head(params)
    # Full precision: a fitted scale multiplies what TF32 would blur.
    logits = jnp.matmul(
      normalise(x) if normalised else x, kernel, precision='highest'
    )
    return outputs | {'logits': logits + bias}

  def loss(params, context, batch, key):
    """Cross-entropy of the images as they are; the trainer never asks."""
    del key
    logits = predict(params, context.model_state, batch)['logits']
    total = cross_entropy(logits, batch['label'], 0.0)
    metrics = {'loss': total, 'train_top1': accuracy(logits, batch['label'])}
    return total, base.Aux(context.model_state, (), metrics)

  return base.Method(
    init_memory=lambda width: (),
    views=lambda keys, batch: batch,
    loss=loss,
    update_memory=lambda memory, push: memory,
    predict=predict,
    pictures=lambda params, model_state, batch, key: {},
    forwards=1,
  )


SPEC = base.MethodSpec(
  make,
  fields={'head': Field('probe', choices=('probe', PROTOTYPES))},
  fitted=lambda config: config.method.frozen.head,
)
