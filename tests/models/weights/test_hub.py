"""Weights by name: the hub's own client against a server on the loopback."""

import hashlib
import json
import pathlib
import pickle
import types

import huggingface_hub
import jax
import numpy as np
import pytest
import safetensors.numpy
from huggingface_hub import constants, file_download

from csdnet_jax import models
from csdnet_jax.models.weights import hub, pretrained, published
from csdnet_jax.runtime.errors import UserError

import command
import hub_server
import torch_pickles

KEY = 'owner/small/model.safetensors'
NAME = 'vit_tiny'
CLASSES = 3


@pytest.fixture(scope='module')
def made():
  """The tiny ViT's parameters, and the same as a file under our names."""
  model = models.build(NAME, classes=CLASSES, drop_rate=0.0, drop_path=0.0)
  params, state = jax.jit(model.init, static_argnums=1)(jax.random.key(0), 16)
  arrays = {
    '/'.join(k.key for k in path): np.asarray(leaf) + 1
    for path, leaf in jax.tree.leaves_with_path(params)
  }
  return types.SimpleNamespace(
    params=params, state=state, arrays=arrays,
    data=safetensors.numpy.save(arrays),
  )  # fmt: skip


@pytest.fixture
def server(made, tmp_path, monkeypatch):
  """A hub with one file, which is what is published for the tiny ViT."""
  with hub_server.serving() as served:
    served.files[KEY] = made.data
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(constants, 'ENDPOINT', served.url)
    monkeypatch.setattr(
      constants, 'HUGGINGFACE_CO_URL_TEMPLATE',
      served.url + '/{repo_id}/resolve/{revision}/{filename}',
    )  # fmt: skip
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True)
    monkeypatch.setattr('time.sleep', lambda _: None)
    publish(monkeypatch)
    yield served
    huggingface_hub.close_session()


def publish(monkeypatch, **fields):
  """Makes weights the published ones of the tiny ViT."""
  spec = models.find(NAME)
  weights = published.Weights(
    'owner/small', 'mit', 'leaves', 16, spec.mean, spec.std
  )._replace(**fields)
  monkeypatch.setitem(published.WEIGHTS, NAME, weights)
  return weights


def load(made):
  return pretrained.load(
    'pretrained', NAME, made.params, made.state, classes=CLASSES
  )


def refused(made):
  """The sentence that loading ends in."""
  with pytest.raises(UserError) as caught:
    load(made)
  sentence = str(caught.value)
  assert '\n' not in sentence and sentence.endswith('.')
  return sentence


def pins():
  return json.loads(hub.pins_path().read_text())


def test_weights_are_fetched_once_by_name_and_pinned_aloud(
  made, server, monkeypatch, capsys
):
  params, _, report = load(made)
  np.testing.assert_array_equal(params['cls'], made.arrays['cls'])
  digest = hashlib.sha256(made.data).hexdigest()
  assert report.origin['sha256'] == digest
  assert report.origin['repository'] == 'owner/small'
  assert report.origin['revision'] == hub_server.COMMIT
  assert report.origin['licence'] == 'mit'
  assert 'from owner/small' in str(report)
  assert pins() == {KEY: {'revision': hub_server.COMMIT, 'sha256': digest}}
  said = ' '.join(capsys.readouterr().out.split())
  assert 'trained on leaves, licence mit' in said
  assert f'revision {hub_server.COMMIT}, SHA-256 {digest}' in said
  # Again, though the branch has moved on: no request, no word. Of the client,
  # which may ask a server for more than files, only the cache is used.
  server.asked.clear()
  server.commit = 40 * 'a'
  monkeypatch.setattr(huggingface_hub, 'hf_hub_download', None)
  load(made)
  assert not server.asked and not capsys.readouterr().out


def test_offline_what_was_fetched_loads_and_the_rest_says_what_to_do(
  made, server, monkeypatch
):
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  assert 'HF_HUB_OFFLINE forbids the network' in refused(made)
  assert not server.asked
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
  load(made)
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  load(made)


