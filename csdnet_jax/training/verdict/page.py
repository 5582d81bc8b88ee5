"""The report of a verdict: what the folds say of the model, on one page."""

from typing import Any

import jax
import numpy as np

from csdnet_jax.data.images import inputs
from csdnet_jax.evaluation import calibration
from csdnet_jax.evaluation.held_out import HeldOut
from csdnet_jax.pictures.report import leaves, origin, page, single
from csdnet_jax.pictures.report.content import Predictions
from csdnet_jax.runtime import paths, writers
from csdnet_jax.state import averaged
from csdnet_jax.tasks import classification
from csdnet_jax.training.restore import read_run, restore_run
from csdnet_jax.training.together import pool
from csdnet_jax.training.verdict import conclude
from csdnet_jax.training.verdict.plan import Plan

FILE = single.FILE
_EVIDENCE = (
  "Names are those of the folds' models, which had not seen the leaf; the "
  'places are those of the final model, which has learnt it since.'
)


def write(
  plan: Plan, told: dict[str, Any], found: HeldOut, workdir: paths.Path
) -> None:
  """Writes `report.html` in place of the final run's own.

  Args:
    plan: of the verdict.
    told: what `verdict.json` holds.
    found: what the folds of the chosen candidate made of the images.
    workdir: of the final run, with its temperature and its threshold.
  """
  config, split = read_run(workdir)
  program, state = restore_run(
    workdir, config, split, devices=jax.local_devices()[:1]
  )
  weights = averaged(state, program.method.extras)
  fitted = calibration.read(workdir)
  predictions = Predictions(
    found.names, found.labels, found.logits,
    calibration.softmax(found.logits, fitted.temperature),
  )  # fmt: skip
  prepared = pool.prepare(config, [plan.dataset])
  train = plan.dataset.train
  row_of = {name: i for i, name in enumerate(train.names)}

  def view(row: int) -> np.ndarray:
    return prepared.images.views[prepared.place[found.names[row]]]

  checked = classification.reported(config, plan.dataset, plan.folds)
  writers.write_json(workdir / 'data_report.json', checked.figures)
  step = int(state.step)
  content = single.of_workdir(config, plan.dataset, workdir, step)
  page.write(
    workdir / FILE,
    content._replace(
      verdict=_sentences(told, conclude.of_own_test(workdir)),
      candidates=told['candidates'],
      advice=told['advice'],
      predictions=predictions,
      image=lambda name: inputs.decoded(train, row_of[name]),
      # The temperature is fitted to all that the folds have held out.
      calibration=fitted._replace(how=f'{fitted.how} {single.FLATTERED}'),
      made=origin.made(config, workdir, step, _made(plan, told)),
      left_out=told['left_out'],
      folds=told['folds'],
      **leaves.drawn(
        content.records, program.method.predict, weights, predictions, view,
        _EVIDENCE,
      ),
    ),
  )  # fmt: skip


def _sentences(told: dict[str, Any], own_test: str) -> list[str]:
  """What the page begins with, the most important first."""
  said = [
    told['sentence'],
    f'Measured on {told["tested"]} of {told["images"]} pictures, each by a '
    f'model that had not seen it ({told["folds"]} folds); the model itself has '
    'learnt from all. Always naming the most frequent class names '
    f'{told["chance"]:.1f} % right.',
  ]
  if own_test:
    said.append(own_test)
  if told['untested']:
    said.append(
      'Never tested, since all their pictures belong together: '
      f'{", ".join(told["untested"])}.'
    )
  return said


def _made(plan: Plan, told: dict[str, Any]) -> dict[str, str]:
  """How the model was chosen, for what the page says of its origin."""
  rows = {
    'candidates tried': '; '.join(
      row['title'] for row in told['candidates'] if row['candidate']
    ),
    'folds': f'{plan.k}, each candidate trained without one at a time',
    'time planned': f'{plan.minutes:g} minutes',
    'size': f'{plan.level.size} × {plan.level.size} pixels in every training',
  }
  if told['chosen'] in plan.tuned:
    n = len(plan.folds)
    steps = plan.steps(n)
    rows['length of a training'] = (
      f'{steps} steps on all pictures, {steps * plan.batch / n:.0f} epochs'
    )
  return rows
