"""What a run ran on: versions, device, times and command."""

import datetime
import importlib.metadata
import json
import pathlib
import platform
import shlex
import sys
import time

import jax

from csdnet_jax.runtime import paths, writers

_PACKAGES = (
  'csdnet_jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain',
  'tensorflow-datasets', 'numpy', 'pillow', 'scikit-learn',
)  # fmt: skip


class Record:
  """`environment.json` of a workdir: one entry for each start of the run."""

  def __init__(self, workdir: paths.Path):
    """Reads the entries of earlier starts and adds this one."""
    self._path = workdir / 'environment.json'
    self._starts = []
    if self._path.exists():
      self._starts = json.loads(self._path.read_text())['starts']
    self._clock = time.monotonic()
    device = jax.devices()[0]
    self._starts.append(
      {
        'command': shlex.join(sys.orig_argv),
        'started': _now(),
        'python': platform.python_version(),
        'platform': platform.platform(),
        'packages': {name: _version(name) for name in _PACKAGES},
        'devices': f'{jax.device_count()} x {device.device_kind}',
        'backend': device.platform,
        'processes': jax.process_count(),
      }
    )
    self.update()

  def update(self, **fields) -> None:
    """Adds fields and the time so far to this start's entry, and writes it."""
    seconds = round(time.monotonic() - self._clock, 1)
    self._starts[-1] |= fields | {'seconds': seconds}
    if jax.process_index() == 0:
      writers.write_json(self._path, {'starts': self._starts})

  def finish(self, **fields) -> None:
    """Adds the end and the duration."""
    self.update(finished=_now(), **fields)


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')


def _version(name: str) -> str:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return 'not installed'


def device_notes() -> list[str]:
  """Returns the line that names the device, and a warning where one is due."""
  device = jax.devices()[0]
  notes = [
    f'Running on {jax.device_count()} x {device.device_kind} '
    f'({device.platform}), JAX {jax.__version__}.'
  ]
  # Who has asked for the CPU needs no advice.
  if device.platform == 'cpu' and not jax.config.jax_platforms:
    for path, kind, extra in (
      ('/dev/nvidia0', 'An NVIDIA GPU', 'cuda12'),
      ('/dev/accel0', 'A TPU', 'tpu'),
    ):
      if pathlib.Path(path).exists():
        notes.append(
          f'{kind} is present but JAX runs on the CPU only; install it with '
          f'pip install -e ".[{extra}]".'
        )
  return notes
