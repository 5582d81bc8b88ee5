"""Weights in: published ones by name, `.npz`, safetensors, PyTorch files."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csdnet_jax import models
from csdnet_jax.data.naming import class_name
from csdnet_jax.models import swin, vit
from csdnet_jax.models.weights import formats, hub, published
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError, preview

# A head for other classes is of no use; PyTorch's counters, the indices and
# masks of Swin, the mask and the periods of DINOv3, which are fixed, its norm
# where a file has it twice, CLIP's texts, what only training by masked images
# needs, and a backbone's last 1 x 1, of which a segmentation network has none,
# feed nothing.
_SKIPPED = re.compile(
  r'^(head|aux_head|pre_logits|backbone/top(_bn)?)/|(^|\.)pooler\.'
  r'|[./](num_batches_tracked|relative_position_index|attn_mask|bias_mask)$'
  r'|(^|[./])mask_token$|^rope_embed\.periods$|^norms\.'
  r'|^(text|text_model|transformer|token_embedding|ln_final)\.'
  r'|^(positional_embedding|logit_(scale|bias)|text_projection(\.weight)?'
  r'|visual\.(continual_)?proj|visual_projection\.weight)$'
)
_HEADS = ('head/', 'aux_head/')
# What a file may have none of: what trains a segmentation network only, and
# what stands above the backbone.
_AUXILIARY = {'aux', 'aux_head'}
_ABOVE = {'context'} | _AUXILIARY
_ADMIT = (
  ', or admit missing and unexpected arrays by the regex config.init_allow'
)
# What the networks have whose releases resample them without aliasing.
_ANTIALIASED = {'Transformer/registers', 'Transformer/pre_norm/scale'}
_BIASES = '/relative_position_bias'
_ATTENTION = re.compile(r'/(query|key|value|qkv|out)/(kernel|bias)$')


class Report(NamedTuple):
  """What became of each array, by our names, with shapes.

  Attributes:
    loaded: taken as they are.
    reshaped: learnt tables resampled, 'name old -> new'.
    skipped: of the file, left out: the classifier, texts, counters, tables.
    missing: of the model, not in the file, admitted: initial values stay.
    unexpected: of the file, not in the model, admitted.
    new: of the parts above a segmentation network's backbone that the file has
      nothing of: initial values stay.
    classes: of the new head, which starts at zero.
    origin: `source`, and `path` and `sha256` of a file; fit for JSON.
    known: the classes whose rows of the head were taken by name, the others
      start at zero; None where the head was taken whole, or not at all.
  """

  loaded: list[str]
  reshaped: list[str]
  skipped: list[str]
  missing: list[str]
  unexpected: list[str]
  new: list[str]
  classes: int
  origin: dict[str, str]
  known: list[str] | None = None

  def __str__(self) -> str:
    parts = [f'{len(self.loaded)} arrays loaded']
    if self.skipped:  # By name in `weights.json`: what nobody misses.
      parts.append(
        f'{len(self.skipped)} more in the file not needed (classifier, '
        'texts, counters or fixed tables)'
      )
    for what in ('reshaped', 'missing', 'unexpected', 'new'):
      if names := getattr(self, what):
        parts.append(f'{len(names)} {what} ({preview(names, 3)})')
    origin = (
      self.origin.get('repository')
      or self.origin.get('path', self.origin['source']).rpartition('/')[2]
    )
    fresh = self.classes - len(self.known or ())
    if self.known:
      head = f'head: {len(self.known)} of {self.classes} classes by name'
      head += f', {fresh} fresh, at zero' if fresh else ''
    elif 'head/bias' in {name.split(' ')[0] for name in self.loaded}:
      head = 'head loaded'
    else:
      head = f'head of {self.classes} classes starts at zero'
    return f'{", ".join(parts)}; {head}; from {origin}'

  def full(self) -> dict[str, Any]:
    """Every name, by the attributes above, as JSON can hold it."""
    return self._asdict()


def load(
  weights: str,
  model_name: str,
  params: Any,
  model_state: Any,
  *,
  classes: int,
  allow: str = '',
  head: bool = False,
  field: str = 'config.init_from',
) -> tuple[Any, Any, Report]:
  """Puts pretrained weights into the initial parameters of a model.

  Without `head` kernel and bias of the head become zero, and a segmentation
  network takes a file of its backbone alone. With it, as for a teacher, all
  must be there but the auxiliary head, which serves training: where the file
  has none the model's stays as it is. Where the model has none, the file's is
  skipped.

  Args:
    weights: 'pretrained', those that `published` has for the model, fetched
      if need be; 'imagenet', the same of an EfficientNet-Lite; or the path of
      an original ViT `.npz`, or of a `.safetensors` or a PyTorch state dict
      (`.pth`, `.pt`, `.bin`), alone or at 'state_dict' or 'model' of a
      checkpoint, under names that the model's file knows.
    model_name: what `csdnet_jax.models.build` was given.
    params: the parameters that it made, float32.
    model_state: the model state that it made.
    classes: of the head.
    allow: a regex; arrays whose name it is found in may be missing from the
      file, keeping their initial values, or unexpected in it.
    head: whether the head is loaded too.
    field: of the config that names the weights, for the sentences.

  Returns:
    params, model_state and the report.

  Raises:
    UserError: no such file or package, nothing published for the model, a file
      that cannot be fetched or is not what its name says, weights of another
      architecture, or an array missing or unexpected.
  """
  if weights in published.WORDS:
    path, arrays, origin = _published(weights, model_name, field)
  else:
    path = paths.of(weights)
    arrays, origin = _read(path, weights, model_name, field)
  return _fill(
    arrays, params, model_state, f'{path} does not fit {model_name}',
    classes=classes, allow=allow, origin=origin, head=head,
    advice=_ADMIT if field == 'config.init_from' else '',
  )  # fmt: skip


def _published(weights, model_name, field):
  """The path, the arrays and the origin of what is published for a model."""
  found = published.find(model_name)
  if found is None or (weights == published.IMAGENET and found.file):
    known = f'; {published.PRETRAINED!r} are {found.page}' if found else ''
    raise UserError(
      f'No {weights!r} weights are known for {model_name}{known}: set {field} '
      "to a file, or to '' for random values."
    )
  if not found.file:
    path = published.packaged(found, model_name)
    return path, *_read(path, weights, model_name, field)
  fetched = hub.fetch(found, model_name)
  arrays, origin = _read(
    fetched.path, weights, model_name, field,
    check=lambda sha256: hub.settle(fetched, found, sha256),
  )  # fmt: skip
  origin |= {
    'repository': found.repository,
    'revision': fetched.revision,
    'licence': found.licence,
  }
  return fetched.path, arrays, origin


def _read(path, weights, model_name, field, check=lambda sha256: None):
  """The arrays of a file under our names, and where they are from."""
  try:
    data = paths.read_bytes(path)
  except OSError as error:
    raise UserError(
      f'The weights {path} cannot be read ({error.strerror or error}): check '
      f'the path in {field}{published.how_to_fetch(path, model_name, field)}.'
    ) from error
  sha256 = hashlib.sha256(data).hexdigest()
  check(sha256)
  arrays = formats.read(data, path)
  # It pads as TensorFlow does, at the end alone where that is uneven.
  if 'mobilenet' in model_name and any('.first_conv.' in n for n in arrays):
    raise UserError(
      f"{path} holds transformers' MobileNetV2, whose padding and epsilon are "
      "others than here; take torchvision's or mmsegmentation's."
    )
  # An original ViT has our names.
  if path.suffix != '.npz':
    arrays = models.from_torch(model_name, arrays)
  origin = {
    'source': weights,
    'path': str(path),
    'sha256': sha256,
  }
  return arrays, origin


def transfer(
  source: tuple[Any, Any],
  target: tuple[Any, Any],
  *,
  theirs: Sequence[str],
  ours: Sequence[str],
  origin: dict[str, str],
) -> tuple[Any, Any, Report]:
  """Puts the weights of another run of the same model into `target`.

  Of the head the columns of those classes are taken that both have, by name;
  the others are zero.

  Args:
    source: (params, model_state) of the run.
    target: (params, model_state) just made.
    theirs: the classes of the run.
    ours: the classes of the target.
    origin: where the source is from, with the key 'source'.

  Returns:
    params, model_state and the report.

  Raises:
    UserError: an array is missing, unexpected, or of another shape.
  """
  number = {class_name(name): i for i, name in enumerate(theirs)}
  known = [i for i, name in enumerate(ours) if class_name(name) in number]
  rows = [number[class_name(ours[i])] for i in known]
  arrays = {name: np.asarray(x) for name, x in _names(source).items()}
  for name, array in arrays.items():
    if name.startswith(_HEADS):
      head = np.zeros((*array.shape[:-1], len(ours)), array.dtype)
      head[..., known] = array[..., rows]
      arrays[name] = head
  params, model_state, report = _fill(
    arrays, *target, f'{origin["source"]} does not fit the model',
    classes=len(ours), allow='', origin=origin, head=bool(known),
  )  # fmt: skip
  report = report._replace(known=[ours[i] for i in known])
  return params, model_state, report


def _names(tree):
  """{'block_0/expand/kernel': leaf} of (params, model_state)."""
  params, model_state = tree
  stats = model_state.get('batch_stats', {})
  leaves = jax.tree.leaves_with_path(params) + jax.tree.leaves_with_path(stats)
  return {'/'.join(key.key for key in path): leaf for path, leaf in leaves}


def _fill(
  arrays, params, model_state, misfit, *, classes, allow, origin, head=False,
  advice=_ADMIT,
):  # fmt: skip
  try:
    admitted = re.compile(allow).search if allow else lambda name: None
  except re.error as error:
    raise UserError(
      f'config.init_allow={allow!r} is not a regular expression: {error}.'
    ) from error
  slots = _names((params, model_state))
  ours, theirs = _parts(slots), _parts(arrays)
  unused = _AUXILIARY - ours
  fresh = (_AUXILIARY if head else _ABOVE) - theirs
  new, skipped, filled = [], [], {}
  loaded, reshaped, missing, unexpected, wrong = [], [], [], [], []
  for name, array in arrays.items():
    shown = f'{name} {list(array.shape)}'
    wanted = head and name in slots
    if _part(name) in unused or (_SKIPPED.search(name) and not wanted):
      skipped.append(shown)
    elif name not in slots:
      unexpected.append(shown)
    elif (table := _resampled(name, array, slots)) is not None:
      filled[name] = table
      reshaped.append(f'{shown} -> {list(slots[name].shape)}')
    elif _splits(name, array, slots[name]):
      filled[name] = jnp.asarray(array, jnp.float32).reshape(slots[name].shape)
      loaded.append(shown)
    elif array.shape != slots[name].shape:
      wrong.append(f'{shown}, not {list(slots[name].shape)}')
    else:
      filled[name] = jnp.asarray(array, jnp.float32)
      loaded.append(shown)
  for name, slot in slots.items():
    if _part(name) in fresh:
      new.append(f'{name} {list(slot.shape)}')
    elif name.startswith(_HEADS) and not head:
      filled[name] = jnp.zeros_like(slot)
    elif name not in arrays:
      missing.append(f'{name} {list(slot.shape)}')
  faults = {
    'missing': [n for n in missing if not admitted(n.split(' ')[0])],
    'unexpected': [n for n in unexpected if not admitted(n.split(' ')[0])],
    'of another shape': wrong,
  }
  if any(faults.values()):
    found = ', '.join(
      f'{len(names)} arrays are {what} ({preview(names)})'
      for what, names in faults.items()
      if names
    )
    # The stem of another ResNet, in which nothing else may differ.
    stem = any(name.startswith('backbone/conv1/kernel [') for name in wrong)
    if stem:
      found += (
        ': the file has another stem, one convolution of 7 x 7 or the deep one '
        'of three, which segmentation networks have'
      )
    raise UserError(
      f'{misfit}: {found}; choose the model that the weights were made for'
      f'{advice}.'
    )

  def put(path, leaf):
    return filled.get('/'.join(key.key for key in path), leaf)

  params = jax.tree.map_with_path(put, params)
  model_state = {
    collection: jax.tree.map_with_path(put, tree)
    for collection, tree in model_state.items()
  }
  report = Report(
    loaded, reshaped, skipped, missing, unexpected, new, classes, origin
  )
  return params, model_state, report


def _part(name):
  return name.partition('/')[0]


def _parts(names):
  return {_part(name) for name in names}


def _resampled(name, array, slots):
  """A learnt table for the model's own image size, or None if it fits."""
  shape = slots[name].shape
  if array.ndim != len(shape) or array.shape == shape:
    return None
  if name == vit.POSITIONS and array.shape[::2] == shape[::2]:
    # DINOv2 with registers and CLIP, alone, resample without aliasing.
    return vit.resample_positions(
      jnp.asarray(array, jnp.float32),
      shape[1],
      extra=int('cls' in slots),
      antialias=not slots.keys().isdisjoint(_ANTIALIASED),
    )
  if name.endswith(_BIASES) and array.shape[1:] == shape[1:]:
    return swin.resample_biases(jnp.asarray(array, jnp.float32), shape[0])
  return None


def _splits(name, array, slot):
  """Whether the axes of attention, which PyTorch joins, come apart."""
  one = 1 if name.endswith('bias') else 2
  joined = array.ndim == one < slot.ndim and array.size == slot.size
  if not joined or not _ATTENTION.search(name):
    return False
  # Of a kernel one of its two axes stays.
  return one == 1 or (
    array.shape[0] == slot.shape[0] or array.shape[-1] == slot.shape[-1]
  )
