"""Trains the runs of a group together, each into a workdir of its own."""

import concurrent.futures
import contextlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from csdnet_jax.checkpoint import Checkpoints
from csdnet_jax.config import differences, outside
from csdnet_jax.data import batches
from csdnet_jax.data.images import splits
from csdnet_jax.evaluation import accuracy
from csdnet_jax.runtime import environment, writers
from csdnet_jax.runtime.code import of_code
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import progress_bar, say, stopper
from csdnet_jax.tasks import classification, kept
from csdnet_jax.training.fit import evaluations, step_of, steps_of
from csdnet_jax.training.restore import read_run
from csdnet_jax.training.together import grouping, program, start
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


_OTHERS = '; the others of its program went on'


class TooManyError(Exception):
  """The device's memory does not hold so many runs at a time."""


class DoesNotFitError(UserError):
  """The device's memory does not hold a single run."""


# `{part: {'logits', 'embedding', 'label'}}` of a run, see `accuracy.outputs`.
Found = Mapping[str, Mapping[str, np.ndarray]]


def keep_as_alone(run: Run, found: Found, steps: int) -> None:
  """Leaves of a run what its images told it, as an ordinary one does."""
  kept.write(run.workdir, run.dataset, found, steps)


def train(
  runs: Sequence[Run],
  folder: pathlib.Path,
  *,
  keep: Callable[[Run, Found, int], None] = keep_as_alone,
  baselines: bool = True,
  told: bool = False,
) -> list[str] | None:
  """Trains runs that can share a program, or continues with them.

  They are those of one of `grouping.groups`; or runs whose parts are of unequal
  size, such as the folds of a cross-validation, if all take equally many steps
  (each with its own `config.epochs`) and `grouping.require_shared` lets them.
  Of each is left what an ordinary run leaves, but no weights and no pictures.
  What the device's memory does not hold is trained one half after the other.
  Where all have ended already, as they are given, nothing is done.

  Args:
    runs: R of them.
    folder: for what they share: their states, until they have ended; those of
      halves in `0` and `1` below it.
    keep: `(run, found, steps)`, called at the end for each run that has not
      failed, with what the network makes of each of its parts; after a kill it
      may be called again.
    baselines: whether what the initial features are worth is measured; else
      `start.json` is {}.
    told: whether the caller has reported on the images.

  Returns:
    For each run '', or why it failed; None if all were told to stop (SIGTERM
    or Ctrl-C) before the end, and are continued by the same call.

  Raises:
    UserError: if the data or the weights cannot be read, another process is
      training in the folder, the runs cannot share a program, or the device's
      memory is too small for one of them.
  """
  _require_alike(runs)
  if all(map(_has_ended, runs)):
    return [''] * len(runs)
  halves = [folder / str(i) for i in range(2)]
  # A second try with all of them would write over the half that has ended.
  if not halves[0].is_dir():
    try:
      return _together(runs, folder, keep, baselines, told)
    except TooManyError as error:
      if len(runs) == 1:
        raise DoesNotFitError(f'{error} Lower config.batch_size.') from error
      say(f'{error} They are trained in two halves.')
  # Outside, so that nothing of what was too much is held any more.
  half, failed = (len(runs) + 1) // 2, []
  for below, part in zip(halves, (runs[:half], runs[half:]), strict=True):
    below.mkdir(parents=True, exist_ok=True)
    found = train(part, below, keep=keep, baselines=baselines, told=told)
    if found is None:
      return None
    failed += found
  return failed