def test_a_download_that_is_cut_goes_on_where_it_stopped(
  made, server, monkeypatch
):
  server.cuts = [100, 50]
  # It keeps whole pieces of an answer, else of 10 MB.
  monkeypatch.setattr(constants, 'DOWNLOAD_CHUNK_SIZE', 50)
  monkeypatch.setattr(file_download.logger, 'disabled', True)
  load(made)
  gets = [asked[2] for asked in server.asked if asked[0] == 'GET']
  assert gets == [None, 'bytes=100-', 'bytes=150-']


def test_our_bar_is_all_that_the_client_asks_of_tqdm():
  told = []
  make = hub._bar(lambda done, total: told.append((done, total)))
  # Of large files it shows what arrives and what is written, as two.
  with (
    make(total=9_500_000, unit='B', position=1, mininterval=0) as bar,
    make(total=9_500_000, unit='B', mininterval=0, leave=True) as other,
  ):
    other.update(5_000_000)
    bar.update(2_000_000)
    bar.set_postfix_str('1 MB/s', refresh=False)
    other.total = other.n
    other.refresh()
    bar.update(7_500_000)
    assert bar.format_dict['total'] == 9_500_000
  assert told[0] == (0, 10) and told[-1] == (9, 10)
  assert sorted(told) == told


def test_one_that_never_ends_leaves_nothing_that_passes_for_the_file(
  made, server, tmp_path, monkeypatch
):
  monkeypatch.setattr(file_download.logger, 'disabled', True)
  server.cuts = [100] + 20 * [0]
  assert f'cannot be fetched from {server.url}' in refused(made)
  assert not hub.is_fetched(published.find(NAME))
  server.cuts = []
  load(made)
  assert hub.is_fetched(published.find(NAME))


@pytest.mark.parametrize(
  ('status', 'code', 'words'),
  [
    (401, 'GatedRepo', 'accept what'),
    (401, '', 'hf auth login'),
    (403, 'GatedRepo', 'status 403'),
    (403, '', 'status 403'),
    (404, 'RepoNotFound', 'are not at'),
    (404, 'EntryNotFound', 'are not at'),
    (500, '', 'status 500'),
  ],
)
def test_a_refusal_is_a_sentence_with_the_page(
  made, server, status, code, words
):
  server.status, server.code = status, code
  sentence = refused(made)
  assert words in sentence and server.url in sentence
  assert 'config.init_from' in sentence
  assert status == 500 or f'{server.url}/owner/small' in sentence


def test_no_server_is_a_sentence(made, server, monkeypatch):
  monkeypatch.setattr(
    constants, 'HUGGINGFACE_CO_URL_TEMPLATE',
    'http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}',
  )  # fmt: skip
  assert 'check the network' in refused(made)


def test_a_revision_that_is_gone_is_named(made, server, monkeypatch):
  publish(monkeypatch, revision=40 * 'b')
  assert f'of revision {40 * "b"} are not at' in refused(made)


def test_a_pin_of_the_first_fetch_may_be_removed(
  made, server, tmp_path, monkeypatch
):
  cure = f"or remove the file's entry in {hub.pins_path()}"
  load(made)
  first = pins()
  other = {KEY: {'revision': hub_server.COMMIT, 'sha256': 64 * '0'}}
  hub.pins_path().write_text(json.dumps(other))
  assert cure in refused(made)
  # No such revision any more, nor a file of it.
  hub.pins_path().write_text(json.dumps(first))
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'elsewhere'))
  server.commit = 40 * 'a'
  assert cure in refused(made)
  hub.pins_path().write_text('{}')
  load(made)
  assert pins()[KEY]['revision'] == server.commit
  # What the table pins is not in that file.
  publish(monkeypatch, revision=40 * 'b', sha256=64 * '0')
  assert cure not in refused(made)


