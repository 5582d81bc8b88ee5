"""Fetches published weights from the Hugging Face hub, once, and pins them.

The hub's own client does the fetching: its cache, proxies and tokens, and the
variables HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are as everywhere.
"""

import errno
import importlib.util
import io
import json
import pathlib
import re
from typing import NamedTuple

from csdnet_jax.data import cache
from csdnet_jax.models.weights.published import Weights
from csdnet_jax.runtime import writers
from csdnet_jax.runtime.errors import UserError, first_line
from csdnet_jax.runtime.terminal import progress_bar, say

_MAIN = 'main'
_OTHERWISE = "set config.init_from to a file of weights, or to '' for none"


class Pin(NamedTuple):
  """Which file is meant: as published, or as first fetched; '' is not known.

  Attributes:
    revision: the commit, 40 hexadecimal digits.
    sha256: of the file, 64 of them.
  """

  revision: str = ''
  sha256: str = ''


class Fetched(NamedTuple):
  """A file in the hub's cache.

  Attributes:
    path: of the file.
    revision: the commit that it is of.
    sha256: that it must have: as published, as at the first fetch or as the
      server says; '' if nothing says.
  """

  path: pathlib.Path
  revision: str
  sha256: str


def pins_path() -> pathlib.Path:
  """Returns the file of the user's cache where first fetches are pinned."""
  return cache.cache_dir('') / 'weights.json'


def fetch(weights: Weights, model_name: str) -> Fetched:
  """Returns a file of published weights, fetched if it is not in the cache.

  What was fetched once is never asked for again: the pinned revision is read
  from the cache, without the network.

  Args:
    weights: of the hub.
    model_name: whose they are, for the sentences.

  Raises:
    UserError: the client is not installed, the server is not reached, refuses
      or has no such file, or the disk is full.
  """
  if not _has_client():
    raise UserError(
      f'The weights of {model_name} are fetched from {weights.page} by '
      'huggingface_hub, which is not installed: run pip install '
      f'"csdnet_jax[hub]", or {_OTHERWISE}.'
    )
  import huggingface_hub
  from huggingface_hub import errors

  pin = pinned(weights)
  revision = pin.revision or _MAIN
  cached = _cached(weights)
  if cached and pin.revision:
    # The client itself may ask a server for more than the file.
    return _located(cached, weights, pin)
  say(
    f'Fetching the weights of {model_name}: {weights.repository}, trained on '
    f'{weights.data}, licence {weights.licence or "not said"}.'
  )
  if weights.terms:
    say(
      f'They are not under one of the usual open licences: by using them you '
      f'accept {weights.terms}.',
      style='bold yellow',
    )
  elif not weights.licence:
    say(
      f'Which licence they are under we do not know: see {weights.page}.',
      style='bold yellow',
    )
  try:
    with progress_bar('MB', logged='MB fetched') as progress:
      path = huggingface_hub.hf_hub_download(
        weights.repository, weights.file, revision=revision,
        tqdm_class=_bar(progress),
      )  # fmt: skip
  # The last is what its storage of large files raises.
  except (OSError, ValueError, errors.HTTPError, RuntimeError) as error:
    sentence = _explained(error, weights, model_name, revision)
    raise UserError(sentence) from error
  return _located(path, weights, pin)


def _located(path: str, weights: Weights, pin: Pin) -> Fetched:
  """A file in the hub's cache, by its place there."""
  path = pathlib.Path(path)
  # .../snapshots/COMMIT/FILE, a link to .../blobs/ETAG, where the ETag of a
  # large file is its SHA-256.
  commit = path.parents[weights.file.count('/')].name
  etag = path.resolve().name
  told = etag if re.fullmatch('[0-9a-f]{64}', etag) else ''
  return Fetched(path, commit, pin.sha256 or told)


def settle(fetched: Fetched, weights: Weights, sha256: str) -> None:
  """Checks what was fetched by its digest; the first time it is pinned, aloud.

  Args:
    fetched: of `fetch`.
    weights: that they are.
    sha256: of what the file holds.

  Raises:
    UserError: it is another file, and what to do.
  """
  if fetched.sha256 and sha256 != fetched.sha256:
    raise UserError(
      f'{fetched.path} is not what {weights.repository} published: its '
      f'SHA-256 is {sha256}, not {fetched.sha256}, so that it is damaged, cut '
      f'short or another file; remove {fetched.path.resolve()} and run the '
      f'same command again, {_unpin(weights, "sha256")}or {_OTHERWISE}.'
    )
  if all(pinned(weights)):
    return
  path = pins_path()
  pins = _pins() | {
    _key(weights): {'revision': fetched.revision, 'sha256': sha256}
  }
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    writers.write_json(path, dict(sorted(pins.items())))
  except OSError as error:
    raise cache.cache_error(path.parent, error) from error
  say(
    f'Pinned in {path}: {_key(weights)} of revision {fetched.revision}, '
    f'SHA-256 {sha256}.'
  )


