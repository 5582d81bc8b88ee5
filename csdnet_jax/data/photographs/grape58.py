"""`csdnet data grape58`: the set of our tables, rebuilt from its public place.

258 leaves of 58 grapevine cultivars, from 126 photographs of Daniel H. Chitwood
(*The shapes of wine and table grape leaves*), in the layout of the UFG release.
"""

import argparse
import collections
import contextlib
import importlib.resources
import io
import os
import pathlib
import unicodedata
from collections.abc import Callable, Mapping
from typing import NamedTuple

from PIL import Image

from csdnet_jax.data import cache, decode
from csdnet_jax.data.photographs import key
from csdnet_jax.runtime import commands
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import progress_bar, say

REPOSITORY = 'https://github.com/DanChitwood/grapevine_ampelometry'
COMMIT = '6c791cbc0fd1e108ec38e8c4864f7cec6827a132'
BASE = (
  'https://raw.githubusercontent.com/DanChitwood/grapevine_ampelometry/'
  f'{COMMIT}/'
)
_KEY = '0_visual_check/ampelometry_id_key.txt'
_LICENSE = 'LICENSE'
_SIDE = 256  # The shorter side of a picture, in pixels.
_FEWEST = 4  # Leaves of a variety.
_CLASSES, _LEAVES = 58, 129  # Of each of the two parts.

_README = f"""\
# grape58: leaves of 58 grapevine cultivars

Made by `csdnet data grape58` from the photographs of Daniel H. Chitwood,
{REPOSITORY},
commit {COMMIT}, folder
0_visual_check/ampelometry_images. MIT licence, "Copyright (c) 2020 Morphology
Lab": its text is in LICENSE, and goes with every copy.

images/<class>/<photograph>_<leaf>.jpg, the shorter side {_SIDE} pixels;
anno/train.txt and anno/test.txt have a line `<path under images/> <label>` for
each, labels from 1; anno/classes.txt has `<label> <class>`. The leaves of a
variety are in the order of their photographs, then from left to right: the
first half is for training, the last half for the test, an odd one in the middle
is left out, and so are varieties of fewer than {_FEWEST} leaves.
"""


class _Leaf(NamedTuple):
  """A picture: the name of its file, and its JPEG."""

  name: str
  jpeg: bytes


def main(args: argparse.Namespace) -> int:
  """Runs the command; returns its exit status."""
  out = pathlib.Path(os.path.expanduser(args.out))
  counts = build(out)
  say(
    f'{counts["train"]} leaves for training and {counts["test"]} for the test, '
    f'of {_CLASSES} cultivars: {out}. Its LICENSE goes with every copy.'
  )
  return 0


def build(
  out: pathlib.Path, *, base: str = BASE, kept: pathlib.Path | None = None
) -> dict[str, int]:
  """Fetches the photographs, cuts the leaves out and splits them.

  Args:
    out: the folder to make; absent or empty.
    base: the URL of the repository's files, ending in a slash.
    kept: the folder in which fetched files stay; that of the user's cache.

  Returns:
    {'train': leaves, 'test': leaves}.

  Raises:
    UserError: a file cannot be fetched or is not the one that was published; a
      folder cannot be written; other leaves are found than our tables have.
  """
  commands.require('skimage', 'cut')
  commands.require('pooch', 'cut')
  from csdnet_jax.data.photographs import folder

  folder.require_new('--out', out)
  kept = kept or cache.cache_dir('') / 'grape58'
  digests = published()
  with progress_bar('files to fetch', logged='file') as progress:
    files = fetch(digests, base, kept, progress)
  paths = [
    path for name, path in sorted(files.items()) if name not in (_KEY, _LICENSE)
  ]
  labels, _ = key.match(
    key.read(files[_KEY], 'mac_roman'), [path.name for path in paths]
  )
  varieties = collections.defaultdict(list)
  with (
    progress_bar('photographs', logged='photograph') as progress,
    contextlib.closing(
      cache.in_order(lambda i: _leaves(paths[i]), len(paths))
    ) as cut,
  ):
    for done, (path, leaves) in enumerate(zip(paths, cut, strict=True), 1):
      if isinstance(leaves, decode.ImageError):
        raise leaves
      varieties[_ascii(labels[path.name])] += leaves
      progress(done, len(paths))
  classes, parts = divide(varieties)
  counts = {part: sum(map(len, c.values())) for part, c in parts.items()}
  if (len(classes), *counts.values()) != (_CLASSES, _LEAVES, _LEAVES):
    raise UserError(
      f'Found {len(classes)} varieties, {counts["train"]} leaves for training '
      f'and {counts["test"]} for the test, not {_CLASSES}, {_LEAVES} and '
      f'{_LEAVES} as in our tables; install the versions of scikit-image and '
      'Pillow that were current with this version of csdnet_jax.'
    )
  with folder.made(out) as new:
    _write(new, classes, parts)
    (new / 'LICENSE').write_bytes(files[_LICENSE].read_bytes())
    (new / 'README.md').write_text(_README, encoding='utf-8')
  return counts


