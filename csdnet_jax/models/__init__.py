"""Backbones behind two pure functions; nothing above here sees Flax."""

import difflib
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csdnet_jax.models import (
  efficientnet,
  psp_deeplab,
  resnet,
  segmentation_lite,
  swin,
  vit,
  vit_exact,
)
from csdnet_jax.runtime.errors import UserError


class Outputs(NamedTuple):
  """What every model gives for B images, all float32.

  Attributes:
    features: the last feature map F, [B, h, w, C]; patch tokens for a ViT.
    embedding: the pooled embedding z, [B, C], the input of the head.
    logits: p, [B, classes]; of a segmentation network [B, h, w, classes].
    aux: the logits of its auxiliary head, [B, h, w, classes].
  """

  features: jax.Array
  embedding: jax.Array
  logits: jax.Array
  aux: jax.Array | None = None


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
      averages; without, `model_state` comes back unchanged.
    head: `params -> (kernel [C, classes], bias [classes])`.
    has_batch_norm: whether views must be forwarded one after the other.
    mean: the colour, [3] in [0, 1], that normalises to zero.
  """

  init: Callable[..., tuple[Any, Any]]
  apply: Callable[..., tuple[Outputs, Any]]
  head: Callable[[Any], tuple[jax.Array, jax.Array]]
  has_batch_norm: bool
  mean: tuple[float, float, float]


def _sizes(width, depth, heads, patch):
  return {
    'width': width,
    'depth': depth,
    'heads': heads,
    'mlp': 4 * width,
    'patch': patch,
  }


def _vit(width, depth, heads, patch, pool='cls'):
  return vit, _sizes(width, depth, heads, patch) | {'pool': pool}


def _deit(width, depth, heads):
  return vit_exact, _sizes(width, depth, heads, 16)


def _dinov2(width, depth, heads, registers, patch=14):
  sizes = _sizes(width, depth, heads, patch)
  return vit_exact, sizes | {'layer_scale': True, 'registers': registers}


def _swin(width, depths, heads, window=7):
  return swin, {
    'width': width,
    'depths': depths,
    'heads': heads,
    'window': window,
  }


# Each name's file and what its `Net` takes beside classes and drop rates.
MODELS = {
  'efficientnet_lite0': (efficientnet, {'width': 1.0, 'depth': 1.0}),
  'efficientnet_lite1': (efficientnet, {'width': 1.0, 'depth': 1.1}),
  'efficientnet_lite2': (efficientnet, {'width': 1.1, 'depth': 1.2}),
  'resnet18': (resnet, {'depths': (2, 2, 2, 2), 'bottleneck': False}),
  'resnet50': (resnet, {'depths': (3, 4, 6, 3), 'bottleneck': True}),
  'resnet101': (resnet, {'depths': (3, 4, 23, 3), 'bottleneck': True}),
  'vit_ti16': _vit(192, 12, 3, 16),
  'vit_s8': _vit(384, 12, 6, 8),
  'vit_s16': _vit(384, 12, 6, 16),
  'vit_b8': _vit(768, 12, 12, 8),
  'vit_b16': _vit(768, 12, 12, 16),
  'vit_b32': _vit(768, 12, 12, 32),
  'vit_l16': _vit(1024, 24, 16, 16),
  'deit_ti16': _deit(192, 12, 3),
  'deit_s16': _deit(384, 12, 6),
  'deit_b16': _deit(768, 12, 12),
  'vit_s14_dinov2': _dinov2(384, 12, 6, 0),
  'vit_b14_dinov2': _dinov2(768, 12, 12, 0),
  'vit_l14_dinov2': _dinov2(1024, 24, 16, 0),
  'vit_s14_dinov2_reg': _dinov2(384, 12, 6, 4),
  'vit_b14_dinov2_reg': _dinov2(768, 12, 12, 4),
  'vit_l14_dinov2_reg': _dinov2(1024, 24, 16, 4),
  'swin_t': _swin(96, (2, 2, 6, 2), (3, 6, 12, 24)),
  'swin_s': _swin(96, (2, 2, 18, 2), (3, 6, 12, 24)),
  'swin_b': _swin(128, (2, 2, 18, 2), (4, 8, 16, 32)),
  'swin_l': _swin(192, (2, 2, 18, 2), (6, 12, 24, 48)),
  'swin_b_w12': _swin(128, (2, 2, 18, 2), (4, 8, 16, 32), 12),
  'swin_l_w12': _swin(192, (2, 2, 18, 2), (6, 12, 24, 48), 12),
}
MODELS |= {
  name: (module, sizes)
  for module in (psp_deeplab, segmentation_lite)
  for name, sizes in module.MODELS.items()
}

# They learn nothing worth having: no message offers them.
_FOR_TESTS = {
  'efficientnet_tiny': (
    efficientnet,
    {
      'stages': ((1, 3, 1, 1, 8), (2, 5, 2, 2, 16)),
      'stem': 8,
      'top': 32,
    },
  ),
  'resnet_tiny': (
    resnet,
    {'depths': (1, 1, 1, 2), 'bottleneck': True, 'width': 4},
  ),
  'vit_tiny': _vit(32, 2, 2, 8),
  'vit_tiny_gap': _vit(32, 2, 2, 8, 'gap'),
  'dinov2_tiny': _dinov2(32, 2, 2, 0, 8),
  'dinov2_tiny_reg': _dinov2(32, 2, 2, 2, 8),
  'psp_tiny': (
    psp_deeplab,
    {
      'backbone': functools.partial(
        resnet.Backbone, (1, 1, 1), False, 4, output_stride=8
      ),
      'deeplab': False,
      'width': 16,
      'aux_width': 16,
    },
  ),
  'swin_micro': _swin(16, (1, 2), (2, 4), 3),
}


def build(
  name: str,
  *,
  classes: int,
  drop_rate: float,
  drop_path: float,
  remat: bool = False,
  dtype: str = 'float32',
  **sizes,
) -> Model:
  """Makes the model called `name`.

  Args:
    name: a key of MODELS.
    classes: the width of the head, whose kernel and bias start at zero.
    drop_rate: dropout of the embedding before the head, in [0, 1).
    drop_path: the largest rate of drop path, in [0, 1).
    remat: recompute each block in the backward pass instead of keeping its
      activations: one more forward pass, for less memory.
    dtype: of matrix products, convolutions and activations, 'float32' or
      'bfloat16'. Parameters, the moments of norms, softmax and the outputs
      are float32 in either.
    sizes: of the net, instead of those of the name, such as the `width` of a
      segmentation network's penultimate map.

  Raises:
    UserError: for a name that is not in MODELS.
  """
  module, published = _find(name)
  net = module.Net(
    classes=classes,
    drop_rate=drop_rate,
    drop_path=drop_path,
    remat=remat,
    dtype=jnp.dtype(dtype),
    **(published | sizes),
  )
  mean, std = np.float32(module.MEAN), np.float32(module.STD)

  def init(key, image_size):
    image = jnp.zeros((1, image_size, image_size, 3))
    variables = net.init(key, image, train=False, keys=None, axis=None)
    params = draw(key, variables.pop('params'))
    return params, variables

  def apply(params, model_state, images, *, train, keys=None, axis=None):
    if train and keys is None and (drop_rate or drop_path):
      raise ValueError('dropout and drop path need `keys`')
    outputs, moved = net.apply(
      {'params': params, **model_state},
      (images - mean) / std,
      train=train,
      keys=keys,
      axis=axis,
      mutable=list(model_state) if train else [],
    )
    outputs = Outputs(*(x.astype(jnp.float32) for x in outputs))
    return outputs, moved if train else model_state

  def head(params):
    return params['head']['kernel'], params['head']['bias']

  return Model(init, apply, head, module.HAS_BATCH_NORM, module.MEAN)


def from_torch(
  name: str, arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Arrays under PyTorch's names, under those of the model called `name`.

  Args:
    name: a key of MODELS.
    arrays: by any of the names that the model's file knows.

  Returns:
    The same in our layout; a name that is not known is kept.

  Raises:
    UserError: for a name that is not in MODELS.
  """
  return module_of(name).from_torch(arrays)


