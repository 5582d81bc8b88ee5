"""Reads the tensors of a PyTorch file without PyTorch, executing nothing.

A pickle is a program. Before one is run here, all its instructions are read
and anything that could reach beyond tensors, numbers and dictionaries is
refused by name; the unpickler then knows no function but the one that notes
a tensor's shape. Both formats of `torch.save` are read: the one before
PyTorch 1.6, a row of pickles and then the raw numbers, and the zip archive.
"""

import collections
import io
import lzma
import math
import pickle
import pickletools
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from csdnet_jax.runtime.errors import UserError

MAGIC = 0x1950A86A20F9469CFC6C

DTYPES = {
  'DoubleStorage': np.dtype('<f8'),
  'FloatStorage': np.dtype('<f4'),
  'HalfStorage': np.dtype('<f2'),
  'LongStorage': np.dtype('<i8'),
  'IntStorage': np.dtype('<i4'),
  'ShortStorage': np.dtype('<i2'),
  'CharStorage': np.dtype('i1'),
  'ByteStorage': np.dtype('u1'),
  'BoolStorage': np.dtype('?'),
}

# Instructions that name or make things in ways no tensor needs.
_REFUSED = {
  'STACK_GLOBAL', 'INST', 'OBJ', 'NEWOBJ', 'NEWOBJ_EX', 'EXT1', 'EXT2', 'EXT4',
  'NEXT_BUFFER', 'READONLY_BUFFER',
}  # fmt: skip

# What a broken pickle or archive raises inside the standard library.
_BROKEN = (
  pickle.UnpicklingError, zipfile.BadZipFile, EOFError, ValueError, TypeError,
  LookupError, AttributeError, OverflowError, MemoryError, RuntimeError,
  OSError, zlib.error, lzma.LZMAError,
)  # fmt: skip


class _Storage(NamedTuple):
  key: str
  dtype: np.dtype
  size: int


class _Tensor(NamedTuple):
  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def read(data: bytes, path) -> dict[str, np.ndarray]:
  """Returns the arrays of a state dict, by name.

  A checkpoint of a training, a dictionary with the state dict at 'state_dict'
  or 'model', is read too; what it holds beside is left out.

  Args:
    data: the content of the file.
    path: its name, for messages.

  Raises:
    UserError: the file holds no flat dictionary of tensors, is truncated, or
      contradicts itself.
  """
  try:
    if data[:4] == b'PK\x03\x04':
      tree, buffers = _read_zip(data, path)
    else:
      tree, buffers = _read_pickles(data, path)
    for key in ('state_dict', 'model'):
      if isinstance(tree, dict) and isinstance(tree.get(key), dict):
        tree = tree[key]
    if not isinstance(tree, dict) or not all(
      isinstance(k, str) and isinstance(v, _Tensor) for k, v in tree.items()
    ):
      raise UserError(
        f'{path} is not a PyTorch state dict, a dictionary of named tensors: '
        'save model.state_dict() alone with torch.save.'
      )
    return {name: _array(tensor, buffers) for name, tensor in tree.items()}
  except _BROKEN as error:
    raise UserError(
      f'{path} cannot be read as a PyTorch file ({error or "out of memory"}): '
      'it is damaged or of another kind; fetch it again.'
    ) from error


def _read_zip(data, path):
  storages = {}
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    if sum(info.file_size for info in archive.infolist()) > len(data):
      raise ValueError('its parts are larger than the whole')
    names = {name.partition('/')[2]: name for name in archive.namelist()}
    # Before 2.1 PyTorch wrote none.
    order = names.get('byteorder')
    if order and archive.read(order) != b'little':
      raise ValueError('it is not little-endian')
    tree, _ = _unpickle(archive.read(names['data.pkl']), 0, path, storages)
    buffers = {key: archive.read(names[f'data/{key}']) for key in storages}
  return tree, buffers


def _read_pickles(data, path):
  storages = {}
  magic, at = _unpickle(data, 0, path, storages)
  if magic != MAGIC:
    raise ValueError('it does not begin as one')
  _, at = _unpickle(data, at, path, storages)
  system, at = _unpickle(data, at, path, storages)
  if not system['little_endian']:
    raise ValueError('it is big-endian')
  tree, at = _unpickle(data, at, path, storages)
  keys, at = _unpickle(data, at, path, storages)
  buffers = {}
  for key in keys:
    storage = storages[key]
    size = int.from_bytes(data[at : at + 8], 'little')
    if size != storage.size:
      raise ValueError(f'storage {key} is cut short or of another size')
    stop = at + 8 + size * storage.dtype.itemsize
    buffers[key] = data[at + 8 : stop]
    at = stop
  return tree, buffers


def _unpickle(data, start, path, storages):
  """Returns the object pickled at `start`, and where its pickle ends."""
  stop = _inspect(data, start, path)
  return _Unpickler(data[start:stop], path, storages).load(), stop


def _inspect(data, start, path):
  """Refuses a harmful pickle before it runs; returns where it ends."""
  stream = io.BytesIO(data)
  stream.seek(start)
  stop = start
  for opcode, argument, at in pickletools.genops(stream):
    stop = at + 1
    if opcode.name == 'GLOBAL':
      _admit(*argument.split(' ', 1), path)
    elif opcode.name in _REFUSED:
      _refuse(f'the pickle instruction {opcode.name}', path)
    # The unpickler reserves memory up to the number that is named here.
    elif 'PUT' in opcode.name and int(argument) > len(data):
      raise ValueError('its memo is larger than the file')
  return stop


def _admit(module, name, path):
  """Returns what stands for `module.name` here, or refuses it."""
  # Nothing that outlives the file: a pickle can set attributes and call
  # __setstate__ on what it is handed, hence no dtypes, and a new function.
  if module == 'torch' and name in DTYPES:
    return name
  if (module, name) == ('collections', 'OrderedDict'):
    return collections.OrderedDict
  if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
    return lambda storage, offset, shape, strides, *_: _Tensor(
      storage, offset, shape, strides
    )
  return _refuse(f'{module}.{name}', path)


def _refuse(what, path):
  raise UserError(
    f'{path} wants {what}, which no plain state dict needs and which could '
    'run code: nothing was executed; save model.state_dict() alone.'
  )


class _Unpickler(pickle.Unpickler):
  """Knows what `_admit` admits, and notes the storages it meets."""

  def __init__(self, data, path, storages):
    super().__init__(io.BytesIO(data))
    self._path = path
    self._storages = storages

  def find_class(self, module, name):
    return _admit(module, name, self._path)

  def persistent_load(self, pid):
    kind, dtype, key, _, size, *_ = pid
    if kind != 'storage':
      raise ValueError(f'it refers to a {kind}')
    storage = _Storage(key, DTYPES[dtype], size)
    if self._storages.setdefault(key, storage) != storage:
      raise ValueError(f'storage {key} is described in two ways')
    return storage


def _array(tensor, buffers):
  storage, offset, shape, strides = tensor
  buffer = buffers[storage.key]
  width = storage.dtype.itemsize
  if len(buffer) != storage.size * width:
    raise ValueError(f'storage {storage.key} is cut short')
  # Strides of zero would make an array of any size out of one number.
  if math.prod(shape) > storage.size:
    raise ValueError(f'an array is larger than storage {storage.key}')
  # NumPy refuses a shape that leaves the buffer.
  return np.ndarray(
    shape, storage.dtype, buffer, offset * width, [s * width for s in strides]
  )
