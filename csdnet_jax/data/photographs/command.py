"""`csdnet cut`: from photographs of several leaves to a folder of classes."""

import argparse
import os
import pathlib
import shlex
from collections.abc import Sequence

from csdnet_jax.data import folders
from csdnet_jax.data.images import labelled_folders
from csdnet_jax.data.photographs import key
from csdnet_jax.runtime import commands
from csdnet_jax.runtime.errors import UserError, preview, printable
from csdnet_jax.runtime.terminal import progress_bar, say


def main(args: argparse.Namespace) -> int:
  """Runs the command; returns its exit status."""
  commands.require('skimage', 'cut')
  from csdnet_jax.data.photographs import folder

  root, out = _path(args.photographs), _path(args.out)
  sheets = _path(args.sheets or f'{out}_sheets')
  table = _path(args.table) if args.table else None
  photographs, unused = folder.list_photographs(root)
  if table:
    unused = [u for u in unused if (root / u.path).resolve() != table.resolve()]
  if said := folders.said(unused):
    say(f'Beside the photographs, {said}.')
  unnamed, without = [], []
  if table:
    found, without = key.match(key.read(table, args.encoding), photographs)
    unnamed = [printable(p) for p in photographs if p not in found]
    if not found:
      raise UserError(
        f'{table} names none of the photographs in {root}: it has '
        f'{preview(without, 3)}, and there are {preview(photographs, 3)}.'
      )
  else:
    found = folder.by_folder(photographs)
    say(
      'Without --table the class is the folder of the photograph; those in '
      f'none go to {folder.UNLABELLED}/.'
    )
  with progress_bar('photographs', logged='photograph') as progress:
    report = folder.write(root, found, out, sheets, progress)
  if without:
    say(f'Rows of {table} without a photograph: {preview(without, 5)}.')
  for note in report.notes:
    say(f'Look at {note}.')
  if report.left_out:
    reasons = (f'{reason}, {n}' for reason, n in report.left_out.items())
    say(f'Left out, in blue on the sheets: {"; ".join(reasons)}.')
  classes = sorted(set(found.values()))
  say(
    f'Leaves: {report.leaves}, of photographs: {len(found)}, of classes: '
    f'{len(classes)}; in {out}. Check the outlines in {sheets}.'
  )
  beyond = [name for name in classes if not name.isascii()]
  if table and beyond:
    say(
      f'Classes with letters beyond ASCII: {preview(beyond)}: if they look '
      'wrong, the table has another --encoding.'
    )
  if report.leaves:
    say(f'To train on them: {_training(out)}')
  problems = (
    ('not in the table, so not cut', unnamed),
    ('cannot be read', report.unreadable),
    ('no leaf was found', report.empty),
  )
  return _list(problems)


def _training(out: pathlib.Path) -> str:
  return shlex.join(
    ['csdnet', 'train', str(out), *labelled_folders.by_table(out)]
  )


def _list(problems: Sequence[tuple[str, Sequence[str]]]) -> int:
  """Lists the photographs that gave nothing; returns the exit status."""
  for what, names in problems:
    if names:
      say(f'Photographs, {len(names)}: {what}:', style='red')
    for name in names:
      say(f'  {name}', style='red')
  return int(any(names for _, names in problems))


def _path(given: str) -> pathlib.Path:
  return pathlib.Path(os.path.expanduser(given))
