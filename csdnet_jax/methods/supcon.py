r"""Supervised contrastive loss beside cross-entropy on two views: a baseline.

  L = CE(p_r, y) + CE(p_a, y) + w L_out

Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, L_out (their
equation 2). They train the contrast alone, on a projection, and the classifier
after it; with few images a class we train both at once on the embedding itself
(our choice), so that the method differs from CSDNet in its contrast alone.
"""

import jax
import jax.numpy as jnp

from csdnet_jax.methods import base
from csdnet_jax.methods.losses import accuracy, cross_entropy
from csdnet_jax.models import Model
from csdnet_jax.runtime.fields import Field


def contrast(
  anchors: jax.Array,
  anchor_labels: jax.Array,
  candidates: jax.Array,
  candidate_labels: jax.Array,
  *,
  temperature: float = 0.1,
  self_offset=0,
) -> jax.Array:
  r"""L_out, the mean over anchors i of

    -1 / |P(i)| sum_{p in P(i)} log(exp(s_ip) / sum_{a != i} exp(s_ia))

  with s_ia = cos(z_i, z_a) / temperature and P(i) the other candidates of i's
  class. An anchor without any adds 0 to the sum.

  Of two classes at right angles each anchor tells its one positive, of
  cosine 1, from two negatives, of cosine 0: log(1 + 2 / e).

    >>> z = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> y = jnp.array([0, 0, 1, 1])
    >>> round(float(contrast(z, y, z, y, temperature=1.0)), 4)
    0.5514

  Args:
    anchors: [A, D] float32, embeddings of length 1, as `losses.normalise`
      makes them.
    anchor_labels: [A] int32.
    candidates: [C, D], those of all devices; on one device the anchors.
    candidate_labels: [C] int32.
    temperature: > 0.
    self_offset: anchor i is candidate `self_offset + i`.

  Returns:
    The loss [] float32, >= 0, whose mean over devices is that of the whole
    batch (and so for its gradient).
  """
  # Full precision: TF32 would blur what a temperature of 0.1 multiplies.
  scores = jnp.matmul(anchors, candidates.T, precision='highest') / temperature
  own = jnp.arange(candidates.shape[0]) == (
    self_offset + jnp.arange(anchors.shape[0])[:, None]
  )
  log_share = jax.nn.log_softmax(jnp.where(own, -jnp.inf, scores), axis=1)
  same = (anchor_labels[:, None] == candidate_labels) & ~own
  total = jnp.sum(jnp.where(same, log_share, 0.0), axis=1)
  return -jnp.mean(total / jnp.maximum(jnp.sum(same, axis=1), 1))


def make(config, model: Model) -> base.Method:
  """Returns the method.

  Args:
    config: of the run; reads `views`, `optim.label_smoothing` and
      `method.supcon`.
    model: the backbone.
  """
  c = config.method.supcon
  sample, _ = base.sampler(config)
  smoothing = config.optim.label_smoothing

  def views(keys, batch):
    first, second = sample(keys, batch, 0), sample(keys, batch, 1)
    return batch | {'raw': first, 'aug': second}

  def loss(params, context, batch, key):
    labels = batch['label']
    raw, aug, state = base.forward_two(
      model, params, context, batch['raw'], batch['aug'], key
    )
    own, everyone, offset = base.contrast_rows(
      raw, aug, (labels,), context.axis
    )
    terms = {
      'ce': cross_entropy(raw.logits, labels, smoothing),
      'ce_aug': cross_entropy(aug.logits, labels, smoothing),
      'supcon': contrast(
        *own, *everyone, temperature=c.temperature, self_offset=offset
      ),
    }
    total = terms['ce'] + terms['ce_aug'] + c.weight * terms['supcon']
    metrics = terms | {
      'loss': total,
      'train_top1': accuracy(raw.logits, labels),
    }
    return total, base.Aux(state, (), metrics)

  return base.Method(
    init_memory=lambda width: (),
    views=views,
    loss=loss,
    update_memory=lambda memory, push: memory,
    predict=base.predictor(model),
    pictures=lambda params, model_state, batch, key: {},
    forwards=2,
  )


SPEC = base.MethodSpec(
  make,
  fields={
    # Of the contrastive loss beside the two cross-entropies.
    'weight': Field(1.0, low=0),
    'temperature': Field(0.1, low=1e-3),
  },
)
