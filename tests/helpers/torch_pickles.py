"""Pickles written by hand, instruction by instruction, as torch.save would."""

import io
import os
import pickle
import struct
import zipfile

import numpy as np

from csdnet_jax.models.weights import torch_file


def text(s):
  return b'X' + struct.pack('<I', len(s)) + s.encode()


def number(n):
  return b'\x8a\x08' + struct.pack('<q', n)


def several(*items):
  return b'(' + b''.join(items) + b't'


def tensor(key, shape, size, kind='FloatStorage', offset=0, strides=None):
  if strides is None:
    strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
  storage = several(
    text('storage'),
    b'ctorch\n' + kind.encode() + b'\n',
    text(key),
    text('cpu'),
    number(size),
  )
  return (
    b'ctorch._utils\n_rebuild_tensor_v2\n'
    + several(
      storage + b'Q',
      number(offset),
      several(*map(number, shape)),
      several(*map(number, strides)),
      b'\x89',
      b'ccollections\nOrderedDict\n)R',
    )
    + b'R'
  )


def program(items):
  """A pickle of an OrderedDict of {name: instructions}."""
  pairs = b''.join(text(name) + value for name, value in items.items())
  return b'\x80\x02ccollections\nOrderedDict\n)R(' + pairs + b'u.'


def file_of(body, storages):
  """The format before PyTorch 1.6 around a pickle and {key: array}."""
  system = {'protocol_version': 1001, 'little_endian': True}
  parts = [torch_file.MAGIC, 1001, system]
  head = b''.join(pickle.dumps(part, 2) for part in parts)
  keys = pickle.dumps(list(storages), 2)
  raw = b''.join(
    struct.pack('<q', x.size) + x.tobytes() for x in storages.values()
  )
  return head + body + keys + raw


def zipped(body, storages, order='little'):
  """The zip format around a pickle and {key: array}."""
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w') as archive:
    archive.writestr('model/data.pkl', body)
    if order:
      archive.writestr('model/byteorder', order)
    for key, x in storages.items():
      archive.writestr(f'model/data/{key}', x.tobytes())
  return stream.getvalue()


def saved(arrays, form):
  """{name: array} in either format."""
  kinds = {'f': 'FloatStorage', 'i': 'LongStorage'}
  items = {
    name: tensor(str(i), x.shape, x.size, kinds[x.dtype.kind])
    for i, (name, x) in enumerate(arrays.items())
  }
  storages = {str(i): x for i, x in enumerate(arrays.values())}
  return form(program(items), storages)


class Touch:
  """Unpickled by Python itself, it makes a folder."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)
