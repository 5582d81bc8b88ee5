"""PyTorch files: what is read, and pickles that mean harm."""

import io
import pickle
import re
import zipfile

import numpy as np
import pytest

from csdnet_jax.models.weights import torch_file
from csdnet_jax.runtime.errors import UserError

from torch_pickles import Touch, file_of, program, saved, tensor, text, zipped


def test_views_of_one_storage_are_read_by_their_strides():
  x = np.arange(12, dtype=np.float32)
  body = program(
    {
      'a': tensor('0', (2, 3), 12, offset=1, strides=(1, 4)),
      'b': tensor('0', (), 12, offset=5),
    }
  )
  arrays = torch_file.read(file_of(body, {'0': x}), 'f.pth')
  np.testing.assert_array_equal(arrays['a'], [[1, 5, 9], [2, 6, 10]])
  assert arrays['b'] == 5


GLOBALS = {
  'os.system': b'cos\nsystem\n(X\x04\x00\x00\x00exittR',
  'posix.system': b'cposix\nsystem\n(X\x04\x00\x00\x00exittR',
  'builtins.eval': b'cbuiltins\neval\n(X\x01\x00\x00\x001tR',
  'builtins.getattr': b'cbuiltins\ngetattr\n(ctorch\nFloatStorage\n'
  b'X\x09\x00\x00\x00__class__tR',
  '__builtin__.getattr': b'c__builtin__\ngetattr\n)R',
  'torch.load': b'ctorch\nload\n(X\x01\x00\x00\x00ftR',
  'torch.FloatStorage.__class__': b'ctorch\nFloatStorage.__class__\n)R',
  'collections.OrderedDict.__class__': b'ccollections\nOrderedDict.__class__\n'
  b')R',
  'torch._utils._rebuild_tensor_v2.__globals__': b'ctorch._utils\n'
  b'_rebuild_tensor_v2.__globals__\n',
  'torch._utils._rebuild_parameter': b'ctorch._utils\n_rebuild_parameter\n)R',
  'STACK_GLOBAL': b'X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93)R',
  'INST': b'(X\x04\x00\x00\x00exitios\nsystem\n',
  'NEWOBJ': b'ccollections\nOrderedDict\n)\x81',
  'EXT1': b'\x82\x01',
}


@pytest.mark.parametrize('name', GLOBALS)
@pytest.mark.parametrize('form', [file_of, zipped])
def test_what_could_run_code_is_refused_by_name(form, name):
  data = form(program({'a': GLOBALS[name]}), {})
  with pytest.raises(UserError, match=re.escape(name) + '.*nothing was exec'):
    torch_file.read(data, 'f.pth')


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_pickle_executes_nothing(tmp_path, protocol):
  mark = tmp_path / 'mark'
  bomb = pickle.dumps({'weight': Touch(mark)}, protocol)
  whole = file_of(bomb, {})
  for data in (bomb, whole, zipped(bomb, {})):
    with pytest.raises(UserError):
      torch_file.read(data, 'f.pth')
    assert not mark.exists()
  pickle.loads(bomb)
  assert mark.exists()


def test_a_pickle_cannot_change_what_it_is_handed():
  # BUILD sets attributes, or calls __setstate__, of what lies on the stack.
  state = b'}(X\x01\x00\x00\x00aK\x01u'
  for victim in (
    b'ctorch\nFloatStorage\n',
    b'ctorch._utils\n_rebuild_tensor_v2\n',
    b'ccollections\nOrderedDict\n',
  ):
    for argument in (state, b'N' + state + b'\x86'):
      body = program({'a': victim + argument + b'b'})
      with pytest.raises(UserError):
        torch_file.read(file_of(body, {}), 'f.pth')
  x = np.ones(2, np.float32)
  data = file_of(program({'a': tensor('0', (2,), 2)}), {'0': x})
  np.testing.assert_array_equal(torch_file.read(data, 'f.pth')['a'], x)


