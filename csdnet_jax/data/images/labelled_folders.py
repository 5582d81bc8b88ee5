"""Folders of labelled images.

A folder is read in one of three layouts, told apart by what lies in it:

    anno/ and images/   the UFG release's: anno/train.txt and anno/test.txt hold
                        `<path under images/> <label>`, labels from 1, and
                        anno/classes.txt, where there is one, `<label> <name>`
    train/ and test/    a folder for each class in both, and in val/ if present;
                        under any of the names in `PARTS`, in any case; val/
                        tests where there is no test/
    <class>/            a folder for each class, split by the program
"""

import os
import posixpath
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from csdnet_jax.data import folders, naming
from csdnet_jax.data.images import splits
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError, preview, printable

# How people call the parts of a split, in lower case.
PARTS = {
  'train': ('train', 'training'),
  'val': ('val', 'valid', 'validation', 'dev'),
  'test': ('test', 'testing'),
}
VAL_TESTS = 'there is no test part: the validation part is the test part'
_UNLISTED = 'images that no list names'
_LOOSE = 'images outside of the split folders'


class _Class(NamedTuple):
  """One class folder.

  Attributes:
    written: its name.
    images: their paths under the root, sorted.
    inner: the folders in it that hold some of them.
    flat: whether some lie in none of these.
  """

  written: str
  images: list[str]
  inner: list[str]
  flat: bool


