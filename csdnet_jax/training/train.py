"""Training, from a config to a workdir; reads from top to bottom.

What the data are and what is measured on them is the task's (`tasks`), what is
trained the method's. The order in which a run finds its state: its own workdir,
then `config.init_from` (a run, a file, or published weights), then random
values.
"""

import collections
import contextlib
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from csdnet_jax import sharding, tasks
from csdnet_jax.checkpoint import Checkpoints
from csdnet_jax.config import outside, validate
from csdnet_jax.data import batches
from csdnet_jax.data.images import dividing, splits
from csdnet_jax.runtime import environment, paths, processes, writers
from csdnet_jax.runtime.code import of_code
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.profile import tracer
from csdnet_jax.runtime.terminal import progress_bar, say, show_summary, stopper
from csdnet_jax.state import TrainState
from csdnet_jax.tasks.base import Experiment
from csdnet_jax.training import places
from csdnet_jax.training.describe import describe
from csdnet_jax.training.fit import evaluations
from csdnet_jax.training.head import fit_head, fitted
from csdnet_jax.training.initial import initial_weights
from csdnet_jax.training.prepare import Prepared, prepare
from csdnet_jax.training.workdir import lock, write_inputs


class Outputs(NamedTuple):
  """Where the figures and the states of a run go.

  Attributes:
    workdir: of the run.
    checkpoints: its saved states.
    record: of this start, `environment.json`.
    writer: of the figures, on the first process, else None.
    profile: where a trace of a few steps goes, or None.
  """

  workdir: paths.Path
  checkpoints: Checkpoints
  record: environment.Record
  writer: writers.Writer | None
  profile: paths.Path | None


def train(
  config: ml_collections.ConfigDict,
  workdir: paths.Path,
  *,
  dataset: splits.Dataset | None = None,
  split: Mapping | None = None,
  devices=None,
  profile: bool = False,
  told: bool = False,
) -> dict | None:
  """Trains as the config says, or continues where the workdir stands.

  Args:
    config: of the run.
    workdir: where everything of the run is kept.
    dataset: images in memory in place of what `config.data` would load; the
      parts are drawn from it here.
    split: the parts, as `task.split_of` gives them; None: as the config says.
    devices: to run on; all of them where None.
    profile: whether to leave a trace of a few steps in `profile/`.
    told: whether the caller says what there is to say of the images and of the
      figures at the end.

  Returns:
    What `summary.json` holds, or None if the run was told to stop (SIGTERM or
    Ctrl-C) before its end; the same command continues it.

  Raises:
    UserError: for a user's mistake.
  """
  validate(config)
  config = places.from_root(config)
  if profile and paths.is_remote(workdir):
    raise UserError('--profile needs a --workdir on a disk.')
  with lock(config, workdir):
    if summary := finished(config, workdir, told):
      return summary
    if config.notice:
      say(config.notice)
    record = environment.Record(workdir)
    record.update(code=of_code(outside(config.to_dict()).values()))
    split = split_of(workdir) or split
    with processes.collective():
      if dataset is None:
        dataset = tasks.of(config).load(config, split)
      else:
        dataset = dividing.divide(dataset, config.data, split=split)
    ready = prepare(config, dataset, workdir, devices=devices, told=told)
    return _train(ready, dataset, workdir, record, profile, told)


def finished(config, workdir: paths.Path, told: bool = False) -> dict | None:
  """Returns the summary of a run that has ended; shows it if nobody else does.

  None of a run that has not.
  """
  if not (workdir / 'summary.json').exists():
    return None
  summary = json.loads((workdir / 'summary.json').read_text())
  if told:
    return summary
  say(f'{workdir} is finished; nothing to do.')
  show_summary(tasks.of(config), summary, workdir)
  return summary


def split_of(workdir: paths.Path) -> dict | None:
  """Returns the split that a run began with, None before it has one."""
  return writers.read_json(workdir / 'split.json')