@pytest.mark.parametrize('form', [file_of, zipped])
def test_a_file_cut_anywhere_gets_a_sentence(form):
  x = np.arange(6, dtype=np.float32)
  data = form(program({'a': tensor('0', (2, 3), 6)}), {'0': x})
  np.testing.assert_array_equal(
    torch_file.read(data, 'f.pth')['a'], x.reshape(2, 3)
  )
  for stop in range(0, len(data) - 1):
    with pytest.raises(UserError, match='f.pth'):
      torch_file.read(data[:stop], 'f.pth')


HUGE = 2**40


@pytest.mark.parametrize(
  'value',
  [
    tensor('0', (HUGE,), HUGE),
    tensor('0', (HUGE,), 4, strides=(0,)) + b'0' + tensor('0', (9,), 4),
    tensor('0', (5,), 4),
    tensor('0', (9, 9), 4, strides=(0, 0)),
    tensor('0', (2,), 4, offset=3),
    tensor('0', (2,), 4, offset=-1),
    tensor('0', (2,), 4, strides=(-1,)),
    tensor('0', (2, 2), 4, strides=(HUGE, 1)),
    tensor('0', (4,), 4, 'DoubleStorage'),
    tensor('1', (4,), 4),
    tensor('0', (2**62, 4), 4),
    b'X\xff\xff\xff\x7fa',
    b'\x8b\xff\xff\xff\x7f1',
    b'K\x01r\xff\xff\xff\x7f',
    b'K\x01p99999999999\n',
    b'K\x01',
    b'}',
    b'\x8e' + b'\xff' * 8,
  ],
)
@pytest.mark.parametrize('form', [file_of, zipped])
def test_absurd_sizes_and_other_contents_get_a_sentence(form, value):
  data = form(program({'a': value}), {'0': np.zeros(4, np.float32)})
  with pytest.raises(UserError, match='f.pth'):
    torch_file.read(data, 'f.pth')


def test_an_archive_that_unpacks_to_more_than_itself_is_refused():
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('m/byteorder', 'little')
    archive.writestr('m/data.pkl', program({'a': tensor('0', (1,), 1)}))
    archive.writestr('m/data/0', bytes(2**22))
  with pytest.raises(UserError, match='larger than the whole'):
    torch_file.read(stream.getvalue(), 'f.pth')


def test_a_zip_of_before_pytorch_2_1_tells_no_byte_order():
  x = np.arange(6, dtype=np.float32)
  body = program({'a': tensor('0', (6,), 6)})
  data = zipped(body, {'0': x}, order=None)
  np.testing.assert_array_equal(torch_file.read(data, 'f.pth')['a'], x)
  with pytest.raises(UserError, match='not little-endian'):
    torch_file.read(zipped(body, {'0': x}, order='big'), 'f.pth')


@pytest.mark.parametrize('key', ['state_dict', 'model'])
def test_a_release_may_wrap_its_state_dict(key):
  x = np.arange(6, dtype=np.float32)
  state = program({'a': tensor('0', (6,), 6)}).removeprefix(b'\x80\x02')
  body = b'\x80\x02}' + text(key) + state.removesuffix(b'.') + b's.'
  data = file_of(body, {'0': x})
  np.testing.assert_array_equal(torch_file.read(data, 'f.pth')['a'], x)


def test_a_damaged_member_of_an_archive_gets_a_sentence():
  data = bytearray(saved({'a': np.zeros(999, np.float32)}, _packed))
  start = data.index(b'm/data/0') + len('m/data/0')
  for place in range(start, start + 8):
    broken = bytearray(data)
    broken[place] ^= 0xFF
    with pytest.raises(UserError, match='f.pth cannot be read'):
      torch_file.read(bytes(broken), 'f.pth')


def _packed(body, storages):
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('m/data.pkl', body)
    archive.writestr('m/byteorder', 'little')
    # As large as the whole, so that it is no bomb.
    archive.writestr('m/pad', np.random.default_rng(0).bytes(5000))
    for key, x in storages.items():
      archive.writestr(f'm/data/{key}', x.tobytes())
  return stream.getvalue()