def published() -> dict[str, str]:
  """{path in the repository: SHA-256} of all that is fetched."""
  listed = importlib.resources.files(__package__) / 'grape58.sha256'
  lines = listed.read_text(encoding='utf-8').splitlines()
  return {name: digest for digest, name in (line.split('  ') for line in lines)}


def fetch(
  digests: Mapping[str, str],
  base: str,
  kept: pathlib.Path,
  progress: Callable[[int, int], None] = lambda done, total: None,
  *,
  retries: int = 2,
) -> dict[str, pathlib.Path]:
  """Fetches files, each checked by its digest; those that are there are kept.

  Args:
    digests: {path under the base: SHA-256}.
    base: a URL that ends in a slash.
    kept: the folder where they stay, made if absent.
    progress: called with the files done and their number.
    retries: how often a file is tried again.

  Returns:
    {path under the base: path of the file}.

  Raises:
    UserError: a file cannot be fetched, written, or is another.
  """
  import pooch
  import requests

  pooch.get_logger().setLevel('ERROR')
  source = pooch.create(
    kept, base, registry={n: f'sha256:{d}' for n, d in digests.items()},
    retry_if_failed=retries,
  )  # fmt: skip

  # pooch's own leaves the socket of an answer that it cannot use open.
  def download(url, path, _):
    with requests.get(url, stream=True, timeout=30) as answer:
      answer.raise_for_status()
      with open(path, 'wb') as file:
        file.writelines(answer.iter_content(2**16))

  files = {}
  for done, name in enumerate(digests, 1):
    try:
      files[name] = pathlib.Path(source.fetch(name, downloader=download))
    except requests.RequestException as error:
      answer = error.response
      why = type(error).__name__ if answer is None else answer.status_code
      raise UserError(
        f'Cannot fetch {base}{name} ({why}); check the network and run the '
        f'same command again: what was fetched stays in {kept}.'
      ) from error
    except OSError as error:
      raise cache.cache_error(kept, error) from error
    except ValueError as error:  # pooch's, for another digest.
      raise UserError(
        f'{base}{name} is not the file that was published (its SHA-256 is '
        'another); something on the way changed it, or it was cut short. Run '
        'the same command again, perhaps from another network.'
      ) from error
    progress(done, len(digests))
  return files


def _leaves(path: pathlib.Path) -> list[_Leaf]:
  """The pictures of a photograph's leaves."""
  from csdnet_jax.data.photographs import cut, find

  pixels = decode.decode(path.read_bytes(), path.name)
  found = find.find(pixels)
  leaves = []
  for k, leaf in enumerate(found.leaves):
    picture = Image.fromarray(cut.cut(pixels, leaf, found.scale))
    shrink = _SIDE / min(picture.size)
    size = [round(side * shrink) for side in picture.size]
    jpeg = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(
      jpeg, 'JPEG', quality=90
    )
    leaves.append(_Leaf(f'{path.stem}_{k}.jpg', jpeg.getvalue()))
  return leaves


def _ascii(variety: str) -> str:
  """The variety as a folder of the published set is named.

  >>> _ascii('Müller-Thurgau')
  'Muller_Thurgau'
  """
  plain = unicodedata.normalize('NFKD', variety).encode('ascii', 'ignore')
  return plain.decode().replace('-', '_')


def divide(
  varieties: Mapping[str, list],
) -> tuple[list[str], dict[str, dict[str, list]]]:
  """Halves the leaves of each variety that has enough of them, in their order.

  Args:
    varieties: {variety: its leaves in order}.

  Returns:
    The classes, sorted, with their numbers from 01; and {'train' or 'test':
    {class: leaves}}.

  >>> divide({'b': [1, 2, 3, 4, 5], 'a': [1, 2, 3]})
  (['01_b'], {'train': {'01_b': [1, 2]}, 'test': {'01_b': [4, 5]}})
  """
  enough = sorted(v for v in varieties if len(varieties[v]) >= _FEWEST)
  classes = [f'{i:02d}_{variety}' for i, variety in enumerate(enough, 1)]
  train, test = {}, {}
  for name, variety in zip(classes, enough, strict=True):
    leaves = varieties[variety]
    half = len(leaves) // 2
    train[name], test[name] = leaves[:half], leaves[-half:]
  return classes, {'train': train, 'test': test}


def _write(
  root: pathlib.Path,
  classes: list[str],
  parts: Mapping[str, Mapping[str, list[_Leaf]]],
) -> None:
  (root / 'anno').mkdir()
  numbers = {name: i for i, name in enumerate(classes, 1)}
  for name in classes:
    (root / 'images' / name).mkdir(parents=True)
  lists = {'classes': [f'{i} {name}\n' for name, i in numbers.items()]}
  for part, by_class in parts.items():
    lists[part] = []
    for name, leaves in by_class.items():
      for leaf in leaves:
        (root / 'images' / name / leaf.name).write_bytes(leaf.jpeg)
        lists[part].append(f'{name}/{leaf.name} {numbers[name]}\n')
  for name, lines in lists.items():
    (root / 'anno' / f'{name}.txt').write_text(''.join(lines), encoding='utf-8')
