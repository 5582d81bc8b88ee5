"""Cross-entropy on one view or two: the baseline, and a method's template."""

import jax

from csdnet_jax import sharding
from csdnet_jax.methods import base
from csdnet_jax.methods.losses import accuracy, cross_entropy
from csdnet_jax.models import Model
from csdnet_jax.runtime.fields import Field


def make(config, model: Model) -> base.Method:
  """Returns plain fine-tuning: CE(raw), or CE(raw) + CE(second view).

  Args:
    config: of the run; reads `views`, `optim.label_smoothing` and
      `method.supervised.views` (1 or 2).
    model: the backbone.
  """
  sample, _ = base.sampler(config)
  two = config.method.supervised.views == 2
  smoothing = config.optim.label_smoothing

  def views(keys, batch):
    batch = batch | {'raw': sample(keys, batch, 0)}
    return batch | {'aug': sample(keys, batch, 1)} if two else batch

  def loss(params, context, batch, key):
    labels = batch['label']
    if two:
      raw, aug, state = base.forward_two(
        model, params, context, batch['raw'], batch['aug'], key
      )
    else:
      key = jax.random.fold_in(key, 0)
      raw, state = model.apply(
        params, context.model_state, batch['raw'], train=True,
        keys=sharding.row_keys(key, labels.shape[0], context.axis),
        axis=context.axis,
      )  # fmt: skip
    total = ce = cross_entropy(raw.logits, labels, smoothing)
    metrics = {'ce': ce, 'train_top1': accuracy(raw.logits, labels)}
    if two:
      metrics['ce_aug'] = cross_entropy(aug.logits, labels, smoothing)
      total = ce + metrics['ce_aug']
    return total, base.Aux(state, (), metrics | {'loss': total})

  return base.Method(
    init_memory=lambda width: (),
    views=views,
    loss=loss,
    update_memory=lambda memory, push: memory,
    predict=base.predictor(model),
    pictures=lambda params, model_state, batch, key: {},
    forwards=2 if two else 1,
  )


SPEC = base.MethodSpec(make, fields={'views': Field(1, choices=(1, 2))})
