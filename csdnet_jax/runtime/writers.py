"""Figures to files: JSON Lines always, TensorBoard and W&B where wanted."""

import contextlib
import csv
import importlib.util
import io
import json
import os
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import say


def write_json(path: paths.Path, value) -> None:
  """Writes JSON so that a kill leaves the old file or the new, never half."""
  write_text(path, json.dumps(value, indent=2) + '\n')


def read_json(path: paths.Path) -> Any:
  """Returns what `write_json` wrote; None if there is no file."""
  return json.loads(paths.read_bytes(path)) if path.exists() else None


def write_text(path: paths.Path, text: str) -> None:
  """Writes a UTF-8 text file atomically, on the disk when it returns."""
  write_bytes(path, text.encode('utf-8'))


def write_bytes(path: paths.Path, data: bytes) -> None:
  """Writes a file atomically, on the disk when it returns.

  Raises:
    OSError: names the file, of which nothing is left or what was there before.
  """
  if paths.is_remote(path):
    path.write_bytes(data)  # An object is there as a whole or not at all.
    return
  # Of its own: another process may be writing the same file.
  part = path.with_name(f'.{uuid.uuid4().hex}.part')
  try:
    with open(part, 'wb') as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.replace(part, path)
  except BaseException as error:
    with contextlib.suppress(OSError):
      part.unlink(missing_ok=True)
    if isinstance(error, OSError):
      # A full disk names no file, and a user knows none that ends in .part.
      error.filename = str(path)
    raise


def csv_text(rows: Iterable[Sequence]) -> str:
  """Returns rows as CSV, lines ending in a line feed.

  What holds a line feed or a carriage return is quoted, as readers expect.

  >>> csv_text([['a', 1], ['b' + chr(13), 2]])
  'a,1\\n"b\\r",2\\n'
  """
  lines = []
  for row in rows:
    line = io.StringIO(newline='')
    # The writer quotes no ends of line but its own, which are these two.
    csv.writer(line, lineterminator='\r\n').writerow(row)
    lines.append(line.getvalue().removesuffix('\r\n') + '\n')
  return ''.join(lines)


def read_records(path: paths.Path) -> list[dict]:
  """Returns the records of a JSONL file; a last line cut by a kill is left out.

  Args:
    path: it may be absent, which is an empty list.
  """
  if not path.exists():
    return []
  lines = path.read_text(encoding='utf-8').split('\n')
  return [json.loads(line) for line in lines[:-1]]


class Writer:
  """Appends records of figures, each with its step.

  `metrics.jsonl` is the ground truth from which every table is made.
  TensorBoard event files are written beside it if tensorboardX is importable,
  and W&B is used if `config.wandb.project` is set.

  An object store cannot append: there `flush` writes `metrics.jsonl` anew, and
  TensorBoard's files, of which the same holds, are left out.
  """

  def __init__(self, workdir: paths.Path, config, *, step: int):
    """Opens the files, cutting records after the restored `step` away."""
    project = config.wandb.project
    if project and importlib.util.find_spec('wandb') is None:
      raise UserError(
        f'config.wandb.project is {project!r}, but W&B is not installed; run '
        'pip install wandb, or leave the project empty.'
      )
    self._path = workdir / 'metrics.jsonl'
    kept = [r for r in read_records(self._path) if r['step'] <= step]
    text = ''.join(json.dumps(r) + '\n' for r in kept)
    write_text(self._path, text)
    self._tensorboard = self._wandb = None
    self._remote = paths.is_remote(workdir)
    if self._remote:
      self._file = io.StringIO()
      self._file.write(text)
    else:
      self._file = open(self._path, 'a', encoding='utf-8')  # noqa: SIM115
    if self._remote:
      say(
        f'Nothing can be appended in {workdir}: metrics.jsonl is written with '
        'each checkpoint, and TensorBoard files are not.'
      )
    elif importlib.util.find_spec('tensorboardX'):
      import tensorboardX

      self._tensorboard = tensorboardX.SummaryWriter(
        str(workdir / 'tensorboard'), purge_step=step + 1
      )
    if project:
      import wandb

      self._wandb = wandb.init(
        project=project,
        name=config.name,
        dir=None if self._remote else str(workdir),
        config=config.to_dict(),
      )

  def write(self, kind: str, step: int, figures: dict[str, float]) -> None:
    """Appends one record; `kind` is 'train', 'test' or 'val'."""
    record = {'step': step, 'kind': kind} | figures
    self._file.write(json.dumps(record) + '\n')
    self._file.flush()
    if self._tensorboard:
      for name, value in figures.items():
        self._tensorboard.add_scalar(f'{kind}/{name}', value, step)
    if self._wandb:
      named = {f'{kind}/{name}': value for name, value in figures.items()}
      self._wandb.log(named, step=step)

  def flush(self) -> None:
    """Makes the records last; called before each checkpoint."""
    if self._remote:
      write_text(self._path, self._file.getvalue())
    else:
      os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes every file."""
    self.flush()
    self._file.close()
    if self._tensorboard:
      self._tensorboard.close()
    if self._wandb:
      self._wandb.finish()
