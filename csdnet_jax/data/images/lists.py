"""Images with lists of their labels: the layout of the UFG release.

images/            the images, in folders of any names
anno/train.txt     `<path under images/> <label>` a line, labels from 1
anno/test.txt      the same
anno/classes.txt   `<label> <name>`, where there is such a file
"""

import posixpath
from collections.abc import Mapping

from csdnet_jax.data import folders, naming
from csdnet_jax.data.images import splits
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError, preview

_UNLISTED = 'images that no list names'


def open_lists(
  root: paths.Path, name: str = '', *, trains: bool = True
) -> splits.Dataset:
  """Reads a folder with `anno/` and `images/`; the UFG release's.

  `anno/val.txt` is not read: in the published release it seems to repeat the
  test list.

  Args:
    root: the folder.
    name: of the data set; '' for the folder's.
    trains: as for `open_folder`.

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
    part: splits.of_files(images, labels, (y - 1 for y in labels.values()))
    for part, labels in lists.items()
  }
  used = [f'images/{name}' for name in named]
  used += [f'anno/{name}.txt' for name in (*lists, 'classes')]
  dataset = splits.Dataset(
    name or root.name, class_names, val=None, **parts,
    unused=folders.rest(root, used, _UNLISTED, each_in='images'),
  )  # fmt: skip
  if trains:
    splits.require_classes(dataset, root)
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
