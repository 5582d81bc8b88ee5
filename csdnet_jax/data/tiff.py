"""The head of a TIFF, of whose grey Pillow does not know every kind."""

import struct

BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags
# Some of the values that they take.
WHITE_IS_ZERO, BLACK_IS_ZERO = 0, 1
SIGNED, FLOATING = 2, 3

_ORDERS = {b'II*\0': '<', b'MM\0*': '>'}  # of bytes, by how a file starts
_SHORT = 3  # the type of a field
_MOST_SAMPLES = 64


def black_as_zero(data: bytes) -> bytes:
  """The same file, said to have black as zero.

  Args:
    data: an encoded file.

  Returns:
    Its bytes, with another photometric tag; b'' of what is no TIFF whose white
    is zero.
  """
  at, values = _fields(data).get(PHOTOMETRIC, (0, ()))
  if values != (WHITE_IS_ZERO,):
    return b''
  said = struct.pack(f'{_ORDERS[data[:4]]}H', BLACK_IS_ZERO)
  return data[:at] + said + data[at + len(said) :]


def described(data: bytes) -> str:
  """What the pixels of a TIFF are; '' of what is no TIFF.

  >>> described(b'MM' + bytes([0, 42]))
  'of unknown depth, big-endian'
  """
  order = _ORDERS.get(data[:4])
  if order is None:
    return ''
  held = {tag: values for tag, (_, values) in _fields(data).items()}
  bits = held.get(BITS, ())
  said = [f'{len(bits)} x {bits[0]} bits' if bits else 'of unknown depth']
  sample = held.get(SAMPLE_FORMAT, (1,))[0]
  said += {SIGNED: ['with a sign'], FLOATING: ['floating point']}.get(
    sample, []
  )
  if held.get(PHOTOMETRIC) == (WHITE_IS_ZERO,):
    said.append('white is zero')
  if order == '>':
    said.append('big-endian')
  return ', '.join(said)


def _fields(data: bytes) -> dict[int, tuple[int, tuple[int, ...]]]:
  """The short numbers of the first page: where they lie and what, by tag."""
  order = _ORDERS.get(data[:4])
  found: dict[int, tuple[int, tuple[int, ...]]] = {}
  if order is None:
    return found
  try:
    (start,) = struct.unpack_from(f'{order}L', data, 4)
    (n,) = struct.unpack_from(f'{order}H', data, start)
    for at in range(start + 2, start + 2 + 12 * n, 12):
      tag, kind, count = struct.unpack_from(f'{order}HHL', data, at)
      if kind != _SHORT or not 0 < count <= _MOST_SAMPLES:
        continue
      where = at + 8
      if count > 2:  # The field has room for two; of more it says where.
        (where,) = struct.unpack_from(f'{order}L', data, where)
      found[tag] = where, struct.unpack_from(f'{order}{count}H', data, where)
  except struct.error:
    pass  # Cut short: what was found until there.
  return found
