"""What a network is compiled for, by which its kernels are chosen.

cuDNN's attention exists on a GPU alone, and a CPU wants its convolutions
written as sums. Tracing does not know where its program will run, so who
compiles says it around the trace.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax

# The first compute capability that cuDNN's attention takes: Ampere's.
_ATTENTION = 8.0

_platform = contextvars.ContextVar('platform', default='')


def of(device: jax.Device) -> str:
  """Returns 'cpu', 'tpu', 'cuda' or 'gpu'.

  'cuda' is a GPU whose cuDNN has attention, 'gpu' any other: an older one, or
  one of another maker.
  """
  if device.platform != 'gpu':
    return device.platform
  if 'rocm' in device.client.platform_version.lower():
    return 'gpu'
  return 'cuda' if float(device.compute_capability) >= _ATTENTION else 'gpu'


@contextlib.contextmanager
def compiled_for(platform: str) -> Iterator[None]:
  """What is traced within is compiled for a platform that `of` may return.

  The outermost counts: an export says so around functions that were made for
  the devices of this process.
  """
  if _platform.get():
    yield
    return
  token = _platform.set(platform)
  try:
    yield
  finally:
    _platform.reset(token)


def traced_for(platform: str, function: Callable) -> Callable:
  """Returns `function`, all of which is within `compiled_for`."""

  def within(*args, **kwargs):
    with compiled_for(platform):
      return function(*args, **kwargs)

  return within


def platform() -> str:
  """Returns that of `compiled_for`; outside, that of JAX's first device.

  The latter is for who jits a model by hand, which JAX compiles for it.
  """
  return _platform.get() or of(jax.devices()[0])
