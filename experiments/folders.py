r"""Whether verdicts hold: folders of which pictures are kept from everything.

  python -m experiments.folders --data_root=DIR --workdir=runs/folders

DIR holds leaf99/images and grape58/images, a folder of pictures for each class
in either. Each folder that is judged is a random part of one of them: 8 to 25
classes, of each class 3 to 6 pictures but at most half of what there is. The
rest of these classes is held out from everything. `csdnet train FOLDER` gives
the verdict, by a plan of its quickest level whatever the minutes; then every
candidate is trained on the whole folder as the final model is, and `csdnet
evaluate` says what it makes of the held-out pictures.

Each folder appends a line to experiments/results/verdicts/folders.jsonl; one
that has its line is skipped, one that was stopped continues. Started more than
once, with a core each, the processes share the folders. CSDNet is a candidate
in the first ones, fine-tuning by cross-entropy in all. In grape58 pictures of
one photograph may lie on both sides, as they may in the folds: most of its
classes have two photographs.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from csdnet_jax.config import from_json
from csdnet_jax.data import sources
from csdnet_jax.evaluation import comparison
from csdnet_jax.runtime import commands
from csdnet_jax.runtime.code import of_code
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import say
from csdnet_jax.training import command_line, places, train
from csdnet_jax.training.verdict import candidates, plan as planning
from csdnet_jax.training.workdir import BusyError, lock_file
from experiments import results

PATH = results.RESULTS / 'verdicts' / 'folders.jsonl'
SETS = ('leaf99', 'grape58')
_CLASSES = 8, 25
PICTURES = 3, 6
# So many held-out pictures tell an interval's fault from their own chance.
_MANY = 100
# Of a plan which they do not decide: all fits.
_MINUTES, _RATE = 1e5, 1e9


class Folder(NamedTuple):
  """A part of a data set.

  Attributes:
    given: {class: paths} that the verdict sees.
    held_out: {class: paths} of the rest of these classes.
  """

  given: dict[str, list[pathlib.Path]]
  held_out: dict[str, list[pathlib.Path]]


def draw(
  pictures: Mapping[str, Sequence[pathlib.Path]],
  seed: int,
  classes: tuple[int, int] = _CLASSES,
  each: tuple[int, int] = PICTURES,
) -> Folder:
  """Draws classes, and of each the pictures that are given.

  Args:
    pictures: of each class, two or more.
    seed: of the draw, which depends on no order.
    classes: of the folder, from and to.
    each: pictures that are given of a class, from and to; at most a half.
  """
  rng = np.random.default_rng(seed)
  names = sorted(pictures)
  count = min(int(rng.integers(classes[0], classes[1] + 1)), len(names))
  given, held_out = {}, {}
  for i in sorted(rng.choice(len(names), count, replace=False)):
    own = sorted(pictures[names[i]])
    own = [own[j] for j in rng.permutation(len(own))]
    n = int(rng.integers(each[0], each[1] + 1))
    n = min(n, len(own) // 2)
    given[names[i]], held_out[names[i]] = own[:n], own[n:]
  return Folder(given, held_out)


def pictures_of(root: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """Returns the pictures of each class of a data set, two or more.

  Raises:
    UserError: if there are none.
  """
  found = {
    folder.name: [p for p in folder.iterdir() if p.is_file()]
    for folder in (root / 'images').glob('*/')
  }
  found = {name: paths for name, paths in found.items() if len(paths) > 1}
  if not found:
    raise UserError(
      f'{root}/images holds no folders of pictures; check --data_root.'
    )
  return found


def copy(
  pictures: Mapping[str, Sequence[pathlib.Path]], place: pathlib.Path
) -> None:
  """Copies pictures into a folder of class folders."""
  for name, paths in pictures.items():
    target = place / name
    target.mkdir(parents=True, exist_ok=True)
    for path in paths:
      shutil.copy(path, target)


def judge(
  folder: Folder, workdir: pathlib.Path, tuned: Sequence[str], size: int
) -> tuple[dict, dict]:
  """Makes a verdict, and asks the held-out pictures.

  Args:
    folder: that is judged.
    workdir: for all of it, continued where it stands.
    tuned: the candidates that are trained.
    size: pixels a side that the network sees.

  Returns:
    What `verdict.json` holds, and `results.correctness` of each candidate on
    the held-out pictures.
  """
  for part, pictures in folder._asdict().items():
    copy(pictures, workdir / part)
  run = workdir / 'run'
  if not (run / planning.FILE).exists():
    write_plan(workdir / 'given', run, tuned, size)
  _csdnet('train', workdir / 'given', f'--workdir={run}')
  verdict = results.load(run / 'verdict.json')
  # A process of its own, which gives the accelerator back.
  _python('experiments.folders', f'--finals={run}')
  found = {}
  for row in verdict['candidates']:
    if row['candidate']:
      place = place_of(run, verdict, row['name'])
      out = workdir / f'{row["name"]}.csv'
      _csdnet('evaluate', workdir / 'held_out', f'--run={place}',
              f'--out={out}')  # fmt: skip
      names = results.load(place / 'split.json')['class_names']
      found[row['name']] = results.correctness(out, names)
  return verdict, found


def load(root: pathlib.Path, given: Sequence[str] = ()):
  """Returns the config and the data set of `csdnet train ROOT`, and flags."""
  config = command_line.resolve([*command_line.of_folder(str(root)), *given])
  config.data.test_fraction = 0.0
  config = places.from_root(config)
  return config, planning.whole(sources.load_images(config.data))


def plan_of(
  root: pathlib.Path,
  tuned: Sequence[str],
  size: int,
  given: Sequence[str] = (),
) -> planning.Plan:
  """Returns the plan of the quickest level, whatever the minutes.

  Args:
    root: of the pictures.
    tuned: the candidates that are trained.
    size: pixels a side that the network sees.
    given: `--config.key=value` of other fields.
  """
  config, dataset = load(root, given)
  plan = planning.make(
    config, dataset, planning.deal(config, dataset), minutes=_MINUTES,
    rate=_RATE, open_levels=[planning.LEVELS[-1]._replace(size=size)],
  )  # fmt: skip
  return plan._replace(tuned=tuple(tuned))


def write_plan(
  root: pathlib.Path, run: pathlib.Path, tuned: Sequence[str], size: int
) -> None:
  """Writes the plan with which `csdnet train` then goes on."""
  plan = plan_of(root, tuned, size)
  run.mkdir(parents=True, exist_ok=True)
  planning.write(run / planning.FILE, plan)


def place_of(run: pathlib.Path, verdict: Mapping, name: str) -> pathlib.Path:
  """The workdir of a candidate that was trained on the whole folder."""
  return run if name == verdict['chosen'] else run.parent / f'final_{name}'


def train_finals(run: pathlib.Path) -> None:
  """Trains the candidates that were not chosen as the final model would be."""
  kept = planning.read(run / planning.FILE)
  config = from_json(json.dumps(kept['config']))
  dataset = sources.load_images(config.data, split=kept['split'])
  plan = planning.again(kept, config, planning.whole(dataset))
  verdict, n = results.load(run / 'verdict.json'), len(plan.folds)
  for row in verdict['candidates']:
    if row['candidate'] and not row['chosen']:
      steps = plan.steps(n)
      config = candidates.config_of(plan, row['name'], n, steps)
      train.train(config, place_of(run, verdict, row['name']))


def _csdnet(command: str, *args) -> None:
  _python('csdnet_jax', command, *args)


def _python(module: str, *args) -> None:
  command = [sys.executable, '-m', module, *map(str, args)]
  done = subprocess.run(
    command, capture_output=True, text=True, env=os.environ, check=False
  )
  if done.returncode:
    said = (done.stderr or done.stdout).strip().splitlines()[-1:]
    raise UserError(f'{" ".join(command[1:])} failed: {" ".join(said)}')


# ------------------------------------------------------------------ the figures


class Summary(NamedTuple):
  """What the lines of folders say together, in percent or points.

  Attributes:
    folders: how many.
    covered: of the folders whose held-out figure the chosen one's interval
      holds.
    many: folders with a hundred held-out pictures or more.
    covered_many: of these, likewise; NaN where there are none.
    width: of the interval, the mean.
    good: of the folders in which the chosen one is the best on the held-out
      pictures, or within one standard error of the best.
    gain: of the chosen one over the better of the frozen ones (by the folds),
      on the held-out pictures, the mean.
    worst: of these gains.
  """

  folders: int
  covered: float
  many: int
  covered_many: float
  width: float
  good: float
  gain: float
  worst: float


def summarise(rows: Sequence[Mapping]) -> Summary:
  """Returns what lines say.

  Raises:
    UserError: there are none.
  """
  if not rows:
    raise UserError('No folder has been judged yet.')
  covered, widths, good, gains, sizes = map(
    np.array, zip(*map(_figures, rows), strict=True)
  )
  many = sizes >= _MANY
  return Summary(
    len(rows), 100 * float(covered.mean()), int(many.sum()),
    100 * float(covered[many].mean()) if many.any() else math.nan,
    float(widths.mean()), 100 * float(good.mean()), float(gains.mean()),
    float(gains.min()),
  )  # fmt: skip


def near_best(right: Mapping[str, np.ndarray], name: str) -> bool:
  """Returns whether one is within one standard error of the best.

  By the standard error of the paired difference, every picture for itself.

  Args:
    right: bool [n] of each candidate on the same pictures.
    name: of the candidate.

  >>> n = np.arange(100)
  >>> near_best({'a': n < 63, 'b': n < 64}, 'a')
  True
  >>> near_best({'a': n < 60, 'b': n < 64}, 'a')
  False
  """
  best = max(right, key=lambda other: np.mean(right[other]))
  units = np.arange(len(right[name]))
  short = comparison.difference(right[best], right[name], units)
  # One picture more is one standard error more, but for rounding.
  return short.points <= short.error * (1 + 1e-9)


def _figures(row: Mapping) -> tuple[bool, float, bool, float, int]:
  """What a line says of: the interval, its width, the choice, its gain, n.

  The choice is made anew: a line may be older than its rule.
  """
  right = {name: results.bits(part) for name, part in row['test'].items()}
  measured = {r['name']: r for r in row['candidates'] if r['candidate']}
  chosen = comparison.choose({name: r['top1'] for name, r in measured.items()})
  own = measured[chosen]
  figures = {name: 100 * float(x.mean()) for name, x in right.items()}
  figure, n = figures[chosen], len(right[chosen])
  frozen = max(comparison.FROZEN, key=lambda name: measured[name]['top1'])
  return (
    own['low'] <= figure <= own['high'],
    own['high'] - own['low'],
    near_best(right, chosen),
    figure - figures[frozen],
    n,
  )


def describe(found: Summary) -> str:
  """Returns it in words."""
  lines = [
    f'{found.folders} folders. The interval holds the held-out figure in '
    f'{found.covered:.0f} % of them; it is {found.width:.1f} points wide.',
  ]
  if found.many:
    lines.append(
      f'Of the {found.many} with {_MANY} held-out pictures or more in '
      f'{found.covered_many:.0f} %.'
    )
  lines += [
    'The chosen one is the best, or within one standard error of it, in '
    f'{found.good:.0f} %.',
    f'It gains {found.gain:.1f} points over the frozen features; '
    f'{found.worst:.1f} where it does worst.',
  ]
  return '\n'.join(lines)


def read(path: pathlib.Path) -> list[dict]:
  """Returns the lines that there are.

  Raises:
    UserError: for a line that is none.
  """
  if not path.exists():
    return []
  rows = []
  for i, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
    try:
      row = json.loads(line)
      summarise([row])
      rows.append(row | {'folder': int(row['folder'])})
    except (KeyError, TypeError, ValueError) as error:
      raise UserError(
        f'Line {i} of {path} is no result ({error}); remove it.'
      ) from error
  return rows


def run(args: argparse.Namespace) -> None:
  """Judges the folders that have no line, and no other process works on."""
  sets = {name: pictures_of(args.data_root / name) for name in SETS}
  for i in range(args.folders):
    with contextlib.suppress(BusyError), lock_file(args.workdir / str(i)):
      if i not in {row['folder'] for row in read(args.results)}:
        row = _row(args, i, sets[SETS[i % len(SETS)]])
        results.append(args.results, row)
        say(f'Folder {i}: {row["sentence"]}')


def _row(args: argparse.Namespace, i: int, pictures) -> dict:
  """Judges a folder, and returns its line."""
  folder, tried = draw(pictures, seed=i), i < args.csdnet
  clock, code = time.monotonic(), of_code()
  verdict, found = judge(
    folder, args.workdir / str(i),
    planning.TUNED if tried else planning.TUNED[:1], args.size,
  )  # fmt: skip
  return {
    'folder': i,
    'set': SETS[i % len(SETS)],
    'classes': len(folder.given),
    'pictures': sum(map(len, folder.given.values())),
    'size': args.size,
    'with_csdnet': tried,
    'chosen': verdict['chosen'],
    'sentence': verdict['sentence'],
    'candidates': verdict['candidates'],
    'test': found,
    'code': code,
    'seconds': round(time.monotonic() - clock, 1),
  }


def main(argv: Sequence[str]) -> int:
  """Judges folders, and says what they show; returns the exit status."""
  args = _parser().parse_args(argv)
  if args.finals:
    train_finals(args.finals)
    return 0
  if args.data_root:
    run(args)
  say(describe(summarise(read(args.results))))
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m experiments.folders',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
    epilog='Without --data_root it says what the lines show.',
  )
  parser.add_argument('--data_root', type=pathlib.Path, metavar='DIR')
  parser.add_argument(
    '--workdir', type=pathlib.Path, metavar='DIR',
    default=pathlib.Path('runs/folders'),
  )  # fmt: skip
  parser.add_argument('--results', type=pathlib.Path, default=PATH)
  parser.add_argument('--folders', type=int, default=40, metavar='N')
  parser.add_argument(
    '--csdnet', type=int, default=12, metavar='N', help='with CSDNet'
  )
  parser.add_argument(
    '--size', type=int, default=planning.LEVELS[-1].size, metavar='PIXELS'
  )
  # Of a process that this one starts.
  parser.add_argument('--finals', type=pathlib.Path, help=argparse.SUPPRESS)
  return parser


if __name__ == '__main__':
  commands.end(lambda: main(sys.argv[1:]))
