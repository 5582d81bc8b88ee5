"""Which kinds of pictures are read, and how their files are called."""

import contextlib
import functools
from collections.abc import Mapping

from PIL import features

# By Pillow's names, which knows others, some of which start programs.
_ALWAYS = {
  'JPEG': ('jpg', 'jpeg', 'jpe', 'jfif'),
  'PNG': ('png',),
  'TIFF': ('tif', 'tiff'),
  'BMP': ('bmp',),
  'GIF': ('gif',),
  'WEBP': ('webp',),
}
_HEIF = ('heic', 'heif', 'hif')
_AVIF = ('avif',)
# Pictures that are not read whatever is installed: cameras' own raw files, and
# the work files of programs.
_NEVER = (
  '3fr', 'arw', 'cr2', 'cr3', 'crw', 'dcr', 'dng', 'erf', 'fff', 'iiq', 'kdc',
  'mef', 'mos', 'mrw', 'nef', 'nrw', 'orf', 'pef', 'raf', 'raw', 'rw2', 'rwl',
  'sr2', 'srf', 'srw', 'x3f', 'ai', 'bpg', 'dcm', 'dds', 'emf', 'eps', 'exr',
  'fits', 'hdr', 'ico', 'j2k', 'jp2', 'jpf', 'jpx', 'jxl', 'jxr', 'pbm', 'pcx',
  'pgm', 'pnm', 'ppm', 'psb', 'psd', 'svg', 'tga', 'xcf',
)  # fmt: skip
# What makes a kind readable here, as the end of 'to read .HEIC, ...'.
_REMEDIES = {
  **dict.fromkeys(_HEIF, 'run pip install "csdnet_jax[heic]"'),
  **dict.fromkeys(_AVIF, 'install Pillow 11.3 or newer'),
}


@functools.cache
def known() -> Mapping[str, tuple[str, ...]]:
  """The kinds that are read here, by Pillow's names, with their extensions.

  HEIC is read where `pillow_heif` is installed, AVIF where Pillow was built
  with it.
  """
  found = dict(_ALWAYS)
  # Asked first, since an older Pillow warns of a feature it has not heard of.
  if 'avif' in features.modules and features.check('avif'):
    found['AVIF'] = _AVIF
  with contextlib.suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()
    found['HEIF'] = _HEIF
  return found


def extension_of(name: str) -> str:
  """What follows the last dot of a file's name, in lower case; '' if none.

  >>> extension_of('a/IMG_1.HEIC'), extension_of('a.b/README')
  ('heic', '')
  """
  _, dot, extension = name.rpartition('/')[2].rpartition('.')
  return extension.lower() if dot else ''


def extensions() -> tuple[str, ...]:
  """The extensions of the kinds that are read here, in lower case."""
  return tuple(e for kind in known().values() for e in kind)


def is_read(name: str) -> bool:
  """Whether a file is called as a picture that is read here."""
  return extension_of(name) in extensions()


def is_picture(name: str) -> bool:
  """Whether a file is called as a picture, though perhaps one not read here."""
  extension = extension_of(name)
  return is_read(name) or extension in _REMEDIES or extension in _NEVER


def remedy(extension: str) -> str:
  """What to do to have a kind of picture read, in lower case; '' if nothing."""
  return _REMEDIES.get(extension.removeprefix('.').lower(), '')


def remedy_of(data: bytes) -> str:
  """The same of an encoded file, whatever its name."""
  brand = data[8:12] if data[4:8] == b'ftyp' else b''
  if brand == b'avif':
    return '' if 'AVIF' in known() else remedy('avif')
  heif = brand in (b'heic', b'heix', b'hevc', b'heim', b'heis', b'mif1')
  return remedy('heic') if heif and 'HEIF' not in known() else ''
