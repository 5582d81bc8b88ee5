r"""How many steps fine-tuning needs.

  python -m experiments.bench.lengths --data_root=DIR --workdir=runs/lengths

DIR holds leaf99/images and grape58/images, as for `experiments.folders`. Eight
folders are drawn as there, of 16 classes each unless it is said otherwise, and
of other seeds than those that are judged there; the rest of their classes is
held out. Every candidate that is trained is trained on all of them, once for
each number of steps, and asked for the held-out pictures. All folders of one
candidate and length train in one program; what has ended is not trained again.
What else is given as --config.key=value is the config's of all, such as
--config.model.freeze_bn=True; give it a --workdir of its own.

It prints what a linear probe on frozen features reaches, and each length, and
how far each is from the longest: the difference over folders with its standard
error.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from csdnet_jax.evaluation.comparison import TITLES
from csdnet_jax.runtime import commands, writers
from csdnet_jax.runtime.errors import capitalised
from csdnet_jax.training.together.group import Run
from csdnet_jax.training.verdict import candidates, plan as planning
from experiments import folders

_CLASSES = 16
_FIRST = 1000  # Seed; those of `experiments.folders` are smaller.


def draw(
  root: pathlib.Path,
  workdir: pathlib.Path,
  count: int,
  *,
  classes: int = _CLASSES,
  each: tuple[int, int] = folders.PICTURES,
  names: Sequence[str] = folders.SETS,
  given: Sequence[str] = (),
):
  """Copies the pictures of each folder, and returns the plans.

  The parts are train/ and test/.

  Args:
    root: that holds the sets.
    workdir: gets a folder each.
    count: of folders.
    classes: of each folder.
    each: pictures of a class, from and to.
    names: of the sets, which take turns.
    given: `--config.key=value` of other fields.
  """
  sets = [folders.pictures_of(root / name) for name in names]
  drawn = []
  for i in range(count):
    place = workdir / f'folder_{i}'
    folder = folders.draw(
      sets[i % len(sets)], _FIRST + i, (classes, classes), each
    )
    for part, pictures in zip(('train', 'test'), folder, strict=True):
      # Runs of one program have the same names of their classes.
      named = {f'class_{k:02d}': own for k, own in enumerate(pictures.values())}
      folders.copy(named, place / part)
    size = planning.LEVELS[-1].size
    drawn.append(folders.plan_of(place, planning.TUNED, size, given))
  return drawn


def probe(drawn) -> list[float]:
  """Top-1 of a linear probe of frozen features on each folder, percent."""
  # The same of all, whose classes have the same names.
  forward = candidates.forward_of(drawn[0].config, drawn[0].dataset)
  found = []
  for plan in drawn:
    train, test = plan.dataset.train, plan.dataset.test
    x, x_test = (
      candidates.embeddings(plan, forward, part) for part in ('train', 'test')
    )
    scores = candidates.HEADS['probe'](x, train.labels, x_test)
    found.append(100 * float(np.mean(scores.argmax(-1) == test.labels)))
  return found


def top1(drawn, name: str, steps: int, folder: pathlib.Path) -> list[float]:
  """Trains a candidate on each folder; its top-1 on what is held out, percent.

  Args:
    drawn: of `draw`.
    name: of the candidate.
    steps: of each training.
    folder: for the runs.
  """
  sizes = [len(plan.folds) for plan in drawn]
  runs = [
    Run(
      candidates.config_of(plan, name, n, steps, least=min(sizes)),
      plan.dataset, folder / str(i),
    )
    for i, (plan, n) in enumerate(zip(drawn, sizes, strict=True))
  ]  # fmt: skip

  def keep(run, found, at):
    del at
    test = found['test']
    right = test['logits'].argmax(-1) == test['label']
    writers.write_json(run.workdir / 'top1.json', 100 * float(right.mean()))

  kept = [run.workdir / 'top1.json' for run in runs]
  title = f'{TITLES[name]}, {steps} steps'
  if not all(path.exists() for path in kept) and not candidates.train_runs(
    runs, folder, keep, title
  ):
    raise SystemExit('Stopped and saved; the same command continues.')
  return [writers.read_json(path) for path in kept]


def describe(name: str, found: dict[int, Sequence[float]]) -> list[str]:
  """Returns in words what {steps: top-1 of each folder} shows."""
  longest = np.array(found[max(found)])
  lines = [f'{capitalised(TITLES[name])}, {len(longest)} folders']
  for steps, figures in sorted(found.items()):
    short = np.array(figures) - longest
    line = f'  {steps} steps: top-1 {np.mean(figures):.1f}'
    if steps != max(found):
      error = short.std(ddof=1) / np.sqrt(len(short))
      line += f', {short.mean():+.1f} +- {error:.1f} to the longest'
    lines.append(line)
  return lines


def main(argv: Sequence[str]) -> int:
  """Trains what has not been, and prints; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.bench.lengths',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--data_root', type=pathlib.Path, required=True, metavar='DIR'
  )
  parser.add_argument(
    '--workdir', type=pathlib.Path, metavar='DIR',
    default=pathlib.Path('runs/lengths'),
  )  # fmt: skip
  parser.add_argument(
    '--steps', type=int, nargs='+', default=[75, 150, 300, 600], metavar='N'
  )
  parser.add_argument(
    '--candidates', nargs='+', choices=planning.TUNED,
    default=list(planning.TUNED),
  )  # fmt: skip
  parser.add_argument('--folders', type=int, default=8, metavar='N')
  parser.add_argument('--classes', type=int, default=_CLASSES, metavar='N')
  parser.add_argument(
    '--pictures', type=int, nargs=2, default=folders.PICTURES,
    metavar=('FROM', 'TO'), help='of a class',
  )  # fmt: skip
  parser.add_argument(
    '--sets', nargs='+', choices=folders.SETS, default=folders.SETS
  )
  args, given = parser.parse_known_args(argv)
  drawn = draw(
    args.data_root, args.workdir, args.folders, classes=args.classes,
    each=tuple(args.pictures), names=args.sets, given=given,
  )  # fmt: skip
  frozen = np.mean(probe(drawn))
  print(f'A linear probe on frozen features: top-1 {frozen:.1f}', flush=True)
  for name in args.candidates:
    found = {
      steps: top1(drawn, name, steps, args.workdir / f'{name}_{steps}')
      for steps in sorted(args.steps)
    }
    print('\n'.join(describe(name, found)), flush=True)
  return 0


if __name__ == '__main__':
  commands.end(lambda: main(sys.argv[1:]))
