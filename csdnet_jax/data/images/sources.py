"""Where the images come from, and which of them train, validate and test.

A folder is read in one of three layouts, told apart by what lies in it:

    anno/ and images/   the UFG release's: anno/train.txt and anno/test.txt hold
                        `<path under images/> <label>`, labels from 1, and
                        anno/classes.txt, where there is one, `<label> <name>`
    train/ and test/    a folder for each class in both, and in val/ if present
    <class>/            a folder for each class, split by the program
"""

import hashlib
import os
import pathlib
import posixpath
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from csdnet_jax.data.images import splits
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError

_THREADS = 16
EXTENSIONS = ('jpg', 'jpeg', 'png', 'bmp', 'gif', 'tif', 'tiff', 'webp')


def load(
  data: Any, *, split: Mapping[str, Any] | None = None
) -> splits.Dataset:
  """Opens the data set that `config.data` describes.

  Args:
    data: `source` ('folder', 'ufg', 'tfds' or 'leaves') and what it needs:
      `root` (a folder; for 'ufg' and 'tfds' the TFDS data_dir, '' for its
      default), `name`, `cache`, `leaves`; `test_fraction` of every class for a
      folder that has no split of its own; `val_fraction` of every class to
      carve from train, 0 for none; `shots`, the training images to keep of
      every class, 0 for all; `split_seed`, which decides all three.
    split: what `split_to_json` gave in an earlier run. The parts are then those
      and nothing is drawn, whatever the fractions and shots say.

  Returns:
    The data set; nothing is decoded yet.

  Raises:
    UserError: for whatever in the folder, the lists or the fields is wrong.
  """
  if data.source == 'folder':
    dataset = open_folder(data.root, data.name)
  elif data.source == 'leaves':
    dataset = open_ufg_layout(_drawn(data), 'leaves')
  elif data.source == 'ufg':
    # TFDS takes a second to import and most runs need none of it.
    from csdnet_jax.data.images import ufg

    dataset = ufg.load(data.name, data_dir=data.root)
  elif data.source == 'tfds':
    from csdnet_jax.data.images import tfds

    dataset = tfds.load(data.name, data_dir=data.root)
  else:
    raise UserError(
      f"config.data.source is {data.source!r}; say 'folder', 'ufg', 'tfds' or "
      "'leaves'"
    )
  if split is not None:
    return splits.apply_split(dataset, split)
  return splits.draw_split(
    dataset,
    test_fraction=data.test_fraction,
    val_fraction=data.val_fraction,
    shots=data.shots,
    seed=data.split_seed,
  )


def cache_dir(configured: str) -> pathlib.Path:
  """The folder for prepared files: `config.data.cache`, or the user's cache."""
  if configured:
    return paths.of_disk(
      configured, 'config.data.cache',
      'the decoded images are read through memory maps, each host its own',
    )  # fmt: skip
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(base).expanduser() / 'csdnet_jax'


def open_folder(root: str | os.PathLike, name: str = '') -> splits.Dataset:
  """Reads a folder in any of the module's three layouts.

  Args:
    root: the folder.
    name: of the data set; '' for the folder's.

  Returns:
    The data set. Where the folder comes without a split every image is in
    train and test is empty, for `draw_split`.

  Raises:
    UserError: the folder is absent, empty, ambiguous or has a single class; a
      class has no training image; a link leads out; see `open_ufg_layout`.
  """
  root = root_of(root)
  for one, other in (('anno', 'images'), ('train', 'test')):
    present = [p for p in (one, other) if (root / p).is_dir()]
    if len(present) == 1:
      absent = other if present == [one] else one
      raise UserError(
        f'{root} has {present[0]}/ but no {absent}/; add it, or give a folder '
        'that holds one folder for each class'
      )
  if (root / 'anno').is_dir():
    return open_ufg_layout(root, name)
  divided = (root / 'train').is_dir()
  parts = ['train', 'test'] if divided else ['']
  if divided and (root / 'val').is_dir():
    parts.append('val')
  found = {part: _images(root / part, root) for part in parts}
  if not any(by_class for by_class in found.values()):
    raise UserError(
      f'{root} holds no class folders; give a folder that holds one folder of '
      'images for each class'
    )
  class_names = tuple(sorted(set().union(*found.values())))
  label = {class_name: i for i, class_name in enumerate(class_names)}
  found_parts = {
    part: _files(
      root,
      [path for paths in by_class.values() for path in paths],
      [label[c] for c, paths in by_class.items() for _ in paths],
    )
    for part, by_class in found.items()
  }
  dataset = splits.Dataset(
    name or root.name,
    class_names,
    train=found_parts['train' if divided else ''],
    val=found_parts.get('val'),
    test=found_parts.get('test', splits.gather([])),
  )
  _require_classes(dataset, root)
  for part in parts[1:]:
    if not found_parts[part].names:
      raise UserError(
        f'{root / part} holds no images; add some or remove the folder'
      )
  return dataset


