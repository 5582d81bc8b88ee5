"""Our networks on the weights and images of `tests/golden/backbones.npz`."""

import functools
import json
import pathlib

import jax
import numpy as np
from flax.core import meta
from safetensors.numpy import save_file

from csdnet_jax import models
from csdnet_jax.models.weights import pretrained

from drawn import draw, pixels

_FOLDER = pathlib.Path(__file__).parents[1] / 'golden'
# {network: {array: shape}}, by PyTorch's names.
KEYS = json.loads((_FOLDER / 'backbones.json').read_text())


def values(name: str) -> np.ndarray:
  """An array of `backbones.npz`."""
  with np.load(_FOLDER / 'backbones.npz') as arrays:
    return arrays[name]


def sizes(spec: models.ModelSpec, name: str, image: int) -> tuple[dict, dict]:
  """{array: its number of entries} of a published file and of our network.

  Without their values, whatever their size; both by our names.

  Args:
    spec: ours.
    name: theirs, in `backbones.json`.
    image: the size of our images.
  """
  zeros = {k: np.broadcast_to(np.float32(0), v) for k, v in KEYS[name].items()}
  theirs = {k: x.size for k, x in spec.from_torch(zeros).items()}
  net = spec.net(classes=3, drop_rate=0.0, drop_path=0.0, **spec.sizes)
  made = jax.eval_shape(
    functools.partial(net.init, train=False, keys=None, axis=None),
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, image, image, 3), np.float32),
  )
  params = meta.unbox(made)['params']
  ours = {
    '/'.join(key.key for key in path): x.size
    for path, x in jax.tree.leaves_with_path(params)
    if path[0].key != 'head'
  }
  return theirs, ours


def load(path, spec, arrays, image, monkeypatch):
  """Our network with `arrays` of theirs: model, params, state and the report.

  Args:
    path: a folder where the file of weights may be written.
    spec: ours.
    arrays: by their names.
    image: the size of our images.
    monkeypatch: registers `spec`.
  """
  monkeypatch.setitem(models.KNOWN, 'golden', spec)
  file = path / 'golden.safetensors'
  save_file(arrays, file)
  model = models.build('golden', classes=3, drop_rate=0.0, drop_path=0.0)
  # Shapes alone: the file has every value, the head starts at zero.
  made = jax.eval_shape(lambda key: model.init(key, image), jax.random.key(0))
  return model, *pretrained.load(str(file), 'golden', *made, classes=3)


def outputs(path, spec, name, size, monkeypatch):
  """What our network gives for the weights that a golden one was drawn with.

  Args:
    path, spec, monkeypatch: as for `load`.
    name: theirs, in `backbones.json`.
    size: (H, W) of the images.
  """
  arrays = draw(KEYS[name])
  model, params, state, _ = load(path, spec, arrays, max(size), monkeypatch)
  apply = jax.jit(model.apply, static_argnames='train')
  return apply(params, state, pixels(*size), train=False)[0]
