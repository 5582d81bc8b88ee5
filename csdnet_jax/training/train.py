"""Training, from a config to a workdir; reads from top to bottom.

What the data are and what is measured on them is the task's (`tasks`), what is
trained the method's. The order in which a run finds its state: its own workdir,
then `config.init_from` (a run, a file, or ImageNet's weights), then random
values.
"""

import contextlib
import json
import time

import jax
import numpy as np

from csdnet_jax import checkpoint, sharding, tasks
from csdnet_jax.config import validate
from csdnet_jax.runtime import environment, paths, processes, writers
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.profile import tracer
from csdnet_jax.runtime.terminal import progress_bar, say, show_summary, stopper
from csdnet_jax.training import digests, teacher
from csdnet_jax.training.build import build
from csdnet_jax.training.describe import describe
from csdnet_jax.training.fit import fit, step_of
from csdnet_jax.training.initial import initial_weights
from csdnet_jax.training.workdir import hold, write_inputs


def train(
  config, workdir: paths.Path, *, devices=None, profile: bool = False
) -> dict | None:
  """Trains as the config says, or continues where the workdir stands.

  Args:
    config: of the run.
    workdir: where everything of the run is kept.
    devices: to run on; all of them where None.
    profile: whether to leave a trace of a few steps in `profile/`.

  Returns:
    What `summary.json` holds, or None if the run was told to stop (SIGTERM or
    Ctrl-C) before its end; the same command continues it.

  Raises:
    UserError: for a user's mistake.
  """
  validate(config)
  if profile and paths.is_remote(workdir):
    raise UserError('--profile needs a --workdir on a disk.')
  with hold(config, workdir):
    if (workdir / 'summary.json').exists():
      say(f'{workdir} is finished; nothing to do.')
      summary = json.loads((workdir / 'summary.json').read_text())
      show_summary(tasks.of(config), summary, workdir)
      return summary
    if config.notice:
      say(config.notice)
    record = environment.Record(workdir)
    record.update(code=digests.of_code(config))
    return _train(config, workdir, record, devices, profile)


def _train(config, workdir, record, devices, profile) -> dict | None:
  task = tasks.of(config)
  path = workdir / 'split.json'
  split = json.loads(path.read_text()) if path.exists() else None
  with processes.together():
    dataset = task.load(config, split)
  n_train, classes = len(dataset.train.names), len(dataset.class_names)
  for note in fit(config, n_train):
    say(note)
  run = build(config, classes=classes, n_train=n_train, devices=devices)
  frozen = sharding.replicate(
    teacher.load(config, run, dataset.class_names, workdir), run.mesh
  )
  with processes.together():
    data, figures = task.prepare(config, dataset)
  write_inputs(config, dataset, workdir)
  if jax.process_index() == 0:
    writers.write_json(workdir / 'data_report.json', figures)
  with contextlib.ExitStack() as stack:
    checkpoints = checkpoint.Checkpoints(
      workdir / 'checkpoints', keep=config.keep
    )
    stack.callback(checkpoints.close)
    abstract = sharding.abstract(jax.eval_shape(run.init), run.mesh)
    state = checkpoints.restore(abstract, warn=say)
    if state is None:
      params, model_state, loaded = initial_weights(config, run, classes)
      record.update(weights=loaded['origin'])
      if jax.process_index() == 0:
        writers.write_json(workdir / 'weights.json', loaded)
      state = sharding.replicate(run.init(params, model_state), run.mesh)
    else:
      say(f'Continuing from step {int(state.step)}.')
    describe(config, run, state.params, n_train)
    start = start_figures(config, run, state, data, workdir)
    writer = None
    if jax.process_index() == 0:
      writer = writers.Writer(workdir, config, step=int(state.step))
      stack.callback(writer.close)
    state, finished = loop(
      config, run, state, frozen, data, checkpoints, writer, record, workdir,
      profile,
    )  # fmt: skip
    checkpoints.close()
  record.finish(steps=int(state.step))
  if not finished:
    # On every process: each host's log tells why it ended.
    say(
      f'Stopped and saved at step {int(state.step)} of {run.steps}; the same '
      'command continues.',
      everywhere=True,
    )
    return None
  summary = None
  if jax.process_index() == 0:
    records = writers.read_records(workdir / 'metrics.jsonl')
    summary = task.summarise(records, run.steps, data.views, start)
    writers.write_json(workdir / 'summary.json', summary)
    show_summary(task, summary, workdir)
  sharding.barrier('finished')
  return summary