def root_of(root: str | os.PathLike) -> paths.Path:
  """The folder that `config.data.root` names, links followed.

  Raises:
    UserError: it names none.
  """
  if not os.fspath(root):
    raise UserError(
      'config.data.root is empty; set it to your folder of images'
    )
  root = paths.of(root)
  if not root.is_dir():
    raise UserError(
      f'config.data.root={root} is not a folder; set it to your folder of '
      'images'
    )
  return paths.resolve(root)


def _images(folder: paths.Path, root: paths.Path) -> dict[str, list[str]]:
  """The paths under `root` of every class's images, sorted."""
  entries = entries_of(folder, root)
  loose = [e.name for e in entries if _is_image(e)]
  if loose:
    raise UserError(
      f'Images lie in {folder} itself ({splits.some(loose)}); move '
      'each into the folder of its class'
    )
  classes = [e for e in entries if e.is_dir()]
  return {c.name: sorted(walk(c, root)) for c in classes}


def walk(folder: paths.Path, root: paths.Path) -> Iterable[str]:
  """Yields the path under the root of every image in the folder."""
  for entry in entries_of(folder, root):
    if entry.is_dir():
      yield from walk(entry, root)
    elif _is_image(entry):
      yield entry.relative_to(root).as_posix()


def entries_of(folder: paths.Path, root: paths.Path) -> list[paths.Path]:
  """What lies in a folder, sorted, without hidden files; checks names, links.

  Raises:
    UserError: the folder cannot be read; a name is not UTF-8, which neither the
      split nor the predictions could hold; a link leads to a folder, to nothing
      or out.
  """
  try:
    entries = [e for e in folder.iterdir() if not e.name.startswith('.')]
  except OSError as error:
    raise UserError(
      f'The folder {folder} cannot be read ({error.strerror or error}); change '
      'its permissions, or move it away.'
    ) from error
  for entry in entries:
    try:
      entry.name.encode()
    except UnicodeEncodeError as error:
      raise UserError(
        f'{entry.name!r} in {folder} is no UTF-8 name; rename it.'
      ) from error
    if paths.is_remote(entry) or not entry.is_symlink():
      continue
    # A link to a folder may lead into a circle, even inside the root.
    if not entry.is_file() or not entry.resolve().is_relative_to(root):
      raise UserError(
        f'{entry} is a link to a folder, to nothing or out of {root}; replace '
        'it by what it points to, or remove it'
      )
  return sorted(entries, key=lambda e: e.name)


def _is_image(entry: paths.Path) -> bool:
  _, _, extension = entry.name.rpartition('.')
  return extension.lower() in EXTENSIONS and entry.is_file()


def _files(
  folder: paths.Path, names: Iterable[str], labels: Iterable[int]
) -> splits.Split:
  names = tuple(names)
  return splits.Split(
    names,
    np.array(list(labels), np.int32),
    lambda i: (folder / names[i]).read_bytes(),
  )


def open_ufg_layout(root: paths.Path, name: str = '') -> splits.Dataset:
  """Reads a folder with `anno/` and `images/`; see the module's docstring.

  `anno/val.txt` is not read: in the published release it seems to repeat the
  test list.

  Args:
    root: the folder.
    name: of the data set; '' for the folder's.

  Returns:
    The data set, in the lists' order, without a validation part.

  Raises:
    UserError: a list is absent, does not parse, names a file twice, on both
      sides, outside the root or that is missing; labels with gaps.
  """
  root = paths.resolve(root)
  images = root / 'images'
  lists = {
    part: _read_list(root / 'anno' / f'{part}.txt')
    for part in ('train', 'test')
  }
  both = sorted(set(lists['train']) & set(lists['test']))
  if both:
    raise UserError(
      f'Images are in both anno/train.txt and anno/test.txt of '
      f'{root} ({splits.some(both)}); take each out of one of the lists'
    )
  named = [*lists['train'], *lists['test']]
  outside = [n for n in named if not is_inside(n, images, root)]
  if outside:
    raise UserError(
      f'The lists in {root / "anno"} name images that lie outside {root} '
      f'({splits.some(outside)}); copy them into images/'
    )
  missing = missing_of(images, named)
  if missing:
    raise UserError(
      f'Images that the lists in {root / "anno"} name are not '
      f'in {images} ({splits.some(missing)}); add them or take them out of '
      'the lists'
    )
  class_names = _class_names(root, lists)
  beyond = [
    f'{n} {label}'
    for labels in lists.values()
    for n, label in labels.items()
    if label > len(class_names)
  ]
  if beyond:
    raise UserError(
      f'Labels in {root / "anno"} lie beyond the '
      f'{len(class_names)} classes ({splits.some(beyond)}); correct them'
    )
  parts = {
    part: _files(images, labels, (label - 1 for label in labels.values()))
    for part, labels in lists.items()
  }
  dataset = splits.Dataset(name or root.name, class_names, val=None, **parts)
  _require_classes(dataset, root)
  if not dataset.test.names:
    raise UserError(f'{root / "anno/test.txt"} is empty; list the test images')
  return dataset


