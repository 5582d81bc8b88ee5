"""Folders of labelled images.

A folder is read in one of three layouts, told apart by what lies in it:

    anno/ and images/   the UFG release's: anno/train.txt and anno/test.txt hold
                        `<path under images/> <label>`, labels from 1, and
                        anno/classes.txt, where there is one, `<label> <name>`
    train/ and test/    a folder for each class in both, and in val/ if present
    <class>/            a folder for each class, split by the program
"""

import os
import posixpath
from collections.abc import Iterable, Mapping

import numpy as np

from csdnet_jax.data import folders
from csdnet_jax.data.images import splits
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError, preview


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
  root = folders.root_of(root)
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
    test=found_parts.get('test', splits.EMPTY),
  )
  _require_classes(dataset, root)
  for part in parts[1:]:
    if not found_parts[part].names:
      raise UserError(
        f'{root / part} holds no images; add some or remove the folder'
      )
  return dataset


def _images(folder: paths.Path, root: paths.Path) -> dict[str, list[str]]:
  """The paths under `root` of every class's images, sorted."""
  entries = folders.entries_of(folder, root)
  loose = [e.name for e in entries if folders.is_image(e)]
  if loose:
    raise UserError(
      f'Images lie in {folder} itself ({preview(loose)}); move '
      'each into the folder of its class'
    )
  classes = [e for e in entries if e.is_dir()]
  return {c.name: sorted(folders.walk(c, root)) for c in classes}


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
      f'{root} ({preview(both)}); take each out of one of the lists'
    )
  named = [*lists['train'], *lists['test']]
  outside = [n for n in named if not folders.is_inside(n, images, root)]
  if outside:
    raise UserError(
      f'The lists in {root / "anno"} name images that lie outside {root} '
      f'({preview(outside)}); copy them into images/'
    )
  missing = folders.missing_of(images, named)
  if missing:
    raise UserError(
      f'Images that the lists in {root / "anno"} name are not '
      f'in {images} ({preview(missing)}); add them or take them out of '
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
      f'{len(class_names)} classes ({preview(beyond)}); correct them'
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


def _read_list(path: paths.Path) -> dict[str, int]:
  """`<path> <label>` on each line, as path -> label."""
  labels, repeated = {}, []
  for number, line in enumerate(folders.lines_of(path), 1):
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
      f'{path} lists images twice ({preview(repeated)}); leave '
      'one line for each'
    )
  return labels


def _class_names(
  root: paths.Path, lists: Mapping[str, Mapping[str, int]]
) -> tuple[str, ...]:
  """From classes.txt, else the folder that holds each class, else numbers."""
  path = root / 'anno' / 'classes.txt'
  if path.is_file():
    names = []
    for number, line in enumerate(folders.lines_of(path), 1):
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
  held_by = {}
  for name, label in lists['train'].items():
    held_by.setdefault(label, set()).add(posixpath.dirname(name))
  named = {label: min(found) for label, found in held_by.items()}
  one_each = all(len(found) == 1 for found in held_by.values())
  distinct = len(set(named.values())) == len(named) > 1
  # A label of a billion is a slip: its gap is reported below, and the names of
  # all the classes before it would fill the memory.
  count = min(max(held_by, default=0), len(lists['train']) + 1)
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
      f'({preview(untrained)}); add some or take the classes out'
    )