def module_of(name: str):
  """Returns the module that a network is written in.

  Raises:
    UserError: for a name that is not in MODELS.
  """
  return _find(name)[0]


def segments(name: str) -> bool:
  """Returns whether a network gives logits for every pixel.

  Raises:
    UserError: for a name that is not in MODELS.
  """
  return module_of(name).Net is psp_deeplab.Net


def _find(name):
  known = MODELS | _FOR_TESTS
  if name not in known:
    near = difflib.get_close_matches(name, MODELS, 1, 0)[0]
    raise UserError(
      f'There is no model called {name!r}: did you mean {near!r}? The models '
      f'are {", ".join(MODELS)}.'
    )
  return known[name]


def _is_random(path) -> bool:
  names = {'kernel', 'pos_embedding', 'relative_position_bias'}
  return (
    path[-1].key in names
    or jax.tree_util.keystr(path, simple=True, separator='/')
    == 'embedding/bias'
  )


def draw(key: jax.Array, params):
  """Puts normal draws where `params` hold standard deviations.

  The nets fill what is random, all that `_is_random`, with its standard
  deviation. One draw then serves them all: XLA takes a good part of a second
  to compile each, and a net has dozens.

  Args:
    key: a PRNG key.
    params: a tree of dicts of float32 arrays.

  Returns:
    `params` with `deviation * normal` in those leaves.
  """
  leaves, tree = jax.tree.flatten_with_path(params)
  total = sum(x.size for path, x in leaves if _is_random(path))
  noise, start = jax.random.normal(key, (total,)), 0
  drawn = []
  for path, x in leaves:
    if _is_random(path):
      size = math.prod(x.shape)
      x = x * noise[start : start + size].reshape(x.shape)
      start += size
    drawn.append(x)
  return jax.tree.unflatten(tree, drawn)
