"""A TIFF says what its pixels are, whatever is wrong with it."""

import struct

import pytest

from csdnet_jax.data import tiff


def head(order, *fields, after=b''):
  """The head of a TIFF of fields (tag, type, count, held)."""
  kind = {'<': b'II*\0', '>': b'MM\0*'}[order]
  data = kind + struct.pack(f'{order}LH', 8, len(fields))
  for tag, of, count, held in fields:
    data += struct.pack(f'{order}HHL', tag, of, count) + held
  return data + bytes(4) + after


@pytest.mark.parametrize('order', ['<', '>'])
def test_white_as_zero_is_said_to_be_black_and_nothing_else_moves(order):
  one = struct.pack(f'{order}HH', 12, 0)
  white, black = (
    head(order, (258, 3, 1, one), (262, 3, 1, struct.pack(f'{order}HH', v, 0)))
    for v in (0, 1)
  )
  assert tiff.black_as_zero(white) == black
  assert tiff.black_as_zero(black) == b''
  said = '1 x 12 bits, white is zero' + ', big-endian' * (order == '>')
  assert tiff.described(white) == said


def test_bits_of_many_samples_lie_elsewhere():
  fields = [(258, 3, 3, struct.pack('<L', 38)), (339, 3, 1, b'\2\0\0\0')]
  bits = struct.pack('<HHH', 32, 32, 32)
  data = head('<', *fields, after=bits)
  assert data.index(bits) == 38
  assert tiff.described(data) == '3 x 32 bits, with a sign'


def test_what_is_none_or_is_cut_short_is_no_error():
  whole = head('<', (262, 3, 1, bytes(4)), (258, 3, 3, b'\xff\xff\xff\xff'))
  for n in range(len(whole) + 1):
    tiff.described(whole[:n])
    assert bool(tiff.black_as_zero(whole[:n])) == (n >= 20)
  assert tiff.described(b'\x89PNG') == '' == tiff.described(b'')
