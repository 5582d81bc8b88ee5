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

from csdnet_jax import checkpoint, config as config_lib, optim, sharding, tasks
from csdnet_jax.runtime import environment, paths, processes, writers
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.profile import tracer
from csdnet_jax.runtime.terminal import (
  progress_bar,
  say,
  show_summary,
  show_table,
  stopper,
)
from csdnet_jax.training import (
  build as build_lib,
  digests,
  teacher,
  workdir as workdir_lib,
)


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
  config_lib.validate(config)
  if profile and paths.is_remote(workdir):
    raise UserError('--profile needs a --workdir on a disk.')
  with workdir_lib.hold(config, workdir):
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
  for note in build_lib.fit(config, n_train):
    say(note)
  run = build_lib.build(
    config, classes=classes, n_train=n_train, devices=devices
  )
  frozen = sharding.replicate(
    teacher.load(config, run, dataset.class_names, workdir), run.mesh
  )
  with processes.together():
    data, figures = task.prepare(config, dataset)
  workdir_lib.write_inputs(config, dataset, workdir)
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
      params, model_state, loaded = build_lib.initial_weights(
        config, run, classes
      )
      record.update(weights=loaded['origin'])
      if jax.process_index() == 0:
        writers.write_json(workdir / 'weights.json', loaded)
      state = sharding.replicate(run.init(params, model_state), run.mesh)
    else:
      say(f'Continuing from step {int(state.step)}.')
    build_lib.describe_run(config, run, state.params, n_train)
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
    build_lib.step_of(config, epoch, n_train): epoch
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


# -------------------------------------------------------- dry run, evaluation


def dry_run(config, *, devices=None) -> None:
  """Prints the config, the data, the model and one batch, then returns."""
  config_lib.validate(config)
  task = tasks.of(config)
  dataset = task.load(config)
  for note in build_lib.fit(config, len(dataset.train.names)):
    say(note)
  say(config_lib.to_json(config))
  data, _ = task.prepare(config, dataset)
  n_train = len(dataset.train.names)
  run = build_lib.build(
    config, classes=len(dataset.class_names), n_train=n_train, devices=devices
  )
  state = sharding.abstract(jax.eval_shape(run.init), run.mesh)
  for name, leaf in optim.names(state.params).items():
    say(f'{name:60} {leaf.shape!s:22} {leaf.size:>12,}')
  build_lib.describe_run(config, run, state.params, n_train)
  frozen = teacher.describe(config, run, dataset.class_names)
  batch = next(task.train_batches(config, run.mesh, data, 0, 1))
  for name, value in batch.items():
    say(f'batch {name}: {value.dtype} {value.shape}')
  memory = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.memory))
  if memory:
    say(f'Memory queue: {memory / 2**20:.2f} MiB on each device.')
  say('Compiling the step to estimate its memory ...')
  whole = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      (jax.process_count() * x.shape[0], *x.shape[1:]), x.dtype
    ),
    batch,
  )
  shapes = sharding.abstract_rows(whole, run.mesh)
  compiled = run.train_step.lower(state, shapes, frozen).compile()
  used = compiled.memory_analysis()
  total = used.argument_size_in_bytes + used.temp_size_in_bytes
  say(
    f'One step needs about {total / 2**30:.2f} GiB on each device: '
    f'{used.argument_size_in_bytes / 2**30:.2f} for the state and the batch, '
    f'{used.temp_size_in_bytes / 2**30:.2f} for activations.'
  )


def evaluate_run(
  config, workdir: paths.Path, *, devices=None
) -> dict[str, float]:
  """Evaluates the newest state of a workdir on the test part of `config.data`.

  Args:
    config: the run's own, possibly with other `data` and `evaluation`.
    workdir: of a run.
    devices: to run on; all of them where None.

  Returns:
    The figures of `evaluate` of the task, percentages and 'n' images.

  Raises:
    UserError: if there is no checkpoint, the config differs in more, the
      classes are not the run's, or the test part holds images that it was
      trained on.
  """
  config_lib.validate(config)
  trained, split = build_lib.read_run(workdir)
  build_lib.fit(config, len(split['train']))
  changed = config_lib.differences(trained, config)
  other = [k for k in changed if not k.startswith(('data.', 'evaluation.'))]
  if other:
    raise UserError(
      'A run is evaluated as it was trained, only config.data and '
      f'config.evaluation may differ: {"; ".join(other)}.'
    )
  task = tasks.of(config)
  same_data = not any(key.startswith('data.') for key in changed)
  dataset = task.load(config, split if same_data else None)
  if list(dataset.class_names) != split['class_names']:
    raise UserError(
      f'The classes of {dataset.name} are not those that {workdir} was '
      f'trained on ({len(dataset.class_names)} and '
      f'{len(split["class_names"])} of them); evaluate on a set with the same '
      'class names.'
    )
  if _where(config) == _where(trained):
    seen = set(dataset.test.names) & set(split['train'])
    if seen:
      raise UserError(
        f'{len(seen)} images of the new test part were trained on, such as '
        f'{min(seen)}; evaluate on other images.'
      )
  data, _ = task.prepare(config, dataset)
  run, state = build_lib.restore_run(workdir, config, devices=devices)
  figures, _ = task.evaluate(config, run, state, data, 'test', last=True)
  show_table(f'Step {int(state.step)} of {workdir}, test part', figures)
  return figures


def _where(config) -> paths.Path:
  """The folder of the images, however it is written."""
  return paths.resolve(paths.of(config.data.root))
