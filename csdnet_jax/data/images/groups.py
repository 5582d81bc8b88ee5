"""Groups: images of one plant, one photograph, which one side must hold all of.

Our choice throughout: no published split of such sets is drawn by groups.
"""

import collections
import pathlib
import re
from collections.abc import Mapping, Sequence

from csdnet_jax.runtime.errors import UserError, preview

STEM = 'stem'

# What sets apart the pictures of one thing: _0, -2, (3), ' 12', _a.
_COUNTER = re.compile(r'([ _.-]+\(?(\d{1,4}|[A-Za-z])\)?|\(\d+\))$')
# What cameras, phones and people call any picture.
_ANYTHING = re.compile(
  r'(img|image|dsc[nf]?|dscn|pxl|mvi|pic|picture|photo|scan|screenshot|leaf|'
  r'whatsapp image [\d-]+ at|copy)?[\s\d_.()-]*',
  re.IGNORECASE,
)


def of_names(
  group: str, names: Sequence[str], classes: Sequence[str]
) -> dict[str, str]:
  """Returns the group of each image, by name, as `config.data.group` says.

  Args:
    group: 'stem', see `stem_of`, within a class; or a regex, of which the first
      match in the name counts: its first group, or all of it without one.
    names: of n images, paths relative to the data set.
    classes: the name of the class of each.

  Returns:
    The groups of the images that have one.

  Raises:
    UserError: no regex, or no image has a group.

  >>> names = ['ash/plant1_a.jpg', 'ash/plant2.jpg', 'ash/x.jpg']
  >>> of_names('plant([0-9]+)', names, ['ash'] * 3)
  {'ash/plant1_a.jpg': '1', 'ash/plant2.jpg': '2'}
  >>> of_names('stem', names, ['ash'] * 3)
  {'ash/plant1_a.jpg': 'ash/plant1'}
  """
  if group == STEM:
    if stems := _stems(names, classes):
      return stems
    raise UserError(
      f'config.data.group={STEM} finds no names that share all but a counter, '
      f'such as plant7_1 and plant7_2, among the images ({preview(list(names))}'
      '); leave it out, or give a regular expression'
    )
  try:
    pattern = re.compile(group)
  except re.error as error:
    raise UserError(
      f'config.data.group={group} is no regular expression ({error}); correct '
      f"it, or say '{STEM}'"
    ) from error
  found = {name: pattern.search(name) for name in names}
  groups = {
    name: value
    for name, match in found.items()
    # The first group may have had no part in the match.
    if match and (value := (pattern.groups and match[1]) or match[0])
  }
  if not groups:
    raise UserError(
      f'config.data.group={group} matches none of the images '
      f'({preview(list(names))}); correct it'
    )
  return groups


def _stems(names: Sequence[str], classes: Sequence[str]) -> dict[str, str]:
  return {
    name: f'{c}/{stem}'
    for name, c in zip(names, classes, strict=True)
    if (stem := stem_of(name, c))
  }


def stem_of(name: str, class_name: str) -> str:
  """Returns what the pictures of one thing share: a file's name but a counter.

  '' where the name has no counter; where nothing but digits or a camera's word
  is left; and where what is left names the class.

  >>> stem_of('ash/L0101A_0.jpg', 'ash'), stem_of('ash/vine 3 (2).png', 'ash')
  ('L0101A', 'vine 3')
  >>> stem_of('ash/IMG_0001.jpg', 'ash'), stem_of('ash/leaf (3).jpg', 'ash')
  ('', '')
  >>> stem_of('ash/7.jpg', 'ash'), stem_of('ash/ash_3.jpg', 'ash')
  ('', '')
  """
  stem = pathlib.PurePosixPath(name).stem
  cut = _COUNTER.sub('', stem)
  if cut == stem or _ANYTHING.fullmatch(cut):
    return ''
  return '' if _letters(cut) == _letters(class_name) else cut


def _letters(text: str) -> str:
  return ''.join(c for c in text.casefold() if c.isalnum())


def shared_stems(
  names: Sequence[str], classes: Sequence[str], sides: Sequence[str]
) -> dict[str, list[int]]:
  """Finds stems that pictures on several sides of a split share.

  A stem counts where it recurs and its class has at least two that do: one
  that all pictures of a class share says nothing.

  Args:
    names: of n images.
    classes: the name of the class of each.
    sides: the side of each.

  Returns:
    {stem: rows}.
  """
  stems = _stems(names, classes)
  counts = collections.Counter(stems.values())
  recurring = {
    (c, stems[name])
    for name, c in zip(names, classes, strict=True)
    if counts[stems.get(name)] > 1
  }
  of_class = collections.Counter(c for c, _ in recurring)
  return {
    stem: rows
    for stem, rows in cut(stems, names, sides).items()
    if of_class[classes[rows[0]]] > 1
  }


def spanning(
  groups: Mapping[str, str], names: Sequence[str], classes: Sequence[str]
) -> dict[str, list[str]]:
  """Finds the groups that hold images of several classes, {group: classes}."""
  found = collections.defaultdict(set)
  for name, c in zip(names, classes, strict=True):
    if name in groups:
      found[groups[name]].add(c)
  return {g: sorted(held) for g, held in found.items() if len(held) > 1}


def cut(
  groups: Mapping[str, str], names: Sequence[str], sides: Sequence[str]
) -> dict[str, list[int]]:
  """Finds the groups that lie on several sides, {group: rows of names}."""
  found = collections.defaultdict(list)
  for i, name in enumerate(names):
    if name in groups:
      found[groups[name]].append(i)
  return {
    group: rows
    for group, rows in found.items()
    if len({sides[i] for i in rows}) > 1
  }