def missing_of(images: paths.Path, named: Sequence[str]) -> list[str]:
  """Those of the named files that are not in the folder."""
  # Together, since an object store takes its time to answer each.
  with ThreadPoolExecutor(_THREADS) as pool:
    there = pool.map(lambda n: (images / n).is_file(), named)
    return [n for n, found in zip(named, there, strict=True) if not found]


def _read_list(path: paths.Path) -> dict[str, int]:
  """`<path> <label>` on each line, as path -> label."""
  labels, repeated = {}, []
  for number, line in enumerate(lines_of(path), 1):
    if not line.strip():
      continue
    words = line.rsplit(maxsplit=1)
    if len(words) != 2 or not words[1].isdecimal() or int(words[1]) < 1:
      raise UserError(
        f"Line {number} of {path} is {line!r}; write '<path under images/> "
        "<label>' with labels from 1"
      )
    name = posixpath.normpath(words[0].strip())
    if name in labels:
      repeated.append(name)
    labels[name] = int(words[1])
  if repeated:
    raise UserError(
      f'{path} lists images twice ({splits.some(repeated)}); leave '
      'one line for each'
    )
  return labels


def lines_of(
  path: paths.Path, form: str = "'<path under images/> <label>' for each image"
) -> list[str]:
  """The lines of a text file; `form` says what one is, should it be absent."""
  if not path.is_file():
    raise UserError(f'{path} is absent; write one line {form}')
  try:
    return path.read_bytes().decode('utf-8-sig').splitlines()
  except UnicodeDecodeError as e:
    raise UserError(f'{path} is not UTF-8 text; save it as UTF-8') from e


def is_inside(name: str, images: paths.Path, root: paths.Path) -> bool:
  """Whether `name`, under `images`, lies in the root, links followed."""
  path = pathlib.PurePosixPath(name)
  if path.is_absolute() or '..' in path.parts:
    return False
  return paths.resolve(images / path).is_relative_to(root)


def _class_names(
  root: paths.Path, lists: Mapping[str, Mapping[str, int]]
) -> tuple[str, ...]:
  """From classes.txt, else the folder that holds each class, else numbers."""
  path = root / 'anno' / 'classes.txt'
  if path.is_file():
    names = []
    for number, line in enumerate(lines_of(path), 1):
      words = line.split(maxsplit=1)
      if not words:
        continue
      if len(words) != 2 or words[0] != str(len(names) + 1):
        raise UserError(
          f"Line {number} of {path} is {line!r}; write '<label> <name>' with "
          'the labels 1, 2, 3 and so on'
        )
      names.append(words[1].strip())
    return tuple(names)
  folders = {}
  for name, label in lists['train'].items():
    folders.setdefault(label, set()).add(posixpath.dirname(name))
  named = {label: min(found) for label, found in folders.items()}
  one_each = all(len(found) == 1 for found in folders.values())
  distinct = len(set(named.values())) == len(named) > 1
  # A label of a billion is a slip: its gap is reported below, and the names of
  # all the classes before it would fill the memory.
  count = min(max(folders, default=0), len(lists['train']) + 1)
  if one_each and distinct and all(named.values()):
    return tuple(named.get(i, str(i)) for i in range(1, count + 1))
  return tuple(str(i) for i in range(1, count + 1))


def _require_classes(dataset: splits.Dataset, root: paths.Path) -> None:
  if len(dataset.class_names) < 2:
    raise UserError(
      f'{root} has {len(dataset.class_names)} class; classification takes at '
      'least two'
    )
  untrained = [c.rpartition(':')[0] for c in splits.classes_under(dataset, 1)]
  if untrained:
    raise UserError(
      f'Classes of {root} have no training image '
      f'({splits.some(untrained)}); add some or take the classes out'
    )


def _drawn(data: Any) -> pathlib.Path:
  """The folder of the embedded set, drawn on first use."""
  from csdnet_jax.data import leaves

  traits = dict(data.leaves)
  drawn_by = pathlib.Path(leaves.__file__).read_bytes()
  key = hashlib.sha256(drawn_by + repr(sorted(traits.items())).encode())
  folder = cache_dir(data.cache)
  target = folder / f'leaves-{key.hexdigest()[:16]}'
  if target.is_dir():
    return target
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix='.leaves-') as scratch:
      drawn = pathlib.Path(scratch) / 'set'
      leaves.write(drawn, **traits)
      try:
        drawn.rename(target)
      except OSError:
        # Another process was faster; what it drew is the same, byte for byte.
        if not target.is_dir():
          raise
  except OSError as e:
    raise cache_error(folder, e) from e
  return target


def cache_error(folder: pathlib.Path, error: OSError) -> UserError:
  """The sentence for a cache folder that cannot be written or is full."""
  return UserError(
    f'Cannot write to the cache folder {folder} ({error.strerror}); free space '
    'there or set config.data.cache to another folder'
  )