def _train(
  ready: Prepared, dataset, workdir, record, profile, told
) -> dict | None:
  experiment, frozen, figures, notes = ready
  config, program, data = experiment
  task, n_train = tasks.of(config), len(dataset.train.names)
  write_inputs(config, dataset, workdir)
  first = jax.process_index() == 0
  if first:
    writers.write_json(workdir / 'data_report.json', figures)
  with contextlib.ExitStack() as stack:
    checkpoints = Checkpoints(workdir / 'checkpoints', keep=config.keep)
    stack.callback(checkpoints.close)
    abstract = sharding.abstract(jax.eval_shape(program.init), program.mesh)
    state = checkpoints.restore(abstract, warn=say)
    begun = state is None
    if begun:
      params, model_state, loaded = initial_weights(
        config, program.model, dataset.class_names
      )
      record.update(weights=loaded['origin'])
      if first:
        writers.write_json(workdir / 'weights.json', loaded)
      state = program.init(params, model_state)
      state = sharding.replicate(state, program.mesh)
    else:
      say(f'Continuing from step {int(state.step)}.')
    describe(config, program, state.params, n_train)
    for note in notes:
      say(note)
    start = start_figures(experiment, state, workdir)
    writer = None
    if first:
      # Of a start that saved nothing no record stays.
      done = -1 if begun else int(state.step)
      writer = writers.Writer(workdir, config, step=done)
      stack.callback(writer.close)
    outputs = Outputs(
      workdir, checkpoints, record, writer,
      workdir / 'profile' if profile else None,
    )  # fmt: skip
    if begun and fitted(config):
      state = fit_head(experiment, state)
    if program.steps:
      state, ended = loop(experiment, state, frozen, outputs)
    else:
      ended = True
      if begun:
        selection = evaluate(experiment, state, 0.0, outputs)
        save(outputs, state, 0, selection)
    if ended:
      task.write_end(experiment, state, workdir)
    checkpoints.close()
  record.finish(steps=int(state.step))
  if not ended:
    # On every process: each host's log tells why it ended.
    say(
      f'Stopped and saved at step {int(state.step)} of {program.steps}; the '
      'same command continues.',
      everywhere=True,
    )
    return None
  summary = None
  if first:
    records = writers.read_records(workdir / 'metrics.jsonl')
    summary = task.summarise(records, program.steps, data.parts, start)
    writers.write_json(workdir / 'summary.json', summary)
    if not told:
      show_summary(task, summary, workdir)
  sharding.barrier('finished')
  return summary


def loop(
  experiment: Experiment, state: TrainState, frozen: Any, outputs: Outputs
) -> tuple[TrainState, bool]:
  """Steps until the end or a signal.

  Evaluates and saves before it takes the next step, so that the state of a
  step, its records and its checkpoint always agree. In between it never waits
  for the step that it has just begun: the next batch is on its way to the
  devices, and the figures of `config.log_every` steps are asked for once as
  many more have begun.

  Args:
    experiment: of the run.
    state: donated.
    frozen: what is not trained, on the devices.
    outputs: of the run.

  Returns:
    The last state, and whether it is that of the end.
  """
  config, program, data = experiment
  task, n_train = tasks.of(config), len(data.dataset.train.names)
  evals = evaluations(config, n_train)
  first, writer = int(state.step), outputs.writer
  rows = task.train_batches(config, program.mesh, data, first, program.steps)
  if first == 0:
    task.write_start(experiment, state, outputs.workdir)
  ahead = batches.one_behind(
    sharding.shard_batch(batch, program.mesh) for batch in rows
  )
  pending, windows = [], collections.deque()
  clock = time.monotonic()

  def log(window) -> None:
    """Waits for the figures of some steps, and writes their means."""
    nonlocal clock
    found, done = window.result()
    averages, (last, _) = check_finite(found), found[-1]
    rate = len(found) * config.batch_size / (done - clock)
    clock = done
    note = f'loss {averages["loss"]:.3f}, {rate:.1f} img/s'
    progress(last, program.steps, note)
    if writer:
      logged = averages | {'images_per_s': round(rate, 2)}
      writer.write('train', last, logged)

  with (
    ThreadPoolExecutor(1) as thread,
    stopper() as stop,
    progress_bar('steps', logged='step') as progress,
    tracer(outputs.profile, first) as trace,
  ):
    progress(first, program.steps, 'compiling the step ...')
    for step, batch in enumerate(ahead, first + 1):
      with jax.profiler.StepTraceAnnotation('train', step_num=step):
        state, figures = program.train_step(state, batch, frozen)
      trace(step, figures)
      pending.append((step, figures))
      stopping = stop(step)
      evaluating = step in evals
      saving = evaluating or stopping or step % config.save_every == 0
      if saving or step % config.log_every == 0:
        windows.append(thread.submit(_fetched, pending))
        pending = []
      # At the same steps on every process; nothing unseen is saved.
      while len(windows) > (0 if saving else 1):
        log(windows.popleft())
      selection = None
      if evaluating:
        selection = evaluate(experiment, state, evals[step], outputs)
        clock = time.monotonic()
      if saving:
        save(outputs, state, step, selection)
      if stopping and step < program.steps:
        return state, False
  return state, True