def test_no_sentence_has_a_password_or_a_signed_address(
  made, server, monkeypatch
):
  secret = server.url.replace('://', '://me:secret@')
  monkeypatch.setattr(constants, 'ENDPOINT', secret)
  server.status = 403
  sentence = refused(made)
  assert 'secret' not in sentence and f'{server.url}/owner/small' in sentence

  def fail(*_, **__):
    raise ValueError(f"no '{secret}/a?Signature=key' nor /b?token=key, sorry")

  monkeypatch.setattr(huggingface_hub, 'hf_hub_download', fail)
  sentence = refused(made)
  assert f"no '{server.url}/a' nor /b sorry" in sentence
  assert 'secret' not in sentence and 'key' not in sentence


def test_half_a_file_or_another_is_refused_and_may_be_fetched_again(
  made, server
):
  _, _, report = load(made)
  path = pathlib.Path(report.origin['path'])
  for content in (made.data[:-100], made.data[::-1]):
    path.resolve().write_bytes(content)
    sentence = refused(made)
    assert 'damaged, cut short or another file' in sentence
    assert f'remove {path.resolve()}' in sentence
  path.resolve().unlink()
  load(made)


def test_what_is_not_the_published_file_is_refused_at_the_first_fetch(
  made, server, monkeypatch
):
  publish(monkeypatch, sha256=64 * '0')
  assert f'not {64 * "0"}' in refused(made)
  assert not hub.pins_path().exists()


def test_a_licence_that_asks_more_is_said_before_the_download(
  made, server, monkeypatch, capsys
):
  page = 'https://example.org/license'
  publish(monkeypatch, licence='dinov3-license', terms=page)
  server.status = 403
  refused(made)
  said = ' '.join(capsys.readouterr().out.split())
  assert 'licence dinov3-license' in said and f'you accept {page}' in said
  weights = publish(monkeypatch, licence='')
  refused(made)
  said = ' '.join(capsys.readouterr().out.split())
  assert 'licence not said' in said and f'see {weights.page}' in said


def test_terms_are_said_though_another_program_fetched_the_file(
  made, server, monkeypatch, capsys
):
  page = 'https://example.org/license'
  weights = publish(monkeypatch, licence='dinov3-license', terms=page)
  huggingface_hub.hf_hub_download(weights.repository, weights.file)
  assert hub.is_fetched(weights)
  load(made)
  assert f'you accept {page}' in ' '.join(capsys.readouterr().out.split())
  load(made)
  assert not capsys.readouterr().out


def test_a_full_disk_is_a_sentence_and_nothing_half_stays(
  made, server, tmp_path, monkeypatch
):
  # The client's own file, on a device that is always full.
  digest = hashlib.sha256(made.data).hexdigest()
  blobs = tmp_path / 'hub' / 'models--owner--small' / 'blobs'
  blobs.mkdir(parents=True)
  monkeypatch.setattr(
    file_download, 'uuid',
    types.SimpleNamespace(uuid4=lambda: types.SimpleNamespace(hex=8 * '0')),
  )  # fmt: skip
  (blobs / f'{digest}.{8 * "0"}.incomplete').symlink_to('/dev/full')
  sentence = refused(made)
  assert 'do not fit on the disk' in sentence and str(tmp_path) in sentence
  assert not hub.is_fetched(published.find(NAME))
  load(made)


def test_a_cache_that_cannot_be_written_is_a_sentence(made, server, tmp_path):
  (tmp_path / 'hub').write_text('a file where the folder should be')
  assert 'set HF_HOME to a folder that can be written' in refused(made)


def test_weights_of_another_network_are_refused(made, server):
  arrays = made.arrays | {'cls': np.zeros((1, 1, 64), np.float32)}
  server.files[KEY] = safetensors.numpy.save(arrays)
  assert f'does not fit {NAME}: 1 arrays are of another shape' in refused(made)


@pytest.mark.parametrize('file', ['model.safetensors', 'open_clip.bin'])
def test_a_file_of_weights_executes_nothing(
  made, server, tmp_path, monkeypatch, file
):
  mark = tmp_path / 'mark'
  publish(monkeypatch, file=file)
  server.files[f'owner/small/{file}'] = pickle.dumps(torch_pickles.Touch(mark))
  sentence = refused(made)
  assert 'cannot be read' in sentence or 'nothing was executed' in sentence
  assert not mark.exists()


