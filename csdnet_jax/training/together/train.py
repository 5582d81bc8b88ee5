"""Trains the runs of a group together, each into a workdir of its own."""

import concurrent.futures
import contextlib
import json
import pathlib
import shutil
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from csdnet_jax.checkpoint import Checkpoints
from csdnet_jax.config import outside
from csdnet_jax.data import batches
from csdnet_jax.data.images import splits
from csdnet_jax.evaluation import accuracy
from csdnet_jax.runtime import environment, writers
from csdnet_jax.runtime.code import of_code
from csdnet_jax.runtime.terminal import progress_bar, say, stopper
from csdnet_jax.tasks import classification, kept
from csdnet_jax.training.fit import evaluations, step_of
from csdnet_jax.training.together import program, start
from csdnet_jax.training.together.group import (
  Run,
  make,
  outputs,
  outputs_in_order,
)
from csdnet_jax.training.train import means, not_finite
from csdnet_jax.training.workdir import lock_file

# Seconds of steps between two looks at whether to stop, and between two saves.
_LOOK, _SAVE = 20.0, 120.0


class TooManyError(Exception):
  """The device's memory does not hold so many runs at a time."""


def train(runs: Sequence[Run], folder: pathlib.Path) -> list[str] | None:
  """Trains runs of one of `grouping.groups`, or continues with them.

  Of each is left what an ordinary run leaves, but no weights and no pictures.

  Args:
    runs: R of them.
    folder: for what they share: their states, until they have ended.

  Returns:
    For each run '', or why it failed; None if all were told to stop (SIGTERM
    or Ctrl-C) before the end, and are continued by the same call.

  Raises:
    TooManyError: if the device's memory is too small for all of them.
    UserError: if the data or the weights cannot be read, or another process is
      training in the folder.
  """
  with lock_file(folder):
    record = environment.Record(folder)
    modules = outside(runs[0].config.to_dict()).values()
    record.update(code=of_code(modules))
    try:
      failed = _train(runs, folder, record)
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      raise TooManyError(
        f'{len(runs)} runs are more than the memory of the device holds.'
      ) from error
    if failed is None:
      return None
    steps = _steps(runs)
    record.finish(steps=steps)
    for run, why in zip(runs, failed, strict=True):
      if not why:
        _end(run, folder, steps, len(runs))
    shutil.rmtree(folder / 'checkpoints', ignore_errors=True)
  return failed


def _steps(runs) -> int:
  config = runs[0].config
  return step_of(config, config.epochs, len(runs[0].dataset.train.names))


def _train(runs, folder, record) -> list[str] | None:
  n_train, batch = len(runs[0].dataset.train.names), runs[0].config.batch_size
  steps = _steps(runs)
  with concurrent.futures.ThreadPoolExecutor(4) as threads:
    # While the rest is made ready; arms of one seed share theirs.
    orders = {
      seed: threads.submit(
        batches.order, n_train, batch=batch, seed=seed, steps=steps
      )
      for seed in {run.config.seed for run in runs}
    }
    group = make(runs)
    with contextlib.closing(
      Checkpoints(folder / 'checkpoints', keep=1)
    ) as checkpoints:
      states = start.restored(group, checkpoints)
      if states is None:
        states = start.first(group)
      say(
        f'{len(runs)} runs of {steps} steps in one program; of each its '
        'figures and predictions are kept, no weights and no pictures.'
      )
      order = np.stack(
        [orders[run.config.seed].result() for run in runs], axis=1
      )
      order = jnp.asarray(order)
      return _loop(group, states, order, checkpoints, record)


# ------------------------------------------------------------------- the loop


def _loop(group, states, order, checkpoints, record) -> list[str] | None:
  """Steps until the end or a signal; returns why runs failed."""
  runs, steps = group.runs, len(order)
  evals = evaluations(group.config, len(runs[0].dataset.train.names))
  step, failed = int(states.step[0]), [''] * len(runs)
  with (
    contextlib.ExitStack() as stack,
    stopper() as stop,
    progress_bar('steps', logged='step') as progress,
  ):
    logs = [
      stack.enter_context(
        contextlib.closing(writers.Writer(run.workdir, run.config, step=step))
      )
      for run in runs
    ]
    progress(step, steps, 'compiling the program ...')
    args = group.arguments, group.images, order
    advance = group.program.advance.lower(states, *args, 0, 0).compile()
    _require_room(advance, len(runs))
    saved, count, pending = time.monotonic(), 1, []
    while step < steps and not all(failed):
      goal = min(e for e in evals if e > step)
      count = min(count, goal - step, program.MOST_STEPS)
      clock = time.monotonic()
      states, figures = advance(states, *args, step, count)
      figures = jax.device_get(figures)
      pace = (time.monotonic() - clock) / count
      pending += [
        (step + 1 + i, {name: x[:, i] for name, x in figures.items()})
        for i in range(count)
      ]
      step, count = step + count, max(1, int(_LOOK / pace))
      stopping = stop(step) and step < steps
      saving = stopping or time.monotonic() - saved > _SAVE
      flushing = saving or step in evals
      pending = _log(group, logs, failed, pending, flushing)
      progress(step, steps, f'{len(runs) / pace:.1f} steps/s of all runs')
      if step in evals:
        _evaluate(group, states, logs, failed, step, evals[step])
      if saving:
        for log in logs:
          log.flush()
        checkpoints.save(states, step)
        record.update()
        saved = time.monotonic()
      if stopping:
        say(f'Stopped and saved at step {step} of {steps}.')
        return None
  _keep(group, states, failed, steps)
  return failed


