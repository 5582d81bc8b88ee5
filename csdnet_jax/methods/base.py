"""The contract between the trainer and a method, and what methods share."""

import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from csdnet_jax import sharding
from csdnet_jax.data import augment
from csdnet_jax.methods.losses import normalise
from csdnet_jax.models import Model, Outputs
from csdnet_jax.runtime.fields import Fields


class MethodSpec(NamedTuple):
  """What the file of a method gives to the rest, as its `SPEC`.

  Attributes:
    make: `(config, model) -> Method`. The config is `Values` of the run's: read
      as ever, but nothing is set in it, and a number that is not zero may be
      one that JAX traces: `fields.is_zero` asks, where `if` could not.
    fields: its own, which lie at `config.method.<name>`.
    task: 'classification' or 'segmentation'.
    fit: `(config, n_train) -> notes`: fits a copy of the config to the size of
      the train set, in place, and says in sentences what it changed; a
      UserError if the fields cannot go with a set or a batch so small.
    check: `(config) -> None`: a UserError where a field is in its range and yet
      cannot be.
    fitted: `(config) -> ` the name of the head that is fitted to the embeddings
      of the training images in place of steps ('probe' or 'prototypes', see
      `training.head`); '' where the method is trained.
  """

  make: Callable[[Any, Model], 'Method']
  fields: Fields = types.MappingProxyType({})
  task: str = 'classification'
  fit: Callable[[Any, int], list[str]] = lambda config, n_train: []
  check: Callable[[Any], None] = lambda config: None
  fitted: Callable[[Any], str] = lambda config: ''


class Context(NamedTuple):
  """What a loss may read beside the parameters and the batch.

  Attributes:
    model_state: BatchNorm's running averages, or {}.
    memory: the method's memory.
    frozen: what is not trained (a teacher), or ().
    axis: the device axis for collectives, or None.
  """

  model_state: Any
  memory: Any
  frozen: Any
  axis: str | None


class Aux(NamedTuple):
  """What a loss returns beside its value.

  Attributes:
    model_state: the next one.
    push: what `update_memory` takes: rows, equal on all devices, or (). The
      rows of a step's micro-batches are joined.
    metrics: {name: [] float32} to log; averaged over devices.
  """

  model_state: Any
  push: Any
  metrics: dict[str, jax.Array]


class Extra(NamedTuple):
  """Parameters beside the network's that training alone needs.

  They lie in `params` under their name, are trained and saved with it, and are
  in no average, export or count.

  Attributes:
    init: `(key, width of the embedding) -> parameters`.
    tx: their own optimiser; None: that of the network.
  """

  init: Callable
  tx: optax.GradientTransformation | None = None


class Method(NamedTuple):
  """A method, as pure functions. The step calls them in this order.

  A batch holds B rows of this device: `image` uint8 [B, S, S, 3] canvases,
  `extent` int32 [B, 2], `id` int32 [B], and of its task: `label` int32 [B] of
  classification, `mask` uint8 [B, S, S] of segmentation. For evaluation and
  pictures of classification `image` is the finished test view and `mask` bool
  [B] marks padding; of segmentation it is a window.

  Attributes:
    init_memory: `(width of the embedding) -> memory`, () if none.
    views: `(keys [B], batch) -> batch`: randomness that needs the image alone,
      on the device. Row keys are equal on any number of devices.
    loss: `(params, Context, batch, key) -> (loss, Aux)`.
    update_memory: `(memory, push) -> memory`.
    predict: `(params, model_state, batch) -> {'logits', 'embedding'}`.
    pictures: `(params, model_state, batch, key) -> {name: images}` in [0, 1],
      [B, H, W, 3], or [B, H, W] of a map of the views: what a person should
      see of the method. Of a batch that `views` has drawn: {'augmented view'}
      if the loss makes or changes it, or {}.
    forwards: images through the network for each image of the batch.
    group: images of a batch, one after the other, that stay on one device.
    extras: parameters beside the network's, by name.
    teacher: the frozen network whose (params, model_state) `loss` finds in
      `Context.frozen`, or None.
  """

  init_memory: Callable
  views: Callable
  loss: Callable
  update_memory: Callable
  predict: Callable
  pictures: Callable
  forwards: int
  group: int = 1
  extras: Mapping[str, Extra] = types.MappingProxyType({})
  teacher: Model | None = None


