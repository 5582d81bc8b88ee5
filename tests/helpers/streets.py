"""Drawn streets with masks, in the layouts that the readers know."""

import pathlib
import types

import numpy as np
from PIL import Image

from csdnet_jax.data.masks import layouts
from csdnet_jax.data.masks.pairs import prepare, scanned

import images

NAMES = ('sky', 'house', 'road', 'car', 'lamp post')
_COLOURS = np.array(
  [[150, 190, 235], [170, 110, 90], [95, 95, 100], [200, 40, 40], [60, 60, 60]]
)


def street(
  seed: int, height: int = 48, width: int = 64
) -> tuple[np.ndarray, np.ndarray]:
  """A picture, uint8 [height, width, 3], and its classes, with a void strip."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:height, :width] / height
  mask = np.where(y < 0.6, 0, 2).astype(np.uint8)
  edge = 0.0
  while edge < width / height:
    wide, top = rng.uniform(0.15, 0.4), rng.uniform(0.1, 0.5)
    mask[(x >= edge) & (x < edge + wide) & (y > top) & (y < 0.6)] = 1
    edge += wide + rng.uniform(0.05, 0.2)
  for _ in range(3):
    cy, cx = rng.uniform(0.6, 0.9), rng.uniform(0, width / height)
    mask[(abs(y - cy) < 0.08) & (abs(x - cx) < 0.14)] = 3
  post = rng.uniform(0.1, width / height - 0.1)
  mask[(abs(x - post) < 0.02) & (y > 0.2) & (y < 0.7)] = 4
  noise = rng.normal(0, 8, (height, width, 3))
  image = np.clip(_COLOURS[mask] + noise, 0, 255).astype(np.uint8)
  mask[-2:] = 255
  return image, mask


def png(mask: np.ndarray) -> bytes:
  return images.encode(Image.fromarray(mask))


def pairs(
  root: pathlib.Path, parts: dict[str, int], **size: int
) -> pathlib.Path:
  """The layout 'pairs', with so many streets in each part."""
  for p, (part, n) in enumerate(parts.items()):
    for i in range(n):
      image, mask = street(100 * p + i, **size)
      images.write(root / 'images' / part / f'{i}.png', images.encode(image))
      images.write(root / 'masks' / part / f'{i}.png', png(mask))
  images.write(root / 'classes.txt', '\n'.join(NAMES).encode())
  return root


def opened(root):
  data = types.SimpleNamespace(source='pairs', root=str(root), name='')
  return layouts.load(data)


def prepared(root, folder, resize=0, **kw):
  dataset = scanned(opened(root))
  return prepare(dataset, resize=resize, cache_dir=folder, **kw)
