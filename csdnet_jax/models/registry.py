"""Every network by its name, and what it is made with."""

import difflib
import functools

import flax
import jax.numpy as jnp
import numpy as np

from csdnet_jax.models import (
  clip,
  convnext,
  dinov3,
  efficientnet,
  psp_deeplab,
  resnet,
  swin,
  vit,
)
from csdnet_jax.models.base import Model, ModelSpec, Outputs
from csdnet_jax.models.initialise import draw
from csdnet_jax.models.weights import published
from csdnet_jax.runtime import plugins
from csdnet_jax.runtime.errors import UserError

# The colours that published weights were trained with.
_IMAGENET = published.IMAGENET_COLOURS
_LITE = published.LITE_COLOURS
_VIT = published.VIT_COLOURS
_CLIP = published.CLIP_COLOURS


def _ours(module, colours, sizes, **more):
  return ModelSpec(
    net=module.Net, sizes=sizes, from_torch=module.from_torch,
    declared=True, **colours, **more,
  )  # fmt: skip


def _lite(**sizes):
  return _ours(efficientnet, _LITE, sizes, has_batch_norm=True, has_fine=True)


def _resnet(depths, bottleneck, **sizes):
  sizes |= {'depths': depths, 'bottleneck': bottleneck}
  return _ours(resnet, _IMAGENET, sizes, has_batch_norm=True)


def _vit(width, depth, heads, patch, colours=_VIT, **more):
  sizes = {
    'width': width,
    'depth': depth,
    'heads': heads,
    'mlp': 4 * width,
    'patch': patch,
  }
  return _ours(vit, colours, sizes | more)


# Touvron et al., DeiT, ICML 2021; Oquab et al., DINOv2, TMLR 2024; Darcet et
# al., Vision Transformers Need Registers, ICLR 2024: trained in PyTorch, with
# its exact GELU.
_deit = functools.partial(_vit, colours=_IMAGENET, exact_gelu=True)


def _dinov2(width, depth, heads, registers, patch=14):
  return _deit(
    width, depth, heads, patch, layer_scale=True, registers=registers
  )


def _dinov3(width, depth, heads, patch=16, **more):
  sizes = {'width': width, 'depth': depth, 'heads': heads, 'patch': patch}
  return _ours(dinov3, _IMAGENET, sizes | {'mlp': 4 * width} | more)


def _clip(width, depth, heads, patch, **more):
  sizes = {'width': width, 'depth': depth, 'heads': heads, 'patch': patch}
  return _ours(clip, _CLIP, sizes | {'mlp': 4 * width} | more)


def _swin(width, depths, heads, window=7):
  sizes = {'width': width, 'depths': depths, 'heads': heads, 'window': window}
  return _ours(swin, _IMAGENET, sizes)


def _convnext(width, depths):
  return _ours(convnext, _IMAGENET, {'width': width, 'depths': depths})


def _segmentation(colours, backbone, deeplab, **more):
  sizes = {'backbone': backbone, 'deeplab': deeplab, **more}
  return _ours(
    psp_deeplab, colours, sizes, has_batch_norm=True, segments=True
  )  # fmt: skip


