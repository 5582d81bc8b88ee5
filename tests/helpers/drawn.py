"""Weights drawn by name, so that no golden file needs to hold them."""

import re
import zlib

import numpy as np


def draw(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
  """Values of the size that training leaves, from each array's name alone.

  Args:
    shapes: of a PyTorch network's arrays, by name.

  Returns:
    {name: float32}.
  """
  return {name: _values(name, shape) for name, shape in shapes.items()}


def _values(name, shape):
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  # An array even where it is a single number.
  noise = np.asarray(rng.standard_normal(shape, np.float32))
  scale = re.search(r'(norm\w*|ln_\w+)(\.\d)?\.weight$|stem\.1\.weight$', name)
  if scale or re.search(r'downsample\.0\.weight$|gamma|ls\d', name):
    return 1 + noise / 10
  if len(shape) > 1 and name.endswith('weight'):
    return noise / np.float32(noise[0].size ** 0.5)
  return np.asarray(noise / 5)


def pixels(height: int, width: int) -> np.ndarray:
  """Two images, [2, H, W, 3] float32 in [0, 1]."""
  rng = np.random.default_rng(height * 1000 + width)
  return rng.random((2, height, width, 3), np.float32)