@pytest.mark.parametrize('form', ['file_of', 'zipped'])
def test_a_pytorch_file_is_read_without_unpickling(
  made, server, monkeypatch, form
):
  file = 'open_clip_pytorch_model.bin'
  publish(monkeypatch, file=file)
  server.files[f'owner/small/{file}'] = torch_pickles.saved(
    made.arrays, getattr(torch_pickles, form)
  )
  params, _, report = load(made)
  np.testing.assert_array_equal(params['cls'], made.arrays['cls'])
  assert not report.missing + report.unexpected


def test_a_damaged_file_of_pins_is_a_sentence(made, server):
  for text in ('{', '[]', '{"a": {"revision": ""}}', '{"a": 3}'):
    hub.pins_path().parent.mkdir(parents=True, exist_ok=True)
    hub.pins_path().write_text(text)
    assert str(hub.pins_path()) in refused(made)


def test_without_the_client_it_says_what_to_install(made, monkeypatch):
  publish(monkeypatch)
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  sentence = refused(made)
  assert 'pip install "csdnet_jax[hub]"' in sentence
  assert "config.init_from to a file of weights, or to ''" in sentence


@pytest.mark.slow
def test_the_command_fetches_by_name_and_trains(server, tmp_path):
  """A process of its own, told of the server by the hub's own variables."""
  name = 'vit_ti16'
  model = models.build(name, classes=9, drop_rate=0.0, drop_path=0.0)
  params, _ = jax.jit(model.init, static_argnums=1)(jax.random.key(0), 32)
  arrays = {
    '/'.join(k.key for k in path): np.asarray(leaf)
    for path, leaf in jax.tree.leaves_with_path(params)
  }
  weights = published.find(name)
  key = f'{weights.repository}/{weights.file}'
  server.files[key] = safetensors.numpy.save(arrays)

  def train(workdir, **variables):
    env = {
      'HF_ENDPOINT': server.url, 'HF_HOME': str(tmp_path / 'hub'),
      'XDG_CACHE_HOME': str(tmp_path / 'cache'),
    }  # fmt: skip
    return command.csdnet(
      'train', '--config=quickstart', f'--config.model.name={name}',
      '--config.model.size=32', '--config.epochs=0.1',
      '--config.data.leaves.cultivars=2', '--config.batch_size=4',
      '--config.optim.tune=head', f'--config.data.cache={tmp_path}/images',
      '--config.method.name=supervised', f'--workdir={tmp_path / workdir}',
      env=env | variables,
    )  # fmt: skip

  status, out = train('first')
  assert status == 0, out
  assert f'Fetching the weights of {name}: {weights.repository}' in out
  assert 'Pinned in' in out and 'parameters are frozen' in out
  kept = json.loads((tmp_path / 'first' / 'weights.json').read_text())
  assert kept['origin']['revision'] == hub_server.COMMIT
  server.asked.clear()
  status, out = train('second', HF_HUB_OFFLINE='1')
  assert status == 0, out
  assert not server.asked and 'Fetching' not in out
  server.status = 403
  status, out = train('third', HF_HOME=str(tmp_path / 'elsewhere'))
  assert status == 2 and 'Traceback' not in out
  assert 'status 403' in out.splitlines()[-1]


def test_the_table_says_what_each_network_is_made_with():
  assert published.WEIGHTS.keys() <= models.MODELS.keys()
  for name, weights in published.WEIGHTS.items():
    spec = models.find(name)
    assert (weights.mean, weights.std) == (spec.mean, spec.std), name
    assert len(weights.revision) in (0, 40), name
    assert len(weights.sha256) in (0, 64), name
    assert weights.data and weights.size, name


def test_a_network_without_published_weights_says_so(made):
  for word in published.WORDS:
    with pytest.raises(UserError, match=f"No '{word}' weights are known for p"):
      pretrained.load(word, 'psp_resnet18', {}, {}, classes=2)