MODELS = {
  'efficientnet_lite0': _lite(width=1.0, depth=1.0),
  'efficientnet_lite1': _lite(width=1.0, depth=1.1),
  'efficientnet_lite2': _lite(width=1.1, depth=1.2),
  'resnet18': _resnet((2, 2, 2, 2), False),
  'resnet50': _resnet((3, 4, 6, 3), True),
  'resnet101': _resnet((3, 4, 23, 3), True),
  'vit_ti16': _vit(192, 12, 3, 16),
  'vit_s8': _vit(384, 12, 6, 8),
  'vit_s16': _vit(384, 12, 6, 16),
  'vit_b8': _vit(768, 12, 12, 8),
  'vit_b16': _vit(768, 12, 12, 16),
  'vit_b32': _vit(768, 12, 12, 32),
  'vit_l16': _vit(1024, 24, 16, 16),
  'deit_ti16': _deit(192, 12, 3, 16),
  'deit_s16': _deit(384, 12, 6, 16),
  'deit_b16': _deit(768, 12, 12, 16),
  'vit_s14_dinov2': _dinov2(384, 12, 6, 0),
  'vit_b14_dinov2': _dinov2(768, 12, 12, 0),
  'vit_l14_dinov2': _dinov2(1024, 24, 16, 0),
  'vit_s14_dinov2_reg': _dinov2(384, 12, 6, 4),
  'vit_b14_dinov2_reg': _dinov2(768, 12, 12, 4),
  'vit_l14_dinov2_reg': _dinov2(1024, 24, 16, 4),
  # DINOv2, trained on the plants of PlantCLEF 2024.
  'vit_b14_plantclef': _dinov2(768, 12, 12, 4),
  'vit_s16_dinov3': _dinov3(384, 12, 6),
  'vit_splus16_dinov3': _dinov3(384, 12, 6, gated=True),
  'vit_b16_dinov3': _dinov3(768, 12, 12),
  'vit_l16_dinov3': _dinov3(1024, 24, 16),
  # Of BioCLIP 2 and 2.5 the colours, CLIP's, and the exact GELU are assumed.
  'vit_b16_bioclip': _clip(768, 12, 12, 16, quick_gelu=True),
  'vit_l14_bioclip2': _clip(1024, 24, 16, 14),
  'vit_h14_bioclip25': _clip(1280, 32, 16, 14),
  'swin_t': _swin(96, (2, 2, 6, 2), (3, 6, 12, 24)),
  'swin_s': _swin(96, (2, 2, 18, 2), (3, 6, 12, 24)),
  'swin_b': _swin(128, (2, 2, 18, 2), (4, 8, 16, 32)),
  'swin_l': _swin(192, (2, 2, 18, 2), (6, 12, 24, 48)),
  'swin_b_w12': _swin(128, (2, 2, 18, 2), (4, 8, 16, 32), 12),
  'swin_l_w12': _swin(192, (2, 2, 18, 2), (6, 12, 24, 48), 12),
}
# Of one network, those that ImageNet-22k trained and those of DINOv3.
MODELS |= {
  f'convnext_{size}{pretraining}': spec
  for size, spec in {
    't': _convnext(96, (3, 3, 9, 3)),
    's': _convnext(96, (3, 3, 27, 3)),
    'b': _convnext(128, (3, 3, 27, 3)),
  }.items()
  for pretraining in ('', '_dinov3')
}
# Each backbone below PSPNet's context and below DeepLabV3's, with the colours
# of its own weights.
MODELS |= {
  f'{head}_{name}': _segmentation(colours, backbone, head == 'deeplab')
  for backbones, colours in (
    (psp_deeplab.BACKBONES, _IMAGENET),
    (psp_deeplab.LITE_BACKBONES, _LITE),
  )
  for head in ('psp', 'deeplab')
  for name, backbone in backbones.items()
}

# All that a name may mean: those of the tests too, which learn nothing worth
# having, so that no message offers them.
KNOWN = MODELS | {
  'efficientnet_tiny': _lite(
    stages=((1, 3, 1, 1, 8), (2, 5, 2, 2, 16)), stem=8, top=32
  ),
  'resnet_tiny': _resnet((1, 1, 1, 2), True, width=4),
  'vit_tiny': _vit(32, 2, 2, 8),
  'vit_tiny_gap': _vit(32, 2, 2, 8, pool='gap'),
  'dinov2_tiny': _dinov2(32, 2, 2, 0, 8),
  'dinov2_tiny_reg': _dinov2(32, 2, 2, 2, 8),
  'clip_tiny': _clip(32, 2, 2, 8),
  'convnext_micro': _convnext(8, (1, 1, 2)),
  'dinov3_tiny': _dinov3(32, 2, 2, 8, registers=2),
  'dinov3_tiny_gated': _dinov3(32, 2, 2, 8, registers=2, gated=True),
  'psp_tiny': _segmentation(
    _IMAGENET,
    functools.partial(resnet.Backbone, (1, 1, 1), False, 4, output_stride=8),
    False,
    width=16,
    aux_width=16,
  ),
  'swin_micro': _swin(16, (1, 2), (2, 4), 3),
}


