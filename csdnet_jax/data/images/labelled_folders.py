"""Folders of labelled images.

A folder is read in one of three layouts, told apart by what lies in it:

    anno/ and images/   the UFG release's: anno/train.txt and anno/test.txt hold
                        `<path under images/> <label>`, labels from 1, and
                        anno/classes.txt, where there is one, `<label> <name>`
    train/ and test/    a folder for each class in both, and in val/ if present;
                        under any of the names in `naming.PARTS`, in any
                        case; val/ tests where there is no test/
    <class>/            a folder for each class, split by the program
"""

import os
import shlex
from collections.abc import Mapping
from typing import NamedTuple

from csdnet_jax.data import folders, naming
from csdnet_jax.data.images import lists, splits
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError, counted, preview, printable

VAL_TESTS = 'there is no test part: the validation part is the test part'
_LOOSE = 'images outside of the split folders'
# What `csdnet cut` writes beside the classes.
_TABLE, _HEADER = 'leaves.csv', b'path,label,group'


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


def open_folder(
  root: str | os.PathLike, name: str = '', *, trains: bool = True
) -> splits.Dataset:
  """Reads a folder in any of the module's three layouts.

  Args:
    root: the folder.
    name: of the data set; '' for the folder's.
    trains: whether there must be two classes, with training images each; else
      any parts will do.

  Returns:
    The data set. Where the folder comes without a split every image is in
    train and test is empty, for `draw_split`.

  Raises:
    UserError: the folder is absent, empty, ambiguous or has a single class; a
      class has no training image; see `lists.open_lists`.
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
    return lists.open_lists(root, name, trains=trains)
  here = folders.listing(root, root)
  parts = _parts(root, here)
  if trains:
    _require_parts(root, here, parts)
  unused, notes = [], []
  if parts:
    unused += _beside(root, here, parts)
    if trains and 'test' not in parts:
      parts['test'] = parts.pop('val')
      notes.append(VAL_TESTS)
  classes = {}
  for part, folder in (parts or {'train': root}).items():
    classes[part], passed_by = _classes(folder, root)
    unused += passed_by
  if not any(classes.values()):
    raise UserError(
      f'{root} holds no class folders with images; give a folder that holds '
      f'one folder of images for each class{folders.but(unused)}'
    )
  if not parts:
    _require_no_split(root, classes['train'])
  every = [c for found in classes.values() for c in found]
  class_names = tuple(sorted({naming.class_name(c.written) for c in every}))
  notes += naming.notes(c.written for c in every)
  if trains:
    notes += _unused_table(root)
  found = {part: _split(root, c, class_names) for part, c in classes.items()}
  dataset = splits.Dataset(
    name or root.name, class_names, unused=tuple(unused), notes=tuple(notes),
    warnings=tuple(_nested(every, root)), **{'train': splits.EMPTY, **found},
  )  # fmt: skip
  if trains:
    splits.require_classes(dataset, root)
  for part, folder in parts.items():
    if not found[part].names:
      raise UserError(
        f'{folder} holds no images; add some or remove the folder'
      )
  return dataset


def by_table(root: str | os.PathLike) -> list[str]:
  """The flags that train on what `csdnet cut` wrote, whole photographs aside.

  Args:
    root: the folder that it made.
  """
  return [
    f'--config.data.table={os.path.join(root, _TABLE)}',
    '--config.data.group=group',
  ]


def _unused_table(root: paths.Path) -> list[str]:
  """What to say of a table of `csdnet cut` that nobody named."""
  table = root / _TABLE
  if not table.is_file():
    return []
  with table.open('rb') as file:
    if file.read(len(_HEADER)) != _HEADER:
      return []
  return [
    f'{_TABLE} names the photograph of each image and is not used; to keep a '
    f'photograph on one side: {shlex.join(by_table(root))}'
  ]


def _parts(root: paths.Path, here: folders.Listing) -> dict[str, paths.Path]:
  """The folder of each part; {} where there are classes instead."""
  parts = naming.parts_among(here.folders, root)
  if len(parts) == 1 and len(here.folders) > 1:
    (only,) = parts.values()
    inside = folders.listing(only, root)
    # A class may be called so: Train, beside Bus and Tram.
    if inside.images and not inside.folders:
      return {}
  return parts


def _require_parts(
  root: paths.Path, here: folders.Listing, parts: Mapping[str, paths.Path]
) -> None:
  """Refuses a split that has nothing to train on, or nothing to test."""
  other = [f'{e.name}/' for e in here.folders if e not in parts.values()]
  absent = 'test' if 'train' in parts else 'train'
  maybe = (
    f' (or rename to {absent}/ the folder that is that part: '
    f'{preview(other, 3)})'
    if other
    else ''
  )
  if parts and 'train' not in parts:
    given = ' and '.join(f'{entry.name}/' for entry in parts.values())
    raise UserError(
      f'{root} has {given} but no train/; add it{maybe}, or give a folder '
      'that holds one folder for each class'
    )
  if len(parts) == 1:
    only = parts['train']
    raise UserError(
      f'{root} has {only.name}/ but no test/; add test/ or val/{maybe}, or, '
      f'to have the program split the images, give {only}'
    )


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
      'table (--config.data.table=FILE)'
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
      'and its class in a table (--config.data.table=FILE)'
    )


def _nested(classes: list[_Class], root: paths.Path) -> list[str]:
  """What to say of class folders that hold folders."""
  deep = [f'{c.written}/{inner}' for c in classes for inner in c.inner]
  if not deep:
    return []
  first = deep[0].partition('/')[0]
  return [
    f'{counted(len(deep), "folders lie")} in class folders: all images in such '
    f'a folder are taken as of the outer one, such as of class '
    f'{printable(first)}; move it out of {root} if it is no class '
    f'({preview(deep, 5)})'
  ]


def _split(
  root: paths.Path, classes: list[_Class], class_names: tuple[str, ...]
) -> splits.Split:
  label = {class_name: i for i, class_name in enumerate(class_names)}
  return splits.of_files(
    root,
    [image for c in classes for image in c.images],
    [label[naming.class_name(c.written)] for c in classes for _ in c.images],
  )
