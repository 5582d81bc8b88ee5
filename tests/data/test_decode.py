"""Every picture a user may hand in becomes the RGB a person would see."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from csdnet_jax.data import decode, formats

import images


def png(width, height, bits, colour, rows):
  """A PNG by hand: Pillow writes no grey of 2 or 4 bits, no RGB of 16."""

  def chunk(kind, data):
    crc = struct.pack('>I', zlib.crc32(kind + data))
    return struct.pack('>I', len(data)) + kind + data + crc

  head = struct.pack('>IIBBBBB', width, height, bits, colour, 0, 0, 0)
  return b''.join(
    [
      b'\x89PNG\r\n\x1a\n', chunk(b'IHDR', head),
      chunk(b'IDAT', zlib.compress(rows)), chunk(b'IEND', b''),
    ]
  )  # fmt: skip


def test_plain_rgb_is_exact():
  picture = images.pixels(0)
  decoded = decode.decode(images.encode(picture), 'a')
  assert decoded.dtype == np.uint8
  np.testing.assert_array_equal(decoded, picture)


def test_16_bit_grey_is_scaled_not_clipped():
  values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
  decoded = decode.decode(images.encode(values), 'a')
  expected = np.round(values / 65535 * 255).astype(np.uint8)
  np.testing.assert_array_equal(decoded[..., 0], expected)
  assert (decoded == decoded[..., :1]).all()


@pytest.mark.parametrize('kind', ['TIFF', 'PNG'])
def test_16_bit_survives_either_format(kind):
  values = np.full((3, 4), 25700, np.uint16)
  decoded = decode.decode(images.encode(values, kind), 'a')
  assert (decoded == 100).all()


def test_grey_and_bilevel():
  grey = np.full((3, 4), 77, np.uint8)
  np.testing.assert_array_equal(
    decode.decode(images.encode(grey), 'a'), np.full((3, 4, 3), 77)
  )
  bilevel = Image.fromarray(np.eye(4) > 0)
  decoded = decode.decode(images.encode(bilevel), 'a')
  np.testing.assert_array_equal(decoded[..., 1], np.eye(4) * 255)


def test_transparency_lies_over_white():
  rgba = np.zeros((2, 2, 4), np.uint8)
  rgba[0, 0] = (10, 20, 30, 255)
  rgba[0, 1] = (0, 0, 0, 128)
  decoded = decode.decode(images.encode(rgba), 'a')
  assert decoded[0, 0].tolist() == [10, 20, 30]
  assert abs(int(decoded[0, 1, 0]) - 127) <= 1
  assert (decoded[1] == 255).all()


def test_palette_with_and_without_transparency():
  palette = Image.new('P', (2, 1))
  palette.putpalette([200, 0, 0, 0, 0, 200])
  palette.putdata([0, 1])
  plain = decode.decode(images.encode(palette), 'a')
  assert plain.tolist() == [[[200, 0, 0], [0, 0, 200]]]
  hole = decode.decode(images.encode(palette, transparency=1), 'a')
  assert hole.tolist() == [[[200, 0, 0], [255, 255, 255]]]


def test_cmyk_keeps_its_colour():
  cmyk = Image.new('CMYK', (16, 16), (0, 255, 255, 0))
  decoded = decode.decode(images.encode(cmyk, 'JPEG', quality=95), 'a')
  red, green, blue = decoded.reshape(-1, 3).mean(0)
  assert red > 230 and green < 30 and blue < 30


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_rotation_shows_the_picture_upright(orientation):
  from PIL import ImageOps

  picture = Image.fromarray(images.pixels(0, 5, 7))
  exif = Image.Exif()
  exif[0x0112] = orientation
  data = images.encode(picture, exif=exif)
  tagged = picture.copy()
  tagged.getexif()[0x0112] = orientation
  np.testing.assert_array_equal(
    decode.decode(data, 'a'), np.asarray(ImageOps.exif_transpose(tagged))
  )


@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'TIFF'])
def test_animation_gives_its_first_frame(kind):
  frames = [Image.new('RGB', (8, 8), c) for c in ('red', 'blue', 'lime')]
  data = images.encode(
    frames[0], kind, save_all=True, append_images=frames[1:], duration=10
  )
  red, green, blue = decode.decode(data, 'a').reshape(-1, 3).mean(0)
  assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize(
  'data',
  [
    b'',
    b'not a picture',
    images.encode(images.pixels(0))[:100],
    images.encode(images.pixels(0, 64, 64), 'JPEG')[:700],
    images.encode(np.ones((2, 2), np.float32), 'TIFF'),
    images.encode(np.full((2, 2), 70000, np.int32), 'TIFF'),
  ],
  ids=['empty', 'text', 'cut png', 'cut jpeg', 'float', '32 bit'],
)
def test_bad_files_are_named(data):
  with pytest.raises(decode.ImageError, match='^leaves/x.png: '):
    decode.decode(data, 'leaves/x.png')


# Pixels of every kind, as the table in docs/pictures.md says.


def tiff(
  values, dtype, *, bits=None, photometric=1, sample=1, order='<', data=None
):
  """A TIFF by hand: Pillow writes few of the kinds that it may be given.

  Args:
    values: [h, w] or [h, w, samples].
    dtype: of the samples, without the order of their bytes.
    bits: of a sample; those of the dtype unless said.
    photometric: 0 where white is zero, 1 where black is, 2 for RGB, 8 for LAB.
    sample: 1 without a sign, 2 with one, 3 floating point.
    order: '<' or '>'.
    data: the bytes of the pixels, where they are packed.
  """
  values = np.asarray(values)
  height, width, samples = (*values.shape, 1)[:3]
  data = data or values.astype(f'{order}{dtype}').tobytes()
  bits = bits or 8 * np.dtype(dtype).itemsize
  tags = [
    (256, 'L', [width]), (257, 'L', [height]), (258, 'H', [bits] * samples),
    (259, 'H', [1]), (262, 'H', [photometric]), (273, 'L', [0]),
    (277, 'H', [samples]), (278, 'L', [height]), (279, 'L', [len(data)]),
    (339, 'H', [sample] * samples),
  ]  # fmt: skip
  beyond = 8 + 2 + 12 * len(tags) + 4
  longs = [t for t in tags if len(t[2]) > 2]
  start = beyond + 8 * len(longs)
  head = struct.pack(f'{order}2sHLH', b'II' if order == '<' else b'MM', 42, 8,
                     len(tags))  # fmt: skip
  after = b''
  for tag, kind, held in tags:
    held = [start] if tag == 273 else held
    field = struct.pack(f'{order}{len(held)}{kind}', *held)
    if len(field) > 4:
      after, field = (
        after + field.ljust(8, b'\0'),
        struct.pack(f'{order}L', beyond + len(after)),
      )
    number = {'H': 3, 'L': 4}[kind]
    head += struct.pack(f'{order}HHL', tag, number, len(held))
    head += field.ljust(4, b'\0')
  return head + bytes(4) + after + data


RAMP = np.array([[0, 1, 100, 128, 255]])


@pytest.mark.parametrize(
  ('data', 'seen'),
  [
    (tiff(RAMP, 'u1'), [0, 1, 100, 128, 255]),
    (tiff(RAMP, 'u1', photometric=0), [255, 254, 155, 127, 0]),
    (tiff(RAMP * 257, 'u2'), [0, 1, 100, 128, 255]),
    (tiff(RAMP * 257, 'u2', order='>'), [0, 1, 100, 128, 255]),
    (tiff(RAMP * 257, 'u2', photometric=0), [255, 254, 155, 127, 0]),
    (tiff([[0, 128, 129, 386, 65535]], 'u2'), [0, 0, 1, 2, 255]),
    (tiff(np.zeros((1, 8)), 'u1', bits=1, data=b'\x0f'), [0] * 4 + [255] * 4),
    (tiff(np.zeros((1, 8)), 'u1', bits=1, photometric=0, data=b'\x0f'),
     [255] * 4 + [0] * 4),
    (tiff(np.zeros((1, 4)), 'u1', bits=2, data=b'\x1b'), [0, 85, 170, 255]),
    (tiff(np.zeros((1, 2)), 'u1', bits=4, photometric=0, data=b'\x1f'),
     [238, 0]),
    # 12 bits that say so are scaled by their own range.
    (tiff(np.zeros((1, 2)), 'u2', bits=12, data=b'\xff\xf8\x00'), [255, 128]),
    (tiff(RAMP * 257, 'u2', photometric=0, order='>'), [255, 254, 155, 127, 0]),
    (tiff(np.zeros((1, 2)), 'u2', bits=12, photometric=0,
          data=b'\xff\xf8\x00'), [0, 127]),
    # 12 bits in 16 do not say so: a dark picture, of which the report warns.
    (tiff([[0, 4095]], 'u2'), [0, 16]),
  ],
  ids=[
    '8', '8 inverted', '16', '16 big-endian', '16 inverted', '16 rounded', '1',
    '1 inverted', '2', '4 inverted', '12',
    '16 inverted big-endian', '12 inverted', '12 in 16',
  ],
)  # fmt: skip
def test_grey_tiffs_of_any_depth(data, seen):
  decoded = decode.decode(data, 'a')
  assert decoded[0].tolist() == [[v, v, v] for v in seen]


def test_colours_of_16_bits_give_the_upper_8():
  rgb = np.array([[[65535, 256, 255], [128, 32768, 511]]])
  decoded = decode.decode(tiff(rgb, 'u2', photometric=2), 'a')
  assert decoded[0].tolist() == [[255, 1, 0], [0, 128, 1]]
  rows = b'\0' + rgb.astype('>u2').tobytes()
  decoded = decode.decode(png(2, 1, 16, 2, rows), 'a')
  assert decoded[0].tolist() == [[255, 1, 0], [0, 128, 1]]


def test_grey_of_16_bits_keeps_its_transparent_value():
  values = np.array([[0, 700, 65535]], np.uint16)
  decoded = decode.decode(images.encode(values, transparency=700), 'a')
  assert decoded[0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize(
  ('data', 'why'),
  [
    # Whatever the values: one dark picture would be read, the next refused.
    (tiff([[0, 1, 200]], 'u4'), '32-bit pixels'),
    (tiff([[0, 1, 200]], 'i4', sample=2), '32-bit pixels'),
    (tiff([[0, 1, 200]], 'u4', photometric=0), '32-bit pixels'),
    (tiff([[0, 1, 200]], 'i2', sample=2), 'pixels with a sign'),
    (tiff([[0, 1, 100]], 'i1', sample=2), 'pixels with a sign'),
    (tiff([[0, 0.5]], 'f4', sample=3), 'floating-point pixels'),
    (tiff([[0, 0.5]], 'f2', sample=3), 'pixels that are not read'),
    (tiff([[0, 1]], 'u8'), 'pixels that are not read'),
    (tiff([[[0, 1, 2]]], 'u4', photometric=2), 'pixels that are not read'),
    (tiff([[[0, 1, 2]]], 'u1', photometric=8), 'LAB pixels'),
    (tiff([[0, 1]], 'i2', photometric=0, sample=2, order='>'), 'with a sign'),
    (tiff([[0, 0.5]], 'f4', photometric=0, sample=3), 'floating-point pixels'),
    (tiff([[[0, 9]]], 'u2', photometric=0), r'2 x 16 bits, white is zero\);'),
    (tiff([[0, 9]], 'u2', bits=12, order='>', data=b'\xff\xf8\0'),
     r'that are not read \(1 x 12 bits, big-endian\); save it as PNG'),
    (tiff([[0, 9]], 'u2', bits=12, order='>', data=b'\xff\xf8\0',
          photometric=0), r'\(1 x 12 bits, white is zero, big-endian\)'),
    (images.encode(images.pixels(0, 1, 150)), '150 x 1 pixels is a line'),
    (tiff(np.zeros((0, 4)), 'u1'), ''),
    (b'GIF89a' + bytes(7) + b'\x2c' + bytes(9) + b'\x02\0\x3b', ''),
  ],
)  # fmt: skip
def test_pixels_without_a_known_range_are_refused(data, why):
  with pytest.raises(decode.ImageError, match=f'^a.tif: .*{why}'):
    decode.decode(data, 'a.tif')


@pytest.mark.parametrize('kind', ['AVIF', 'HEIF'])
def test_the_formats_of_phones(kind, monkeypatch):
  """Where they can be read: by Pillow, and by pillow_heif."""
  if kind not in formats.known():
    pytest.skip(f'no {kind} here')
  picture = np.zeros((48, 64, 3), np.uint8)
  picture[:24] = 250, 10, 10
  data = images.encode(picture, kind, quality=95)
  decoded = decode.decode(data, 'a')
  assert decode.size_of(data, 'a') == decoded.shape[:2] == (48, 64)
  assert np.abs(decoded[4, 4].astype(int) - [250, 10, 10]).max() < 8
  assert decoded[-4, -4].max() < 8
  with pytest.raises(decode.ImageError, match='^a: '):
    decode.decode(data[: len(data) // 2], 'a')
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
  with pytest.raises(decode.ImageError, match='^a: too large.*3072 pixels'):
    decode.decode(data, 'a')


def test_heic_under_any_name_is_named_with_the_remedy(monkeypatch):
  monkeypatch.setattr(formats, 'known', lambda: {'JPEG': ('jpg',)})
  with pytest.raises(decode.ImageError, match=r'csdnet_jax\[heic\]'):
    decode.decode(b'\0\0\0\x1cftypheic', 'IMG_1.jpg')
  with pytest.raises(decode.ImageError, match='Pillow 11.3'):
    decode.decode(b'\0\0\0\x1cftypavif', 'a.avif')


# Pillow remarks on damaged TIFF tags that it can do without.
@pytest.mark.filterwarnings('ignore::UserWarning:PIL')
def test_any_damage_is_an_image_error():
  rng = np.random.default_rng(0)
  for kind in ('PNG', 'JPEG', 'TIFF', 'GIF', 'BMP', 'WEBP'):
    whole = np.frombuffer(images.encode(images.pixels(1), kind), np.uint8)
    for _ in range(60):
      data = whole[: rng.integers(1, len(whole) + 1)].copy()
      at = rng.integers(0, len(data), 4)
      data[at] = rng.integers(0, 256, 4, np.uint8)
      try:
        assert decode.decode(data.tobytes(), 'a').shape[2] == 3
      except decode.ImageError as e:
        assert str(e).startswith('a: ')


def test_too_many_pixels_are_refused_before_they_are_read(monkeypatch):
  data = images.encode(images.pixels(0, 12, 16))
  for limit in (
    95,
    191,
  ):  # Over twice the limit; and where warnings are errors.
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)
    with pytest.raises(decode.ImageError, match='^a: too large.*192 pixels'):
      decode.decode(data, 'a')


def test_the_guard_of_the_importing_program_stays():
  assert Image.MAX_IMAGE_PIXELS == 2**30 // 12


def test_a_bomb_of_a_header_gives_the_sentence_and_no_warning():
  import struct
  import zlib

  data = bytearray(images.encode(images.pixels(0)))
  data[16:24] = struct.pack('>II', 20000, 20000)
  data[29:33] = struct.pack('>I', zlib.crc32(bytes(data[12:29])))
  with pytest.raises(decode.ImageError, match='400000000 pixels'):
    decode.decode(bytes(data), 'a')


@pytest.mark.parametrize(
  'shape, extent',
  [
    ((64, 32), (16, 8)),
    ((30, 64), (8, 16)),
    ((16, 16), (16, 16)),
    ((7, 5), (7, 5)),  # smaller pictures keep their pixels
    ((16, 128), (2, 16)),
    ((1, 500), (1, 16)),
  ],
)
def test_canvas_keeps_the_aspect(shape, extent):
  canvas, got = decode.fit_canvas(images.pixels(0, *shape), 16)
  assert got == extent
  assert canvas.shape == (16, 16, 3) and canvas.dtype == np.uint8


def test_canvas_repeats_the_edge_beyond_the_extent():
  canvas, (h, w) = decode.fit_canvas(images.pixels(0, 20, 10), 16)
  assert (canvas[:, w:] == canvas[:, w - 1 : w]).all()
  np.testing.assert_array_equal(canvas[:h, :w].shape, (16, 8, 3))


def test_small_picture_on_canvas_is_untouched():
  picture = images.pixels(0, 7, 5)
  canvas, _ = decode.fit_canvas(picture, 16)
  np.testing.assert_array_equal(canvas[:7, :5], picture)


def test_square_canvas_is_filled():
  canvas, extent = decode.fit_canvas(images.pixels(0, 8, 64), 16, square=True)
  assert extent == (16, 16) and canvas.shape == (16, 16, 3)


def test_shrinking_is_antialiased():
  stripes = np.zeros((64, 64, 3), np.uint8)
  stripes[:, ::2] = 255
  canvas, _ = decode.fit_canvas(stripes, 16)
  assert np.abs(canvas[:, 2:-2].astype(int) - 127).max() < 12


def test_eval_view_crops_the_centre():
  picture = np.zeros((40, 80, 3), np.uint8)
  picture[:, 40:] = 200
  view = decode.eval_view(picture, size=16, resize=20, square=False)
  assert view.shape == (16, 16, 3)
  assert (view[:, :6] == 0).all() and (view[:, 10:] == 200).all()


def test_eval_view_of_the_published_setting():
  view = decode.eval_view(
    images.pixels(0, 60, 90), size=448, resize=512, square=False
  )
  assert view.shape == (448, 448, 3)


def test_square_eval_view_keeps_both_ends():
  picture = np.zeros((16, 160, 3), np.uint8)
  picture[:, :16] = picture[:, -16:] = 250
  view = decode.eval_view(picture, size=20, resize=99, square=True)
  assert (view[:, 0] > 240).all() and (view[:, -1] > 240).all()


# Masks: the numbers that the file stores.


def ids(height=5, width=7, most=200):
  return np.arange(height * width, dtype=np.uint8).reshape(height, -1) % most


@pytest.mark.parametrize('kind', ['PNG', 'BMP'])
def test_a_mask_gives_its_numbers(kind):
  decoded = decode.decode_mask(images.encode(ids(), kind), 'm')
  assert decoded.dtype == np.uint8
  np.testing.assert_array_equal(decoded, ids())


@pytest.mark.parametrize('kind', ['PNG', 'BMP'])
def test_a_mask_with_a_palette_gives_its_indices(kind):
  mask = Image.fromarray(ids()).copy()
  mask.putpalette(np.random.default_rng(0).bytes(768))
  assert mask.mode == 'P'
  decoded = decode.decode_mask(images.encode(mask, kind), 'm')
  np.testing.assert_array_equal(decoded, ids())


@pytest.mark.parametrize('bits', [1, 2, 4])
def test_a_mask_of_few_bits_is_not_stretched(bits):
  mask = ids(4, 8, 2**bits)
  digits = ((mask[..., None] >> np.arange(bits)[::-1]) & 1).reshape(4, -1)
  rows = b''.join(b'\0' + row.tobytes() for row in np.packbits(digits, axis=1))
  data = png(8, 4, bits, 0, rows)
  np.testing.assert_array_equal(decode.decode_mask(data, 'm'), mask)


def test_a_mask_of_16_bits_holds_ids_up_to_255():
  wide = ids().astype(np.uint16)
  np.testing.assert_array_equal(
    decode.decode_mask(images.encode(wide), 'm'), ids()
  )
  with pytest.raises(decode.ImageError, match='holds the number 459'):
    decode.decode_mask(images.encode(wide + 425), 'm')


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'LA'])
def test_a_mask_in_colour_is_a_sentence(mode):
  data = images.encode(Image.fromarray(ids()).convert(mode))
  with pytest.raises(decode.ImageError, match='^m: a mask in colour'):
    decode.decode_mask(data, 'm')


def test_a_mask_that_may_have_lost_its_numbers_is_a_sentence():
  with pytest.raises(decode.ImageError, match=r'PNG, BMP'):
    decode.decode_mask(images.encode(ids(), 'JPEG'), 'm')
  with pytest.raises(decode.ImageError, match='damaged'):
    decode.decode_mask(images.encode(ids(99, 99))[:60], 'm')
  with pytest.raises(decode.ImageError, match='is empty'):
    decode.decode_mask(b'', 'm')


@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
def test_the_size_is_known_upright_before_decoding(orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  for kind in ('PNG', 'JPEG', 'WEBP', 'TIFF'):
    data = images.encode(images.pixels(0, 5, 7), kind, exif=exif)
    assert decode.size_of(data, 'a') == decode.decode(data, 'a').shape[:2]
  mask = images.encode(ids(), exif=exif)
  assert decode.size_of(mask, 'm', mask=True) == (
    decode.decode_mask(mask, 'm').shape
  )


@pytest.mark.parametrize('shape', [(5, 7), (10, 3), (1, 14), (23, 31)])
def test_bilinear_is_that_of_torch(shape):
  torch = pytest.importorskip('torch')
  picture = images.pixels(0, 10, 14)
  x = torch.from_numpy(picture).float().permute(2, 0, 1)[None]
  wanted = torch.nn.functional.interpolate(x, shape, mode='bilinear')
  np.testing.assert_allclose(
    decode.bilinear(picture, *shape), wanted[0].permute(1, 2, 0), atol=1e-3
  )
