"""Shared fixtures: eight fake devices and a compile cache, set before JAX."""

import os
import pathlib
import shutil
import signal
import sys
import threading

_CACHE = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
os.environ.setdefault('JAX_NUM_CPU_DEVICES', '8')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Tiny programs: compiling them well costs more than running them badly.
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true',
)
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR',
  # Not in a folder where others could leave programs.
  str(pathlib.Path(_CACHE).expanduser() / 'csdnet_jax' / 'xla_tests'),
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')

import pytest  # noqa: E402
from absl import flags  # noqa: E402

# A shell starts what it puts into the background with interrupts ignored, and
# the programs that the tests start would inherit that.
if threading.current_thread() is threading.main_thread():
  signal.signal(signal.SIGINT, signal.default_int_handler)

# Grain reads absl flags, which pytest never parses.
if not flags.FLAGS.is_parsed():
  flags.FLAGS.mark_as_parsed()

# Reasons for which a test of the slow tier may be skipped in CI.
ALLOWED_SKIPS = (
  'no browser is installed',
  'no file system can be mounted',
)


@pytest.fixture(scope='module', autouse=True)
def _memory():
  """Lets go of a file's programs: those of all files fill gigabytes."""
  yield
  if jax := sys.modules.get('jax'):
    jax.clear_caches()


@pytest.fixture
def browser():
  """A browser without a window, where one is installed."""
  chromium = shutil.which('chromium') or shutil.which('google-chrome')
  try:
    from playwright import sync_api
  except ImportError:
    chromium = None
  if chromium is None:
    pytest.skip('no browser is installed')
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(
      executable_path=chromium,
      args=['--no-sandbox', '--disable-gpu', '--disable-background-networking'],
    )
    yield browser
    browser.close()


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
  """The workdir of a tiny finished run with a validation part; left as is."""
  import jax

  from csdnet_jax.training import train

  import runs

  config = runs.config(
    tmp_path_factory.mktemp('cache'),
    **{'data.val_fraction': 0.34, 'epochs': 2.0},
  )
  workdir = tmp_path_factory.mktemp('trained')
  train.train(config, workdir, devices=jax.devices()[:1])
  return workdir


@pytest.fixture(scope='session')
def folder_run(tmp_path_factory):
  """(workdir, root) of a tiny finished run on a folder of pictures."""
  import jax

  from csdnet_jax.training import train

  import images
  import runs

  folder = tmp_path_factory.mktemp('folder_run')
  counts = {'ash': 8, 'oak': 8, 'yew': 8}
  root = images.class_folders(folder / 'pictures', counts)
  fields = {
    'data.source': 'folder', 'data.val_fraction': 0.34, 'epochs': 2.0,
    # As it is written where it is called.
    'data.root': os.path.relpath(root) + '/',
  }  # fmt: skip
  config = runs.config(folder / 'cache', **fields)
  train.train(config, folder / 'run', devices=jax.devices()[:1])
  return folder / 'run', root


def pytest_addoption(parser):
  parser.addoption(
    '--fail-on-skip',
    action='store_true',
    help='fail if a test is skipped for a reason that is not allowed',
  )


def pytest_terminal_summary(terminalreporter, config):
  if not config.getoption('--fail-on-skip'):
    return
  for report in terminalreporter.stats.get('skipped', []):
    reason = report.longrepr[2] if report.longrepr else ''
    if not any(allowed in reason for allowed in ALLOWED_SKIPS):
      terminalreporter.write_line(f'not allowed: {report.nodeid}: {reason}')
      terminalreporter._session.exitstatus = 1


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
  """The example of a whole training goes to the slow tier."""
  for item in items:
    if item.name == 'csdnet_jax.inference.api.train':
      item.add_marker(pytest.mark.slow)
