"""The final model: the winner, trained on all images as an ordinary run."""

import jax

from csdnet_jax.data.images import saved
from csdnet_jax.evaluation import (
  calibration,
  comparison,
  held_out,
  predictions,
  unknown,
)
from csdnet_jax.runtime import paths, writers
from csdnet_jax.runtime.terminal import say
from csdnet_jax.training import train as training
from csdnet_jax.training.evaluate import evaluate_run
from csdnet_jax.training.restore import read_run
from csdnet_jax.training.verdict import candidates, page
from csdnet_jax.training.verdict.plan import Plan

HELD_OUT = 'held_out.npz'
LAST = 'predictions_folds.csv'  # Is written last.


def has_ended(workdir: paths.Path) -> bool:
  """Returns whether a workdir holds all that `train` leaves."""
  files = LAST, calibration.FILE, unknown.FILE, page.FILE
  return all((workdir / name).exists() for name in files)


def train(plan: Plan, told: dict, workdir: paths.Path) -> bool:
  """Trains the final model, and leaves what it is used by.

  Its temperature and the threshold of "none of these" are fitted to what the
  folds made of the images that they had not seen, since it has seen them all.

  Args:
    plan: of the verdict.
    told: what `verdict.json` holds.
    workdir: with `held_out.npz`.

  Returns:
    Whether it came to its end, and was not told to stop.
  """
  name, n = told['chosen'], len(plan.folds)
  config = candidates.config_of(plan, name, n, plan.steps(n))
  say(f'The final model, {comparison.TITLES[name]}, on all {n} images.')
  # As the folds were: a batch of few images is not worth spreading.
  device = jax.local_devices()[:1]
  summary = training.train(
    config, workdir, split=saved.split_to_json(plan.dataset), devices=device,
    told=True,
  )  # fmt: skip
  if summary is None:
    return False
  found = candidates.named(plan, held_out.read(workdir / HELD_OUT))
  step = summary['steps']
  fitted = calibration.fit(
    found.logits, found.labels, step, what='held-out images'
  )
  calibration.write(workdir, fitted)
  threshold = unknown.fit(found.score, step, left_out=told['unknown'])
  if threshold.threshold is not None:
    threshold = threshold._replace(
      how=f"{threshold.how} The scores are the folds' models'; of this one the "
      f'{100 * threshold.level:g} % are an estimate.'
    )
  unknown.write(workdir, threshold)
  class_names = plan.dataset.class_names
  rows = predictions.rows(
    found.names, found.labels, found._asdict(), class_names,
    temperature=fitted.temperature,
    refused=unknown.refused(found.score, threshold),
  )  # fmt: skip
  if plan.dataset.test.names:
    # Again, since its temperature was not known when the training ended.
    evaluate_run(
      config, workdir, known=read_run(workdir), devices=device,
      out=workdir / 'predictions.csv',
    )  # fmt: skip
  page.write(plan, told, found, workdir)
  writers.write_text(workdir / LAST, predictions.table(rows, class_names))
  return True