def fold_rows(keys: jax.Array, data: int) -> jax.Array:
  """Returns [B] keys: `fold_in(key, data)` of each row's."""
  return jax.vmap(lambda key: jax.random.fold_in(key, data))(keys)


def sampler(config) -> tuple[Callable, Callable]:
  """Returns what draws view i of each row, and what says where it lies.

  Returns:
    `(keys, batch, i) -> [B, size, size, 3]`, and `(keys, batch, i) -> [B, 2,
    3]`, its pose (`augment.view_poses`).
  """
  v = config.views
  pose = {
    'size': config.model.size, 'area': v.area, 'aspect': v.ratio,
    'square': config.data.aspect == 'square', 'flip': v.flip,
    'rotate': v.rotate,
  }  # fmt: skip

  def sample(keys, batch, i):
    return augment.sample_views(
      fold_rows(keys, i), batch['image'], batch['extent'], **pose,
      brightness=v.brightness, contrast=v.contrast, saturation=v.saturation,
    )  # fmt: skip

  def poses(keys, batch, i):
    return augment.view_poses(fold_rows(keys, i), batch['extent'], **pose)

  return sample, poses


def forward_two(
  model: Model, params, context: Context, raw, aug, key
) -> tuple[Outputs, Outputs, Any]:
  """Forwards the raw and the augmented view, two forwards' worth of work.

  BatchNorm normalises each view by its own moments, and only the raw view
  moves the running averages, since inference sees raw images only. Models
  without it take both views as one batch.

  Args:
    model: the backbone.
    params: its parameters.
    context: of the step.
    raw: [B, H, W, 3].
    aug: [B, H, W, 3], or a function of the raw view's `Outputs` that makes it.
    key: of the step.

  Returns:
    The outputs of the raw view, those of the augmented, the model state.
  """
  b, axis = raw.shape[0], context.axis
  keys = [
    sharding.row_keys(jax.random.fold_in(key, i), b, axis) for i in range(2)
  ]

  def apply(images, keys):
    return model.apply(
      params, context.model_state, images, train=True, keys=keys, axis=axis
    )

  if not callable(aug) and not model.has_batch_norm:
    both, state = apply(jnp.concatenate([raw, aug]), jnp.concatenate(keys))
    first = jax.tree.map(lambda x: x[:b], both)
    return first, jax.tree.map(lambda x: x[b:], both), state
  first, state = apply(raw, keys[0])
  second, _ = apply(aug(first) if callable(aug) else aug, keys[1])
  return first, second, state


def contrast_rows(
  raw: Outputs, aug: Outputs, per_image: tuple, axis: str | None
) -> tuple[tuple, tuple, Any]:
  """The rows that a contrast over both views compares.

  Image-major, so that the global order is the same on any topology.

  Args:
    raw: of b images.
    aug: of the same.
    per_image: arrays [b] that both views share, such as the labels.
    axis: the device axis, or None.

  Returns:
    This device's rows: the normalised embeddings [2b, C] and the arrays [2b];
    the same of all devices; the first row of this device among them.
  """
  b = raw.embedding.shape[0]
  embeddings = jnp.stack([raw.embedding, aug.embedding], axis=1)
  own = (
    normalise(embeddings).reshape(2 * b, -1),
    *(jnp.repeat(x, 2) for x in per_image),
  )
  everyone = tuple(sharding.gather(x, axis) for x in own)
  offset = 0 if axis is None else jax.lax.axis_index(axis) * 2 * b
  return own, everyone, offset


def predictor(model: Model) -> Callable:
  """Returns a `predict` that reads the finished test view alone."""

  def predict(params, model_state, batch):
    images = batch['image'].astype(jnp.float32) / 255.0
    outputs, _ = model.apply(params, model_state, images, train=False)
    return {'logits': outputs.logits, 'embedding': outputs.embedding}

  return predict