def loop(
  config, run, state, frozen, data, checkpoints, writer, record, workdir,
  profile,
):  # fmt: skip
  """Steps until the end or a signal; returns (state, whether it is the end).

  Evaluates and saves before it takes the next batch, so that the state of a
  step, its records and its checkpoint always agree.
  """
  task, n_train = tasks.of(config), len(data.dataset.train.names)
  evals = {
    step_of(config, epoch, n_train): epoch
    for epoch in np.arange(config.eval_every, config.epochs, config.eval_every)
  } | {run.steps: config.epochs}
  first = int(state.step)
  batches = task.train_batches(config, run.mesh, data, first, run.steps)
  if first == 0:
    task.write_start(config, run, state, data, workdir)
  pending, clock = [], time.monotonic()
  with (
    stopper() as stop,
    progress_bar('steps') as progress,
    tracer(workdir / 'profile' if profile else None, first) as trace,
  ):
    progress(first, run.steps)
    for step, batch in enumerate(batches, first + 1):
      batch = sharding.shard_batch(batch, run.mesh)
      with jax.profiler.StepTraceAnnotation('train', step_num=step):
        state, figures = run.train_step(state, batch, frozen)
      trace(step, figures)
      pending.append((step, figures))
      stopping = stop(step)
      evaluating = step in evals
      saving = evaluating or stopping or step % config.save_every == 0
      if saving or step % config.log_every == 0:
        means = check_finite(pending)
        seconds, clock = time.monotonic() - clock, time.monotonic()
        rate = len(pending) * config.batch_size / seconds
        pending = []
        progress(step, run.steps, f'loss {means["loss"]:.3f}  {rate:.1f} img/s')
        if writer:
          writer.write('train', step, means | {'images_per_s': round(rate, 2)})
      selection = None
      if evaluating:
        selection = evaluate(
          config, run, state, data, step, evals[step], writer, workdir
        )
        clock = time.monotonic()
      if saving:
        if writer:
          writer.flush()
        record.update()  # A start that is killed has taken its time, too.
        checkpoints.save(state, step, selection)
      if stopping and step < run.steps:
        return state, False
  task.write_end(config, run, state, data, workdir)
  return state, True


def evaluate(config, run, state, data, step, epoch, writer, workdir) -> float:
  """Evaluates every held-out part; returns the figure that selects the best."""
  task, selection = tasks.of(config), 0.0
  for part in ('test', 'val'):
    if part not in data.views:
      continue
    figures, details = task.evaluate(
      config, run, state, data, part, step == run.steps
    )
    selection = figures[task.FIGURE]
    if writer:
      writer.write(part, step, {'epoch': round(float(epoch), 6)} | figures)
      task.write_details(workdir, part, data, details)
    say(f'epoch {epoch:g}  {part}  {task.line(figures)}')
  return selection


def check_finite(pending) -> dict[str, float]:
  """Returns the means of the logged figures of the last steps.

  Raises:
    UserError: if one is not finite; names the first such step and its terms.
  """
  fetched = jax.device_get([figures for _, figures in pending])
  for (step, _), figures in zip(pending, fetched, strict=True):
    bad = [name for name, value in figures.items() if not np.isfinite(value)]
    if bad:
      raise UserError(
        f'At step {step} these are not finite: {", ".join(bad)}; training '
        'stopped, the last good checkpoint is kept. Lower config.optim.lr, or '
        'check the images of that step.'
      )
  return {
    name: float(np.mean([figures[name] for figures in fetched]))
    for name in fetched[0]
  }


def start_figures(config, run, state, data, workdir) -> dict[str, float]:
  """What the run starts from, measured once: the baselines to beat."""
  path = workdir / 'start.json'
  if path.exists():
    return json.loads(path.read_text())
  if int(state.step):
    raise UserError(
      f'{path} is missing although the run has started; restore it or choose '
      'another --workdir.'
    )
  start = tasks.of(config).start(config, run, state, data)
  if jax.process_index() == 0:
    writers.write_json(path, start)
  return start
