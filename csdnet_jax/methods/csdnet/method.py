"""CSDNet, the sum of its three modules (arXiv 2311.06056).

  L = CE(p_r, y) + w_a CE(p_a, y) + alpha L_ddl + beta L_ssdt

with p_r the logits of the raw view and p_a those of the augmented view that
SSDP makes. Inference uses the raw image only.
"""

import jax
import jax.numpy as jnp

from csdnet_jax import memory, sharding
from csdnet_jax.data import augment
from csdnet_jax.methods import base
from csdnet_jax.methods.csdnet import ddl, scene, ssdp, ssdt
from csdnet_jax.methods.losses import accuracy, cross_entropy
from csdnet_jax.models import Model
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.fields import Field

_ADAPTIVE = ('spotlight', 'erase')

FIELDS = {
  'aug_weight': Field(1.0, low=0),  # w_a, of the second view's cross-entropy.
  'alpha': Field(1.0, low=0),  # Weight of DDL.
  'beta': Field(1.0, low=0),  # Weight of SSDT.
  # SSDP.
  'mode': Field('spotlight', choices=('spotlight', 'erase', 'views', 'none')),
  'redraw': Field(True),  # Mask a second draw of the view, not the raw one.
  'saliency': Field('similarity', choices=('similarity', 'margin')),
  'map': Field('last', choices=('last', 'fine')),  # Resolution of the map.
  'kernel': Field('content', choices=('content', 'box')),
  'kernel_size': Field(3, low=1, high=31),
  # Share of the area hidden or erased, drawn per image.
  'hidden': Field((0.15, 0.45), low=0, high=1),
  'inside': Field(False),  # Hide places on the leaf alone, and a share of it.
  # What is put there: one colour, or the view itself, blurred.
  'fill': Field('colour', choices=('colour', 'blur')),
  'queue': Field(1024, low=0),  # Length K; at most twice the train set is used.
  'margin': Field(0.4, low=-1, high=1),  # xi.
  # 'joint' is the peers'.
  'averaging': Field('separate', choices=('separate', 'joint')),
  'exclude_same_image': Field(False),
  'temperature': Field(4.0, low=1e-3),  # T.
  'direction': Field(
    'symmetric', choices=('symmetric', 'raw_to_aug', 'aug_to_raw')
  ),
}


