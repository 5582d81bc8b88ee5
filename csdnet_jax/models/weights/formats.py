"""Arrays by name out of the three kinds of weight files."""

import io
import tokenize
import zipfile
import zlib

import numpy as np
import safetensors.numpy

from csdnet_jax.models.weights import torch_file
from csdnet_jax.runtime.errors import UserError

_MOST = 20  # Compressed weights take hardly less than others.


def read(data: bytes, path) -> dict[str, np.ndarray]:
  """Returns the arrays of a `.npz`, `.safetensors`, `.pth`, `.pt` or `.bin`.

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
  if path.suffix in ('.pth', '.pt', '.bin'):
    return torch_file.read(data, path)
  raise UserError(
    f'{path} is of no known kind: weights are read from a .npz (the original '
    'ViT), a .safetensors, or a PyTorch .pth, .pt or .bin.'
  )


def _read_npz(data, path):
  try:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
      if sum(x.file_size for x in archive.zip.infolist()) > _MOST * len(data):
        raise ValueError(f'it would unpack to over {_MOST} times its size')
      arrays = {name: archive[name] for name in archive.files}
    for name, array in arrays.items():
      if not isinstance(array, np.ndarray) or array.dtype.kind not in 'fiub':
        raise ValueError(f'{name} holds no real numbers')
    return arrays
  except (
    ValueError, TypeError, EOFError, OSError, MemoryError, RuntimeError,
    SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
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
