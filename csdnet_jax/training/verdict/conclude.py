"""What the candidates' predictions say: the table, the choice, the advice."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.table

from csdnet_jax.evaluation import advice, calibration, comparison, unknown
from csdnet_jax.evaluation.held_out import HeldOut
from csdnet_jax.runtime import paths, writers
from csdnet_jax.runtime.console import console
from csdnet_jax.runtime.terminal import say
from csdnet_jax.training.verdict.plan import Plan


def conclude(
  plan: Plan,
  found: Mapping[str, HeldOut],
  x: np.ndarray,
  failed: Sequence[str],
) -> dict[str, Any]:
  """Compares the candidates, and chooses one.

  Args:
    plan: of the verdict.
    found: of each candidate in order of simplicity, and of 'knn', which is
      compared and never chosen.
    x: frozen embeddings [n, C] of the images of the folds.
    failed: why candidates could not be trained, in sentences.

  Returns:
    Plain data: what `verdict.json` holds, but for the unknown classes.
  """
  names, train = plan.dataset.class_names, plan.dataset.train.labels
  units, labels = found['knn'].units, found['knn'].labels
  growth = comparison.growth_of(train, plan.folds)
  rights = {name: part.right for name, part in found.items() if name != 'knn'}
  figures = {
    name: comparison.accuracy(part.right, units, growth)
    for name, part in found.items()
  }
  chosen = comparison.choose({name: figures[name].top1 for name in rights})
  chance = comparison.chance(labels)
  return {
    'chosen': chosen,
    'sentence': comparison.sentence(
      rights, units, chosen, figures[chosen], chance
    ),
    'advice': advice.advice(
      rights[chosen], labels, names,
      advice.learning_curve(x, train, plan.folds),
      pictures=np.bincount(train, minlength=len(names)),
      undecided=comparison.undecided(figures[chosen], chance),
    ),
    'chance': chance,
    'images': len(train),
    'tested': len(labels),
    'folds': plan.k,
    'untested': plan.untested,
    'classes': len(names),
    'size': plan.level.size,
    'candidates': [
      {
        'name': name,
        'title': comparison.TITLES[name],
        **figures[name]._asdict(),
        'chosen': name == chosen,
        'candidate': name != 'knn',
      }
      for name in found
    ],
    'left_out': [*plan.left_out, *failed],
  }  # fmt: skip


def of_own_test(workdir: paths.Path) -> str:
  """Returns what the final model makes of the folder's own test part, or ''."""
  summary = writers.read_json(workdir / 'summary.json')
  n = summary['n_test']
  if not n:
    return ''
  found = comparison.of_share(summary['top1'], n)
  return (
    f"Of the {n} images of the folder's own test part, by which nothing was "
    f'chosen, the final model names {found.top1:.1f} % right ({found.low:.1f} '
    f'to {found.high:.1f}, each image counted by itself).'
  )


def show(told: Mapping[str, Any], workdir: paths.Path) -> None:
  """Prints a verdict, as `verdict.json` holds it."""
  table = rich.table.Table(
    title=f'Percent of {told["tested"]} images, each named by a model that has '
    'not seen it; the interval is for new images',
    title_justify='left',
  )  # fmt: skip
  table.add_column('')
  table.add_column('top-1', justify='right')
  table.add_column('95 % interval', justify='right')
  table.add_column('')
  for row in told['candidates']:
    table.add_row(
      row['title'], f'{row["top1"]:.1f}',
      f'{row["low"]:.1f} to {row["high"]:.1f}', 'chosen' * row['chosen'],
      style='bold' if row['chosen'] else None,
    )  # fmt: skip
  console.print(table)
  say(told['sentence'], style='bold')
  say(told['advice'])
  if tested := of_own_test(workdir):
    say(tested)
  # Of the final run, which has them by now.
  for kept in (calibration.read(workdir), unknown.read(workdir)):
    if kept:
      say(kept.how)
  for line in told['left_out']:
    say(line)
  say(
    f'The model, trained on all {told["images"]} images, and {workdir}/'
    f'report.html, which tells more, are in {workdir}.'
  )