def _require_alike(runs) -> None:
  """Refuses runs that one program cannot train as each would be alone."""
  configs = [run.config for run in runs]
  if why := ''.join(dict.fromkeys(map(grouping.alone, configs))):
    raise UserError(f'A run can share no program: {why}; train it alone.')
  grouping.require_shared(configs)
  for what, of in (
    ('names of their classes', lambda run: tuple(run.dataset.class_names)),
    ('parts', lambda run: tuple(splits.parts_of(run.dataset))),
    ('steps (config.epochs)', _steps),
    ('steps of warm-up (config.optim.warmup)', _warmup),
  ):
    if len(found := {of(run) for run in runs}) > 1:
      numbers = ', '.join(str(x) for x in sorted(found) if isinstance(x, int))
      raise UserError(
        f'Runs of one program have the same {what}, but these have not'
        f'{numbers and f" ({numbers})"}; make them equal, or train them one by '
        'one.'
      )


def _steps(run: Run) -> int:
  return steps_of(run.config, len(run.dataset.train.names))


def _warmup(run: Run) -> int:
  warmup, n = run.config.optim.warmup, len(run.dataset.train.names)
  return step_of(run.config, warmup, n) if warmup else 0


def _has_ended(run: Run) -> bool:
  """Whether a run of this config and these parts has ended in its workdir."""
  if not (run.workdir / 'summary.json').exists():
    return False
  config, split = read_run(run.workdir)
  own = json.loads(json.dumps(classification.split_of(run.dataset)))
  return split == own and not differences(config, run.config)


def _together(runs, folder, keep, baselines, told) -> list[str] | None:
  """What `train` does, with all of them in one program.

  Raises:
    TooManyError: if the device's memory is too small for all of them.
  """
  with lock_file(folder):
    record = environment.Record(folder)
    modules = outside(runs[0].config.to_dict()).values()
    record.update(code=of_code(modules))
    try:
      failed = _train(runs, folder, record, keep, baselines, told)
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      raise TooManyError(
        f'{len(runs)} runs are more than the memory of the device holds.'
      ) from error
    if failed is None:
      return None
    steps = _steps(runs[0])
    record.finish(steps=steps)
    for run, why in zip(runs, failed, strict=True):
      if not why:
        _end(run, folder, steps, len(runs))
    shutil.rmtree(folder / 'checkpoints', ignore_errors=True)
  return failed


def _train(runs, folder, record, keep, baselines, told) -> list[str] | None:
  batch, steps = runs[0].config.batch_size, _steps(runs[0])
  # What decides the order in which a run reads its images.
  ordered = [(len(run.dataset.train.names), run.config.seed) for run in runs]
  with concurrent.futures.ThreadPoolExecutor(4) as threads:
    # While the rest is made ready; arms of one seed share theirs.
    orders = {
      (n, seed): threads.submit(
        batches.order, n, batch=batch, seed=seed, steps=steps
      )
      for n, seed in set(ordered)
    }
    group = make(runs, told)
    with contextlib.closing(
      Checkpoints(folder / 'checkpoints', keep=1)
    ) as checkpoints:
      states = start.restored(group, checkpoints)
      if states is None:
        states = start.first(group, measure=baselines)
      say(
        f'{len(runs)} runs of {steps} steps in one program; of each its '
        'figures and predictions are kept, no weights and no pictures.'
      )
      order = np.stack([orders[key].result() for key in ordered], axis=1)
      order = jnp.asarray(order)
      return _loop(group, states, order, checkpoints, record, keep)


# ------------------------------------------------------------------- the loop


def _loop(group, states, order, checkpoints, record, keep):
  """Steps until the end or a signal; returns why runs failed."""
  runs, steps = group.runs, len(order)
  # Of each: an epoch of a larger train set ends later.
  own = [evaluations(run.config, len(run.dataset.train.names)) for run in runs]
  evals = set().union(*own)
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
    saved, count, pending = time.monotonic(), 1, [[] for _ in runs]
    while step < steps and not all(failed):
      goal = min(e for e in evals if e > step)
      count = min(count, goal - step, program.MOST_STEPS)
      clock = time.monotonic()
      states, figures = advance(states, *args, step, count)
      figures = jax.device_get(figures)
      pace = (time.monotonic() - clock) / count
      for r, left in enumerate(pending):
        left += [
          (step + 1 + i, {name: x[r, i] for name, x in figures.items()})
          for i in range(count)
        ]
      step, count = step + count, max(1, int(_LOOK / pace))
      stopping = stop(step) and step < steps
      saving = stopping or time.monotonic() - saved > _SAVE
      flushing = [saving or step in found for found in own]
      _log(group, logs, failed, pending, flushing)
      progress(step, steps, f'{len(runs) / pace:.1f} steps/s of all runs')
      if step in evals:
        epochs = [found.get(step) for found in own]
        _evaluate(group, states, logs, failed, step, epochs)
      if saving:
        for log in logs:
          log.flush()
        checkpoints.save(states, step)
        record.update()
        saved = time.monotonic()
      if stopping:
        say(f'Stopped and saved at step {step} of {steps}.')
        return None
  _keep(group, states, failed, steps, keep)
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