def part_of(name: str) -> str:
  """'train', 'val' or 'test' of one of their usual names; '' of another.

  >>> part_of('Valid'), part_of('valley')
  ('val', '')
  """
  return next((p for p, n in PARTS.items() if name.casefold() in n), '')


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
      class has no training image; see `open_ufg_layout`.
  """
  root = folders.root_of(root)
  pair = ('anno', 'images')
  present = [p for p in pair if (root / p).is_dir()]
  if len(present) == 1:
    absent = pair[1] if present == ['anno'] else pair[0]
    raise UserError(
      f'{root} has {present[0]}/ but no {absent}/; add it, or give a folder '
      'that holds one folder for each class'
    )
  if present:
    return open_ufg_layout(root, name)
  here = folders.listing(root, root)
  parts = _parts(root, here)
  unused, notes = [], []
  if parts:
    unused += _beside(root, here, parts)
    if 'test' not in parts:
      parts['test'] = parts.pop('val')
      notes.append(VAL_TESTS)
  classes = {}
  for part, folder in (parts or {'train': root}).items():
    classes[part], passed_by = _classes(folder, root)
    unused += passed_by
  if not any(classes.values()):
    raise UserError(
      f'{root} holds no class folders with images; give a folder that holds '
      f'one folder of images for each class{_but(unused)}'
    )
  if not parts:
    _require_no_split(root, classes['train'])
  every = [c for found in classes.values() for c in found]
  class_names = tuple(sorted({naming.class_name(c.written) for c in every}))
  notes += [*naming.notes(c.written for c in every), *_nested(every)]
  found = {part: _split(root, c, class_names) for part, c in classes.items()}
  dataset = splits.Dataset(
    name or root.name, class_names, unused=tuple(unused), notes=tuple(notes),
    **found,
  )  # fmt: skip
  require_classes(dataset, root)
  for part, folder in parts.items():
    if not found[part].names:
      raise UserError(
        f'{folder} holds no images; add some or remove the folder'
      )
  return dataset


def _but(unused: Iterable[folders.Unused]) -> str:
  """What is not used, as the end of a sentence."""
  said = folders.said(unused)
  return said and f' ({said})'


def _parts(root: paths.Path, here: folders.Listing) -> dict[str, paths.Path]:
  """The folder of each part; {} where there are classes instead."""
  parts: dict[str, paths.Path] = {}
  for entry in here.folders:
    part = part_of(entry.name)
    if part in parts:
      raise UserError(
        f'{root} has both {parts[part].name}/ and {entry.name}/, each of '
        f'which may be the {part} part; remove or rename one of them'
      )
    if part:
      parts[part] = entry
  if len(parts) == 1 and len(here.folders) > 1:
    (only,) = parts.values()
    inside = folders.listing(only, root)
    # A class may be called so: Train, beside Bus and Tram.
    if inside.images and not inside.folders:
      return {}
  if parts and 'train' not in parts:
    given = ' and '.join(f'{entry.name}/' for entry in parts.values())
    raise UserError(
      f'{root} has {given} but no train/; add it, or give a folder that holds '
      'one folder for each class'
    )
  if len(parts) == 1:
    only = parts['train']
    raise UserError(
      f'{root} has {only.name}/ but no test/; add test/ or val/, or, to have '
      f'the program split the images, give {only}'
    )
  return parts


def _beside(
  root: paths.Path, here: folders.Listing, parts: Mapping[str, paths.Path]
) -> list[folders.Unused]:
  """What lies beside the folders of the parts."""
  loose = [(image, _LOOSE) for image in here.images]
  other = [
    folders.Unused(f'{printable(entry.name)}/', folders.FOLDERS)
    for entry in here.folders
    if entry not in parts.values()
  ]
  return [*folders.relative([*here.unused, *loose], root), *other]


def _classes(
  folder: paths.Path, root: paths.Path
) -> tuple[list[_Class], list[folders.Unused]]:
  """The class folders that hold images, and what else lies in a folder."""
  here = folders.listing(folder, root)
  if here.images:
    raise UserError(
      f'Images lie in {folder} itself '
      f'({preview(image.name for image in here.images)}); move each into the '
      'folder of its class, take them out, or name each and its class in a '
      'table (config.data.table)'
    )
  found, unused = [], folders.relative(here.unused, root)
  for entry in here.folders:
    images, passed_by = folders.walk(entry, root)
    inside = f'{entry.relative_to(root).as_posix()}/'
    if images:
      names = [name.removeprefix(inside) for name in images]
      inner = sorted({n.partition('/')[0] for n in names if '/' in n})
      flat = any('/' not in n for n in names)
      found.append(_Class(entry.name, images, inner, flat))
    else:
      reason = folders.IMAGELESS if passed_by else folders.EMPTY
      unused.append(folders.Unused(printable(inside), reason))
    unused += passed_by
  return found, unused


def _require_no_split(root: paths.Path, classes: list[_Class]) -> None:
  """Refuses folders that are parts of a split under names of their own."""
  if len(classes) < 2 or any(c.flat or len(c.inner) < 2 for c in classes):
    return
  largest = max((set(c.inner) for c in classes), key=len)
  if all(set(c.inner) <= largest for c in classes):
    raise UserError(
      f'The folders of {root} ({preview(c.written for c in classes)}) hold '
      f'folders of equal names ({preview(sorted(largest), 3)}): they look like '
      'parts of a split. Rename them train/, test/ and val/; or, if they are '
      'the classes, put their images into them directly, or name each image '
      'and its class in a table (config.data.table)'
    )


def _nested(classes: list[_Class]) -> list[str]:
  """What to say of class folders that hold folders."""
  deep = [f'{c.written}/{c.inner[0]}' for c in classes if c.inner]
  if not deep:
    return []
  first = deep[0].partition('/')[0]
  return [
    f'{len(deep)} class folder{"s" * (len(deep) > 1)} hold'
    f'{"s" * (len(deep) == 1)} folders ({preview(deep, 3)}): all images below '
    f'are taken as of the outer folder, such as of class {first}'
  ]


def _split(
  root: paths.Path, classes: list[_Class], class_names: tuple[str, ...]
) -> splits.Split:
  label = {class_name: i for i, class_name in enumerate(class_names)}
  return files(
    root,
    [image for c in classes for image in c.images],
    [label[naming.class_name(c.written)] for c in classes for _ in c.images],
  )


def files(
  folder: paths.Path, names: Iterable[str], labels: Iterable[int]
) -> splits.Split:
  """The part of a data set that these files of a folder are."""
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
    part: files(images, labels, (label - 1 for label in labels.values()))
    for part, labels in lists.items()
  }
  used = [f'images/{name}' for name in named]
  used += [f'anno/{name}.txt' for name in (*lists, 'classes')]
  dataset = splits.Dataset(
    name or root.name, class_names, val=None, **parts,
    unused=folders.rest(root, used, _UNLISTED, each_in='images'),
  )  # fmt: skip
  require_classes(dataset, root)
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
      names.append(naming.class_name(words[1]))
    return tuple(names)
  held_by = {}
  for name, label in lists['train'].items():
    held_by.setdefault(label, set()).add(posixpath.dirname(name))
  named = {
    label: naming.class_name(min(found)) for label, found in held_by.items()
  }
  one_each = all(len(found) == 1 for found in held_by.values())
  distinct = len(set(named.values())) == len(named) > 1
  # A label of a billion is a slip: its gap is reported below, and the names of
  # all the classes before it would fill the memory.
  count = min(max(held_by, default=0), len(lists['train']) + 1)
  if one_each and distinct and all(named.values()):
    return tuple(named.get(i, str(i)) for i in range(1, count + 1))
  return tuple(str(i) for i in range(1, count + 1))


def require_classes(dataset: splits.Dataset, root: paths.Path) -> None:
  """Refuses fewer than two classes, or one without a training image."""
  if len(dataset.class_names) < 2:
    raise UserError(
      f'{root} has {len(dataset.class_names)} class '
      f'({preview(dataset.class_names)}); classification takes at least two'
      f'{_but(dataset.unused)}'
    )
  untrained = [c.rpartition(':')[0] for c in splits.classes_under(dataset, 1)]
  if untrained:
    raise UserError(
      f'Classes of {root} have no training image '
      f'({preview(untrained)}); add some or take the classes out'
    )
