"""Arrays by name out of the three kinds of weight files."""

import io
import zipfile
import zlib

import numpy as np
import safetensors.numpy

from csdnet_jax.errors import UserError
from csdnet_jax.models import torch_file


def read(data: bytes, path) -> dict[str, np.ndarray]:
  """Returns the arrays of a `.npz`, `.safetensors`, `.pth` or `.pt`, by name.

  Args:
    data: the content of the file.
    path: its path, whose suffix says the kind.

  Raises:
    UserError: the file is of another kind, damaged, or no plain arrays.
  """
  if path.suffix == '.npz':
    return _read_npz(data, path)
  if path.suffix == '.safetensors':
    return _read_safetensors(data, path)
  if path.suffix in ('.pth', '.pt'):
    return torch_file.read(data, path)
  raise UserError(
    f'{path} is of no known kind: weights are read from a .npz (the original '
    'ViT), a .safetensors, or a PyTorch .pth or .pt.'
  )


def _read_npz(data, path):
  try:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
      return {name: archive[name] for name in archive.files}
  except (
    ValueError, TypeError, EOFError, OSError, MemoryError, RuntimeError,
    zipfile.BadZipFile, zlib.error,
  ) as error:  # fmt: skip
    reason = str(error) or 'out of memory'
    raise UserError(
      f'{path} cannot be read as a .npz of plain arrays ({reason}): it is '
      'damaged or of another kind; fetch it again.'
    ) from error


def _read_safetensors(data, path):
  try:
    return safetensors.numpy.load(data)
  except (
    safetensors.SafetensorError, ValueError, TypeError, KeyError, MemoryError,
  ) as error:  # fmt: skip
    raise UserError(
      f'{path} cannot be read as a .safetensors of float32, float16 or '
      f'integer arrays ({error or "out of memory"}): it is damaged or of '
      'another kind; fetch it again.'
    ) from error