def is_fetched(weights: Weights) -> bool:
  """Returns whether weights of the hub are in its cache, as pinned."""
  return _has_client() and _cached(weights) is not None


def _cached(weights) -> str | None:
  """The path of weights in the hub's cache, as pinned, or None."""
  from huggingface_hub import try_to_load_from_cache

  found = try_to_load_from_cache(
    weights.repository, weights.file,
    revision=pinned(weights).revision or _MAIN,
  )  # fmt: skip
  return found if isinstance(found, str) else None


def pinned(weights: Weights) -> Pin:
  """Returns which revision and file of published weights are meant.

  Raises:
    UserError: the file of the pins is damaged.
  """
  first = Pin(**_pins().get(_key(weights), {}))
  return Pin(weights.revision or first.revision, weights.sha256 or first.sha256)


def _unpin(weights, field) -> str:
  """What else helps if a field is not as published but as first fetched."""
  if getattr(weights, field) or _key(weights) not in _pins():
    return ''
  return (
    f"or remove the file's entry in {pins_path()} to pin what is published "
    'today, '
  )


def _has_client() -> bool:
  return importlib.util.find_spec('huggingface_hub') is not None


def _key(weights):
  return f'{weights.repository}/{weights.file}'


def _pins() -> dict[str, dict[str, str]]:
  path = pins_path()
  try:
    pins = json.loads(path.read_text(encoding='utf-8'))
    if not all(all(Pin(**pin)) for pin in pins.values()):
      raise ValueError('a pin is empty')
    return pins
  except FileNotFoundError:
    return {}
  except (OSError, ValueError, TypeError, AttributeError) as error:
    raise UserError(
      f'{path} cannot be read ({first_line(error)}): it says which weights '
      'were fetched first; mend it, or remove it to pin those of today.'
    ) from error


def _bar(progress):
  """Our bar, where the client asks for a class of tqdm's."""
  import tqdm

  most = whole = 0

  class Bar(tqdm.tqdm):
    monitor_interval = 0  # No thread.

    def __init__(self, *args, **kwargs):
      super().__init__(*args, **kwargs | {'file': io.StringIO()})

    def display(self, *_, **__):
      # There may be two: of what arrives, and of what is written.
      nonlocal most, whole
      most, whole = max(most, self.n), max(whole, self.total or 0, self.n, 1)
      progress(most // 10**6, -(-whole // 10**6))

  return Bar


def _public(text: str) -> str:
  """A text whose URLs have no user, password or signed query."""
  return re.sub(r'(?<=://)[^/\s]*@|\?[^\s\'"]+', '', text)


def _explained(error, weights, model_name, revision) -> str:
  """The sentence for what the client raised."""
  from huggingface_hub import constants, errors

  # It says no more than that nothing is in the cache either.
  hidden = isinstance(error, errors.LocalEntryNotFoundError)
  cause = error.__cause__ if hidden and error.__cause__ else error
  status = getattr(getattr(cause, 'response', None), 'status_code', None)
  server = _public(constants.ENDPOINT)
  page = f'{server}/{weights.repository}'
  what = f'The weights of {model_name} ({_key(weights)})'
  if isinstance(cause, errors.OfflineModeIsEnabled):
    return (
      f'{what} were not fetched yet, and HF_HUB_OFFLINE forbids the network: '
      f'fetch them once without it, or {_OTHERWISE}.'
    )
  if isinstance(cause, errors.GatedRepoError) or status in (401, 403):
    return (
      f'{server} refuses {what[0].lower()}{what[1:]}, licence '
      f'{weights.licence or "not said"} (status {status}): accept what {page} '
      'asks for, log in by `hf auth login` or HF_TOKEN, and run the same '
      f'command again; or {_OTHERWISE}.'
    )
  if status == 404 or isinstance(cause, errors.EntryNotFoundError):
    return (
      f'{what} of revision {revision} are not at {page} (any more): see there '
      f'what became of them, {_unpin(weights, "revision")}or {_OTHERWISE}.'
    )
  if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
    return (
      f'{what} do not fit on the disk of {constants.HF_HUB_CACHE}: free some '
      'space, or set HF_HOME to a folder that has more, and run the same '
      'command again.'
    )
  if isinstance(cause, OSError) and cause.errno:
    return (
      f'{what} cannot be kept in {constants.HF_HUB_CACHE} ({cause.strerror}); '
      'set HF_HOME to a folder that can be written.'
    )
  why = f'status {status}' if status else _public(first_line(cause))
  return (
    f'{what} cannot be fetched from {server} ({why}): check the network, or a '
    f'proxy by HTTPS_PROXY, and run the same command again; or {_OTHERWISE}.'
  )