def _log(group, logs, failed, pending, flushing) -> None:
  """Writes the means of each `log_every` steps.

  Args:
    group: of R runs.
    logs: of each.
    failed: why each did; changed in place.
    pending: (step, {name: []}) of the steps of each that its log does not have;
      changed in place.
    flushing: of each, whether none may be left.
  """
  every = group.config.log_every
  for r, (log, own) in enumerate(zip(logs, pending, strict=True)):
    ends = [i for i, (step, _) in enumerate(own) if step % every == 0]
    if flushing[r] and own and len(own) - 1 not in ends:
      ends.append(len(own) - 1)
    begin = 0
    for end in ends:
      steps, figures = zip(*own[begin : end + 1], strict=True)
      begin = end + 1
      if failed[r]:
        continue
      if bad := not_finite(steps, figures):
        failed[r] = (
          f'{bad}{_OTHERS * (len(logs) > 1)}. Lower --config.optim.lr, or '
          'check the images of that step.'
        )
      else:
        log.write('train', steps[-1], means(figures))
    del own[:begin]


def _evaluate(group, states, logs, failed, step: int, epochs) -> None:
  """Evaluates every held-out part of the runs that have not failed.

  Args:
    group: of R runs.
    states: of them.
    logs: of each.
    failed: why each did.
    step: that they have taken.
    epochs: those of each, None of one that is not evaluated at this step.
  """
  for part in ('test', 'val'):
    if part not in splits.parts_of(group.runs[0].dataset):
      continue
    places, sums, found = outputs(group, states, part)
    sums, logits = jax.device_get((sums, found['logits']))
    labels = group.prepared.images.labels[places]
    top1 = []
    for r, (run, log) in enumerate(zip(group.runs, logs, strict=True)):
      if failed[r] or epochs[r] is None:
        continue
      result = accuracy.collect(
        (
          jax.tree.map(lambda x, b=b, r=r: x[b, r], sums),
          logits[b, r], labels[b, r], places[b, r] >= 0,
        )
        for b in range(len(places))
      )  # fmt: skip
      seen = {'epoch': round(float(epochs[r]), 6)}
      log.write(part, step, seen | result.figures)
      parts = dict.fromkeys(splits.parts_of(run.dataset))
      data = classification.Data(run.dataset, None, parts)
      classification.write_details(run.workdir, part, data, result)
      top1.append(result.figures['top1'])
    if top1:
      said = [epoch for epoch in epochs if epoch is not None]
      span = dict.fromkeys(f'{x:.4g}' for x in (min(said), max(said)))
      say(
        f'epoch {" to ".join(span)}  {part}  top-1 {np.mean(top1):.2f} on '
        f'average, {min(top1):.2f} to {max(top1):.2f}'
      )


# ------------------------------------------------------------------- the end


def _keep(group, states, failed, steps: int, keep) -> None:
  """Gives what the images of each run told it to `keep`."""
  found = {
    part: outputs_in_order(group, states, part)
    for part in splits.parts_of(group.runs[0].dataset)
  }
  for r, run in enumerate(group.runs):
    if not failed[r]:
      keep(run, {part: rows[r] for part, rows in found.items()}, steps)


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
