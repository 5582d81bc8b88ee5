"""What a network is to the rest: two pure functions; nobody else sees Flax."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

Colour = tuple[float, float, float]


class Outputs(NamedTuple):
  """What every model gives for B images, all float32.

  Attributes:
    features: the last feature map F, [B, h, w, C]; patch tokens for a ViT.
    embedding: the pooled embedding z, [B, C], the input of the head.
    logits: p, [B, classes]; of a segmentation network [B, h, w, classes].
    aux: the logits of its auxiliary head, [B, h, w, classes].
    fine: the last map of stride 8 or less, [B, h', w', C'].
  """

  features: jax.Array
  embedding: jax.Array
  logits: jax.Array
  aux: jax.Array | None = None
  fine: jax.Array | None = None


class Model(NamedTuple):
  """A backbone with a linear head.

  Attributes:
    init: `(key, image_size) -> (params, model_state)`.
    apply: `(params, model_state, images, *, train, keys=None, axis=None) ->
      (Outputs, model_state)`. Images are [B, H, W, 3] float32 in [0, 1]; the
      model normalises them by `mean` and `std` itself. With `train`, dropout
      and drop path draw from `keys`, [B] PRNG keys, one a row, so that a row's
      draw is the same on any number of devices, and BatchNorm uses the moments
      of the batch over the device axis `axis` and returns moved running
      averages; without, or where it is frozen, `model_state` comes back
      unchanged.
    head: `params -> (kernel [C, classes], bias [classes])`.
    has_batch_norm: whether moments of a batch are taken in training, so that
      views must be forwarded one after the other.
    mean: the colour, [3] in [0, 1], that normalises to zero.
    has_fine: whether it gives `Outputs.fine`.
  """

  init: Callable[..., tuple[Any, Any]]
  apply: Callable[..., tuple[Outputs, Any]]
  head: Callable[[Any], tuple[jax.Array, jax.Array]]
  has_batch_norm: bool
  mean: Colour
  has_fine: bool = False


def _as_they_are(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  return arrays


class ModelSpec(NamedTuple):
  """A network by its name: ours in the registry, others' in their own module.

  A module outside this package defines `SPEC = ModelSpec(...)` and is chosen by
  its importable name.

  Attributes:
    net: makes the Flax module, such as its class. It is called by keyword with
      `classes`, `drop_rate`, `drop_path`, `remat`, `dtype` and `sizes`; what
      they mean is said at `csdnet_jax.models.build`. The module is called as
      `net(x, train=, keys=, axis=)`, x being normalised images [B, H, W, 3],
      and returns the fields of `Outputs` in order,
      None for one between them that it has not. `keys` and `axis` are those
      of `Model.apply`. Its last layer is dense and called 'head'.
    mean: the colour in [0, 1] that is subtracted from images.
    std: what they are divided by after that.
    sizes: what else `net` takes.
    has_batch_norm: whether it has BatchNorm, whose averages are its variables
      and stay as they are wherever their collection is not mutable.
    from_torch: `{name: array} -> {name: array}` from PyTorch's names and
      layouts to those of the module; a name that it does not know is kept.
    has_fine: see `Model`.
    segments: whether logits are given for every pixel.
    fields: fields of the config that are the network's own; their values are
      passed to `net` beside `sizes`.
    declared: whether every parameter is made by `models.initialise`, whose one
      draw compiles faster than one for each; otherwise any initializer of Flax
      may make one.
  """

  net: Callable[..., Any]
  mean: Colour
  std: Colour
  sizes: Mapping[str, Any] = MappingProxyType({})
  has_batch_norm: bool = False
  has_fine: bool = False
  from_torch: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = (
    _as_they_are
  )
  segments: bool = False
  fields: Mapping[str, Any] = MappingProxyType({})
  declared: bool = False