def _require_room(compiled, runs: int) -> None:
  """Raises a TooManyError if a compiled program needs more than there is."""
  stats = jax.local_devices()[0].memory_stats() or {}
  room, needs = stats.get('bytes_limit'), compiled.memory_analysis()
  if not room or needs is None:
    return
  # Donated states are arguments and outputs in one.
  total = needs.argument_size_in_bytes + needs.temp_size_in_bytes
  if total > room:
    raise TooManyError(
      f'{runs} runs need {total / 2**30:.1f} GiB of the {room / 2**30:.1f} '
      'GiB of the device.'
    )


def _log(group, logs, failed, pending, flushing) -> list:
  """Writes the means of each `log_every` steps; returns what is left of them.

  Args:
    group: of R runs.
    logs: of each.
    failed: why each did; changed in place.
    pending: (step, {name: [R]}) of the steps that no log has.
    flushing: whether none may be left.
  """
  every = group.config.log_every
  ends = [i for i, (step, _) in enumerate(pending) if step % every == 0]
  if flushing and pending and len(pending) - 1 not in ends:
    ends.append(len(pending) - 1)
  begin = 0
  for end in ends:
    for r, log in enumerate(logs):
      if failed[r]:
        continue
      steps, figures = zip(*pending[begin : end + 1], strict=True)
      own = [{name: x[r] for name, x in found.items()} for found in figures]
      if bad := not_finite(steps, own):
        failed[r] = (
          f'{bad}; the others of its program went on. Lower --config.optim.lr, '
          'or check the images of that step.'
        )
      else:
        log.write('train', steps[-1], means(own))
    begin = end + 1
  return pending[begin:]


def _evaluate(group, states, logs, failed, step: int, epoch: float) -> None:
  """Evaluates every held-out part of the runs that have not failed."""
  for part in ('test', 'val'):
    if part not in splits.parts_of(group.runs[0].dataset):
      continue
    places, sums, found = outputs(group, states, part)
    sums, logits = jax.device_get((sums, found['logits']))
    labels = group.prepared.images.labels[places]
    top1 = []
    for r, (run, log) in enumerate(zip(group.runs, logs, strict=True)):
      if failed[r]:
        continue
      result = accuracy.collect(
        (
          jax.tree.map(lambda x, b=b, r=r: x[b, r], sums),
          logits[b, r], labels[b, r], places[b, r] >= 0,
        )
        for b in range(len(places))
      )  # fmt: skip
      log.write(part, step, {'epoch': round(float(epoch), 6)} | result.figures)
      parts = dict.fromkeys(splits.parts_of(run.dataset))
      data = classification.Data(run.dataset, None, parts)
      classification.write_details(run.workdir, part, data, result)
      top1.append(result.figures['top1'])
    if top1:
      say(
        f'epoch {epoch:g}  {part}  top-1 {np.mean(top1):.2f} on average, '
        f'{min(top1):.2f} to {max(top1):.2f}'
      )


# ------------------------------------------------------------------- the end


def _keep(group, states, failed, steps: int) -> None:
  """Leaves of each run what its images told it, as an ordinary one does."""
  found = {
    part: outputs_in_order(group, states, part)
    for part in splits.parts_of(group.runs[0].dataset)
  }
  for r, run in enumerate(group.runs):
    if not failed[r]:
      own = {
        part: {name: x[r] for name, x in rows.items()}
        for part, rows in found.items()
      }
      kept.write(run.workdir, run.dataset, own, steps)


def _end(run: Run, folder: pathlib.Path, steps: int, together: int) -> None:
  """Leaves of a run what an ordinary one does; its share of the time too."""
  starts = json.loads((folder / 'environment.json').read_text())['starts']
  weights = json.loads((run.workdir / 'weights.json').read_text())['origin']
  shares = [
    one
    | {
      'seconds': round(one['seconds'] / together, 1),
      'weights': weights,
      'together': together,
    }
    for one in starts
  ]
  writers.write_json(run.workdir / 'environment.json', {'starts': shares})
  records = writers.read_records(run.workdir / 'metrics.jsonl')
  baselines = json.loads((run.workdir / 'start.json').read_text())
  summary = classification.summarise(
    records, steps, splits.parts_of(run.dataset), baselines
  )
  writers.write_json(run.workdir / 'summary.json', summary)