def save(
  outputs: Outputs, state: TrainState, step: int, selection: float | None
) -> None:
  """Saves the state of a step, after its records."""
  if outputs.writer:
    outputs.writer.flush()
  outputs.record.update()  # A start that is killed has taken its time.
  outputs.checkpoints.save(state, step, selection)


def evaluate(
  experiment: Experiment, state: TrainState, epoch: float, outputs: Outputs
) -> float:
  """Evaluates every held-out part; returns the figure that selects the best."""
  task, selection, step = tasks.of(experiment.config), 0.0, int(state.step)
  for part in ('test', 'val'):
    if part not in experiment.data.parts:
      continue
    figures, details = task.evaluate(
      experiment, state, part, step == experiment.program.steps
    )
    selection = figures[task.FIGURE]
    if outputs.writer:
      epochs = {'epoch': round(float(epoch), 6)}
      outputs.writer.write(part, step, epochs | figures)
      task.write_details(outputs.workdir, part, experiment.data, details)
    say(f'epoch {epoch:g}  {part}  {task.line(figures)}')
  return selection


def _fetched(pending) -> tuple[list, float]:
  """(step, figures) of some steps on the host, and when the last was done."""
  return jax.device_get(pending), time.monotonic()


def check_finite(pending) -> dict[str, float]:
  """Returns the means of the logged figures of some steps.

  Args:
    pending: (step, figures on the host) of each.

  Raises:
    UserError: if one is not finite; names the first such step and its terms.
  """
  steps, fetched = zip(*pending, strict=True)
  if bad := not_finite(steps, fetched):
    raise UserError(
      f'{bad}; training stopped, the last good checkpoint is kept. Lower '
      '--config.optim.lr, or check the images of that step.'
    )
  return means(fetched)


def not_finite(steps, figures) -> str:
  """Returns which figures of the first bad step are not finite, or ''."""
  for step, found in zip(steps, figures, strict=True):
    bad = [name for name, value in found.items() if not np.isfinite(value)]
    if bad:
      return f'At step {step} these are not finite: {", ".join(bad)}'
  return ''


def means(figures) -> dict[str, float]:
  """Returns the means of the logged figures of steps."""
  return {
    name: float(np.mean([found[name] for found in figures]))
    for name in figures[0]
  }


def start_figures(
  experiment: Experiment, state: TrainState, workdir: paths.Path
) -> dict[str, float]:
  """What the run starts from, measured once: the baselines to beat."""
  path = workdir / 'start.json'
  if path.exists():
    return json.loads(path.read_text())
  if int(state.step):
    raise UserError(
      f'{path} is missing although the run has started; restore it or choose '
      'another --workdir.'
    )
  start = tasks.of(experiment.config).start(experiment, state)
  if jax.process_index() == 0:
    writers.write_json(path, start)
  return start