def find(name: str) -> ModelSpec:
  """Returns the network called `name`.

  Args:
    name: a key of KNOWN, or an importable module that defines
      `SPEC = ModelSpec(...)`.

  Raises:
    UserError: there is no such network, or the module is not fit.
  """
  if name not in KNOWN and not plugins.exists(name):
    near = difflib.get_close_matches(name, MODELS, 1, 0)[0]
    raise UserError(
      f'There is no model called {name!r}: did you mean {near!r}? The models '
      f'are {", ".join(MODELS)}.'
    )
  return plugins.find('config.model.name', name, KNOWN, ModelSpec)


def segments(name: str) -> bool:
  """Returns whether a network gives logits for every pixel.

  Raises:
    UserError: as `find` does.
  """
  return find(name).segments


def from_torch(
  name: str, arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Arrays under PyTorch's names, under those of the model called `name`.

  Args:
    name: as `find` takes it.
    arrays: by any of the names that the network's file knows.

  Returns:
    The same in our layout; a name that is not known is kept.

  Raises:
    UserError: as `find` does.
  """
  return find(name).from_torch(arrays)


def build(
  name: str,
  *,
  classes: int,
  drop_rate: float,
  drop_path: float,
  remat: bool = False,
  dtype: str = 'float32',
  freeze_bn: bool = False,
  **sizes,
) -> Model:
  """Makes the model called `name`.

  Args:
    name: as `find` takes it.
    classes: the width of the head, whose kernel and bias start at zero.
    drop_rate: dropout of the embedding before the head, in [0, 1).
    drop_path: the largest rate of drop path, in [0, 1).
    remat: recompute each block in the backward pass instead of keeping its
      activations: one more forward pass, for less memory.
    dtype: of matrix products, convolutions and activations, 'float32' or
      'bfloat16'. Parameters, the moments of norms, softmax and the outputs
      are float32 in either.
    freeze_bn: BatchNorm keeps its averages in training, and normalises by them.
    sizes: of the net, instead of those of the name, such as the `width` of a
      segmentation network's penultimate map; or values of its own `fields`.

  Raises:
    UserError: as `find` does.
  """
  spec = find(name)
  net = spec.net(
    classes=classes,
    drop_rate=drop_rate,
    drop_path=drop_path,
    remat=remat,
    dtype=jnp.dtype(dtype),
    **{**spec.sizes, **sizes},
  )
  mean, std = np.float32(spec.mean), np.float32(spec.std)

  def init(key, image_size):
    image = jnp.zeros((1, image_size, image_size, 3))
    variables = dict(net.init(key, image, train=False, keys=None, axis=None))
    params = draw(key, variables.pop('params'), declared=spec.declared)
    if not {'kernel', 'bias'} <= params.get('head', {}).keys():
      raise UserError(
        f"The network {name} has no layer 'head' with a kernel and a bias; "
        "make its last layer nn.Dense(classes, name='head')."
      )
    return params, variables

  def apply(params, model_state, images, *, train, keys=None, axis=None):
    if train and keys is None and (drop_rate or drop_path):
      raise ValueError('dropout and drop path need `keys`')
    moving = train and not freeze_bn
    try:
      outputs, moved = net.apply(
        {'params': params, **model_state},
        (images - mean) / std,
        train=train,
        keys=keys,
        axis=axis,
        mutable=list(model_state) if moving else [],
      )
    except flax.errors.ModifyScopeVariableError as error:
      raise UserError(
        f'The network {name} moves averages that config.model.freeze_bn keeps; '
        "take them as they are where `is_mutable_collection('batch_stats')` is "
        'false, or leave config.model.freeze_bn False.'
      ) from error
    outputs = Outputs(
      *(x if x is None else x.astype(jnp.float32) for x in outputs)
    )
    return outputs, moved if moving else model_state

  def head(params):
    return params['head']['kernel'], params['head']['bias']

  return Model(
    init, apply, head, spec.has_batch_norm and not freeze_bn, spec.mean,
    spec.has_fine,
  )  # fmt: skip
