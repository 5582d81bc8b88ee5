"""Small pictures and data sets for the tests, written where they are asked."""

import atexit
import io
import pathlib
import shutil
import tempfile

import ml_collections
import numpy as np
from PIL import Image

from csdnet_jax.data import sources

# What the tests decode goes here, and away with them.
_CACHE = tempfile.mkdtemp()
atexit.register(shutil.rmtree, _CACHE)


def pixels(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
  """Noise, uint8 [height, width, 3]; another seed gives another picture."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, 3), np.uint8)


def encode(image: np.ndarray | Image.Image, kind: str = 'PNG', **kw) -> bytes:
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  encoded = io.BytesIO()
  image.save(encoded, kind, **kw)
  return encoded.getvalue()


def write(path: pathlib.Path, data: bytes) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(data)
  return path


def class_folders(root: pathlib.Path, counts: dict[str, int]) -> pathlib.Path:
  """`<class>/<i>.png`, all pictures different."""
  for c, (name, n) in enumerate(counts.items()):
    (root / name).mkdir(parents=True, exist_ok=True)
    for i in range(n):
      write(root / name / f'{i}.png', encode(pixels(1000 * c + i)))
  return root


def ufg_layout(
  root: pathlib.Path,
  train: dict[str, int],
  test: dict[str, int],
  classes: dict[int, str] | None = None,
) -> pathlib.Path:
  """`images/` and `anno/` from path -> label, all pictures different."""
  for i, name in enumerate([*train, *test]):
    write(root / 'images' / name, encode(pixels(i)))
  for part, labels in {'train': train, 'test': test}.items():
    lines = ''.join(f'{name} {label}\n' for name, label in labels.items())
    write(root / 'anno' / f'{part}.txt', lines.encode())
  if classes:
    lines = ''.join(f'{label} {name}\n' for label, name in classes.items())
    write(root / 'anno' / 'classes.txt', lines.encode())
  return root


def data_config(**fields) -> ml_collections.ConfigDict:
  """`config.data`, as far as a source of images reads it."""
  data = {
    'source': 'folder',
    'root': '',
    'name': '',
    'test_fraction': 0.5,
    'val_fraction': 0.0,
    'shots': 0,
    'split_seed': 0,
    'resplit': False,
    'group': '',
    'table': '',
    'unreadable': 'stop',
    'cache': _CACHE,
    'leaves': {},
  }
  return ml_collections.ConfigDict(data | fields)


def load(root, split=None, **fields):
  """The data set of `data_config`."""
  data = data_config(root=str(root), **fields)
  return sources.load_images(data, split=split)