def make(config, model: Model) -> base.Method:
  """Returns CSDNet.

  Args:
    config: of the run; reads `views`, `optim.label_smoothing` and
      `method.csdnet`.
    model: the backbone.

  Raises:
    UserError: if the network does not give the map that is asked for.
  """
  c = config.method.csdnet
  if c.mode in _ADAPTIVE and c.map == 'fine' and not model.has_fine:
    raise UserError(
      f'config.model.name={config.model.name} gives no map of stride 8, which '
      "config.method.csdnet.map='fine' asks for; take an EfficientNet, or "
      "map='last'."
    )
  sample, poses = base.sampler(config)
  smoothing = config.optim.label_smoothing

  def views(keys, batch):
    """The raw view x_r; where it is drawn anew, the second view as well."""
    batch = batch | {'raw': sample(keys, batch, 0)}
    if c.mode in _ADAPTIVE and not c.redraw:
      return batch
    aug = sample(keys, batch, 1)
    if c.mode in _ADAPTIVE:
      batch = batch | {f'pose_{i}': poses(keys, batch, i) for i in range(2)}
    if c.mode == 'views':
      erase, shuffle = base.fold_rows(keys, 2), base.fold_rows(keys, 3)
      fill = jnp.asarray(model.mean)
      aug = augment.erase(erase, aug, fill, area=c.hidden)
      aug = augment.shuffle_patches(shuffle, aug, grid=2)
    return batch | {'aug': aug}

  def mask(params, outputs, labels, view, keys, carry=lambda maps: maps):
    """SSDP's map [B, g, g] of a raw view and mask [B, S, S] for `view`.

    `carry` takes the map to the view that the mask is for.
    """
    size = view.shape[1]
    saliency = ssdp.saliency_map(
      outputs.features, outputs.embedding, model.head(params)[0],
      outputs.logits, labels, outputs.fine if c.map == 'fine' else None,
      saliency=c.saliency, kernel=c.kernel, size=c.kernel_size,
    )  # fmt: skip
    side = ssdp.ranked_side(max(saliency.shape[1:]), size)
    saliency = carry(ssdp.upsample(saliency, side, side))
    low, high = c.hidden
    draws, ties = base.fold_rows(keys, 0), base.fold_rows(keys, 1)
    hidden = jax.vmap(
      lambda key: jax.random.uniform(key, minval=low, maxval=high)
    )(draws)
    keep = 'high' if c.mode == 'spotlight' else 'low'
    leaf = scene.foreground(view, side) if c.inside else None
    shown = ssdp.rank_mask(ties, saliency, hidden, leaf, keep=keep)
    return saliency, ssdp.enlarge(shown, size, size)

  def filled(view, shown):
    """The view where it is shown, and what lies below elsewhere."""
    blurred = c.fill == 'blur'
    fill = scene.blur(view, view.shape[1] / 16) if blurred else model.mean
    return ssdp.apply_mask(view, shown, fill)

  def spotlight(params, outputs, batch, keys):
    """x_a: the mask on the raw view x_r, or on the second draw of it."""

    def carry(maps):
      poses = batch['pose_0'], batch['pose_1']
      return augment.carry(maps, *poses, size=batch['raw'].shape[1])

    view = batch['aug'] if c.redraw else batch['raw']
    args = params, outputs, batch['label'], view, keys
    _, shown = mask(*args, carry) if c.redraw else mask(*args)
    return filled(view, shown)

  def loss(params, context, batch, key):
    raw, labels, axis = batch['raw'], batch['label'], context.axis
    b = labels.shape[0]

    def second(outputs):
      keys = sharding.row_keys(jax.random.fold_in(key, 2), b, axis)
      return spotlight(params, outputs, batch, keys)

    aug = second if c.mode in _ADAPTIVE else batch['aug']
    out_r, out_a, state = base.forward_two(
      model, params, context, raw, aug, key
    )

    own, everyone, offset = base.contrast_rows(
      out_r, out_a, (labels, batch['id']), axis
    )
    contrast, pairs = ddl.loss(
      *own, *everyone, context.memory,
      margin=c.margin, averaging=c.averaging,
      exclude_same_image=c.exclude_same_image, self_offset=offset, axis=axis,
    )  # fmt: skip

    terms = {
      'ce': cross_entropy(out_r.logits, labels, smoothing),
      'ce_aug': cross_entropy(out_a.logits, labels, smoothing),
      'ddl': contrast,
      'ssdt': ssdt.loss(
        out_r.logits, out_a.logits,
        temperature=c.temperature, direction=c.direction,
      ),
    }  # fmt: skip
    total = (
      terms['ce']
      + c.aug_weight * terms['ce_aug']
      + c.alpha * terms['ddl']
      + c.beta * terms['ssdt']
    )
    metrics = terms | {
      'loss': total,
      'ddl_positive': pairs['positive'],
      'ddl_negative': pairs['negative'],
      'train_top1': accuracy(out_r.logits, labels),
    }
    return total, base.Aux(state, everyone, metrics)

  def pictures(params, model_state, batch, key):
    """The raw view, SSDP's map, its mask, and the augmented view.

    Of a batch that `views` has drawn, the augmented view alone.
    """
    keys = sharding.row_keys(key, batch['image'].shape[0], None)
    if 'raw' in batch:
      if c.mode not in _ADAPTIVE:
        return {'augmented view': batch['aug']}
      outputs, _ = model.apply(params, model_state, batch['raw'], train=False)
      return {'augmented view': spotlight(params, outputs, batch, keys)}
    images = batch['image'].astype(jnp.float32) / 255.0
    if c.mode not in _ADAPTIVE:
      extent = jnp.full((images.shape[0], 2), images.shape[1])
      batch = views(keys, batch | {'extent': extent})
      return {'raw view': batch['raw'], 'augmented view': batch['aug']}
    outputs, _ = model.apply(params, model_state, images, train=False)
    saliency, shown = mask(params, outputs, batch['label'], images, keys)
    low = jnp.min(saliency, axis=(1, 2), keepdims=True)
    high = jnp.max(saliency, axis=(1, 2), keepdims=True)
    saliency = (saliency - low) / jnp.maximum(high - low, 1e-12)
    return {
      'raw view': images,
      'SSDP map': ssdp.enlarge(saliency, *images.shape[1:3]),
      'mask': jnp.repeat(shown[..., None], 3, axis=-1),
      'augmented view': filled(images, shown),
    }

  return base.Method(
    init_memory=lambda width: memory.init(c.queue, width) if c.queue else (),
    views=views,
    loss=loss,
    update_memory=lambda m, push: memory.push(m, *push) if m else (),
    predict=base.predictor(model),
    pictures=pictures,
    forwards=2,
  )


def fit(config, n_train: int) -> list[str]:
  """Caps the queue at both views of every training image.

  A longer one would hold stale copies of the same images.

  Args:
    config: of the run; `method.csdnet.queue` is changed in place.
    n_train: training images.

  Returns:
    What was changed, in sentences.

  Raises:
    UserError: if the queue is shorter than the keys of one step.
  """
  c, notes = config.method.csdnet, []
  if c.queue > 2 * n_train:
    notes.append(
      f'The memory queue holds {2 * n_train} keys instead of {c.queue}: both '
      'views of every training image once.'
    )
    c.queue = 2 * n_train
  if 0 < c.queue < 2 * config.batch_size:
    raise UserError(
      f'config.method.csdnet.queue is {c.queue}, less than the '
      f'{2 * config.batch_size} keys (two views of config.batch_size='
      f'{config.batch_size} images) pushed at each step; raise it, lower the '
      'batch size, or set it to 0 for no queue.'
    )
  return notes


def check(config) -> None:
  """Refuses what no range says: an even kernel, patches of odd sizes."""
  c, size = config.method.csdnet, config.model.size
  if c.mode == 'views' and size % 2:
    raise UserError(
      f'config.model.size is {size}; the second view of config.method.csdnet.'
      "mode='views' is cut into 2 x 2 patches, so choose an even size."
    )
  if c.kernel_size % 2 == 0:
    raise UserError(
      f'config.method.csdnet.kernel_size is {c.kernel_size}, but must be odd.'
    )


SPEC = base.MethodSpec(make, FIELDS, fit=fit, check=check)
