"""The frozen network that a student learns from: its weights, and whose."""

import hashlib
import json
from typing import Any

import jax
import numpy as np

from csdnet_jax import optim
from csdnet_jax.models.weights import pretrained
from csdnet_jax.runtime import paths, processes, writers
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import say
from csdnet_jax.state import averaged
from csdnet_jax.tasks.base import Program
from csdnet_jax.training.restore import read_run, restore_run


def load(
  config,
  program: Program,
  class_names,
  workdir: paths.Path | None,
  *,
  writes: bool = True,
) -> Any:
  """Returns what the train step is given as frozen.

  Writes `teacher.json`, `source`, `path` and `sha256`, to the workdir; a run
  that continues is held to it.

  Args:
    config: of the run; its `teacher` says whose weights.
    program: built from it.
    class_names: of the data set.
    workdir: of the run; None if it has none.
    writes: whether `teacher.json` is written; a dry run only reads it.

  Returns:
    (params, model_state) of the method's teacher, or () where there is none.

  Raises:
    UserError: the teacher is absent, of other classes or of another stride
      than the student, not all of its weights load, or they have changed.
  """
  if program.method.teacher is None:
    return ()
  c = config.teacher
  # What may be absent comes first: restoring a run waits for all processes.
  with processes.collective():
    _check(config, program)
    if c.run:
      _require_folder(config)
      _same_classes(c.run, class_names)
      found = None
    elif c.weights:
      found = _of_file(config, program)
    else:
      raise UserError(f'{_absent(config)}; train one first.')
  frozen, origin = found or _of_run(config, program)
  if workdir is not None:
    _hold_to(workdir / 'teacher.json', origin, writes)
  say(f'Teacher: {c.model} from {origin["path"]}.')
  return frozen


def _hold_to(path: paths.Path, origin: dict, writes: bool) -> None:
  """Writes whose weights these are, or checks that they are still the same."""
  first = processes.of_first(bytes.fromhex(origin['sha256'])).hex()
  with processes.collective():
    if path.exists():
      known = json.loads(path.read_text())['sha256']
      if known != origin['sha256']:
        raise UserError(
          f'The teacher {origin["path"]} is not the one that {path.parent} '
          f'began with (sha256 {origin["sha256"][:12]}, then {known[:12]}); '
          'restore it, or choose another --workdir.'
        )
    if first != origin['sha256']:
      raise UserError(
        f'The teacher {origin["path"]} is not that of process 0; give all the '
        'processes the same.'
      )
  if writes and jax.process_index() == 0 and not path.exists():
    writers.write_json(path, origin)


def _check(config, program: Program) -> None:
  """Refuses two teachers, and one whose maps are of another size."""
  if config.teacher.run and config.teacher.weights:
    raise UserError(
      'config.teacher.run and config.teacher.weights are both set; the teacher '
      'is either a run or a file.'
    )
  size = config.model.size
  shapes = [
    jax.eval_shape(
      lambda model=model: (
        model.apply(
          *model.init(jax.random.key(0), size),
          np.zeros((1, size, size, 3), np.float32),
          train=False,
        )[0].logits
      )
    ).shape
    for model in (program.model, program.method.teacher)
  ]
  if any(len(shape) < 4 for shape in shapes):
    return  # Not of maps.
  maps = [shape[1:3] for shape in shapes]
  if maps[0] != maps[1]:
    strides = [round((size - 1) / max(side - 1, 1)) for side, _ in maps]
    raise UserError(
      f'The teacher {config.teacher.model} gives maps at stride {strides[1]} '
      f'and the student {config.model.name} at stride {strides[0]}; choose '
      'networks of one stride.'
    )


def _absent(config) -> str:
  c = config.teacher
  if c.run or c.weights:
    return f'The teacher {c.run or c.weights} is absent'
  return (
    f'The method {config.method.name!r} needs a teacher, and neither '
    '--config.teacher.run=DIR nor --config.teacher.weights=FILE names one'
  )


def _shapes(config, program):
  size = config.model.size
  return jax.eval_shape(
    lambda: program.method.teacher.init(jax.random.key(0), size)
  )


def _same_classes(source, class_names) -> None:
  _, split = read_run(paths.of(source))
  theirs = split['class_names']
  if list(class_names) != theirs:
    both = zip(theirs, class_names, strict=False)
    first = next((f'{a!r}, not {b!r}' for a, b in both if a != b), 'some lack')
    raise UserError(
      f'The teacher {source} was trained for {len(theirs)} classes and the '
      f'student has {len(class_names)}; they must be the same, in the same '
      f'order ({first}).'
    )


def _require_folder(config) -> None:
  if paths.of(config.teacher.run).is_dir():
    return
  if paths.of(config.teacher.run).exists():
    raise UserError(
      f'config.teacher.run={config.teacher.run} is a file, not the workdir of '
      'a run; a file of weights is --config.teacher.weights.'
    )
  raise UserError(f'{_absent(config)}; check --config.teacher.run.')


def _of_run(config, program):
  source = paths.of(config.teacher.run)
  theirs, split = read_run(source)
  trained, state = restore_run(
    source, theirs, split, devices=jax.local_devices()[:1]
  )
  frozen = averaged(jax.device_get(state), trained.method.extras)
  found = jax.tree.map(lambda x: x.shape, frozen)
  if found != jax.tree.map(lambda x: x.shape, _shapes(config, program)):
    raise UserError(
      f'The teacher {source} holds other arrays than {config.teacher.model}; '
      'it cannot be used.'
    )
  return frozen, {
    'source': 'run',
    'path': str(source),
    'step': int(state.step),
    'sha256': digest(frozen),
  }


def _of_file(config, program):
  size = config.model.size
  params, model_state = jax.jit(program.method.teacher.init, static_argnums=1)(
    jax.random.key(0), size
  )
  classes = program.model.head(params)[1].shape[0]
  *frozen, report = pretrained.load(
    config.teacher.weights, config.teacher.model, params, model_state,
    classes=classes, head=True, field='config.teacher.weights',
  )  # fmt: skip
  say(f'Weights of the teacher: {report}')
  return tuple(jax.device_get(frozen)), report.origin


def digest(tree) -> str:
  """Returns the SHA-256, as hex, of the names, shapes and bytes of arrays."""
  found = hashlib.sha256()
  for name, leaf in sorted(optim.names(tree).items()):
    array = np.ascontiguousarray(leaf)
    found.update(f'{name} {array.dtype} {array.shape} '.encode())
    found.update(array.tobytes())
  return found.hexdigest()
