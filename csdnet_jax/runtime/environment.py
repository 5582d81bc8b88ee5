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


def device() -> str:
  """Returns the line that names what JAX runs on."""
  first = jax.devices()[0]
  return (
    f'Running on {jax.device_count()} x {first.device_kind} '
    f'({first.platform}), JAX {jax.__version__}.'
  )


def idle_accelerator() -> str:
  """Returns the sentence for an accelerator that JAX does not see, or ''."""
  # Who has asked for the CPU needs no advice.
  if jax.devices()[0].platform == 'cpu' and not jax.config.jax_platforms:
    for path, kind, extra in (
      ('/dev/nvidia0', 'An NVIDIA GPU', 'cuda12'),
      ('/dev/accel0', 'A TPU', 'tpu'),
    ):
      if pathlib.Path(path).exists():
        return (
          f'{kind} is present but JAX runs on the CPU only; install it with '
          f'pip install "csdnet_jax[{extra}]".'
        )
  return ''
