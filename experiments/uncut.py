"""Classes of which a split cuts no group, and their images.

Where one plant, or one photograph, is both in train and in test, the figure of
its class flatters.
"""

import csv
import functools
import json
import pathlib
from collections.abc import Mapping

import numpy as np

from csdnet_jax.config import from_json
from csdnet_jax.data.images import groups
from csdnet_jax.tasks import classification


def groups_of(config) -> Mapping[str, str]:
  """Returns the group of each image of a config by name; {} without groups."""
  if not config.data.group and not config.data.table:
    return {}  # Without listing the images again.
  return _groups_of(json.dumps({'data': config.data.to_dict()}))


@functools.lru_cache
def _groups_of(fields: str) -> Mapping[str, str]:
  return classification.load(from_json(fields)).groups


def known(
  path: pathlib.Path, split: dict, group_of: Mapping[str, str], part: str
) -> dict:
  """Returns what a line says of the classes that are not cut.

  Args:
    path: of the `predictions.csv` of a part.
    split: of the run, as in its `split.json`.
    group_of: the group of each image, by name.
    part: 'test' or 'val'; a class is cut if train and this part share a group.

  Returns:
    uncut: which images are of other classes, as hexadecimal digits like those
      of `results.correctness`.
    uncut_classes: how many these are.
  """
  cut = _cut_classes(split, group_of, part)
  with open(path, newline='', encoding='utf-8') as file:
    rows = sorted(csv.DictReader(file), key=lambda row: row['path'])
  theirs = np.array([row['label'] not in cut for row in rows])
  return {
    'uncut': np.packbits(theirs).tobytes().hex(),
    'uncut_classes': len(set(split['class_names']) - cut),
  }


def _cut_classes(split, group_of, part) -> set[str]:
  labels = split['train'] | split[part]
  names = list(labels)
  sides = [side for side in ('train', part) for _ in split[side]]
  return {
    split['class_names'][labels[names[i]]]
    for rows in groups.cut(group_of, names, sides).values()
    for i in rows
  }
