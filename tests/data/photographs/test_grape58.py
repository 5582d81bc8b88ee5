"""`csdnet data grape58`, from a server on this computer."""

import hashlib
import http.server
import threading

import pytest
from PIL import Image

from csdnet_jax.data import decode
from csdnet_jax.data.images import labelled_folders
from csdnet_jax.data.photographs import grape58
from csdnet_jax.runtime.errors import UserError

import images
import scenes

PHOTOGRAPHS = '0_visual_check/ampelometry_images/'
KEY = '0_visual_check/ampelometry_id_key.txt'


class _Server:
  """Serves `files` {path: bytes}, and counts what it was asked for."""

  def __init__(self, files):
    self.files, self.asked, self.cut_short = files, [], False
    ours = self

    class Handler(http.server.BaseHTTPRequestHandler):
      def do_GET(self):
        name = self.path.lstrip('/')
        ours.asked.append(name)
        data = ours.files.get(name)
        if data is None:
          self.send_error(404)
          return
        self.send_response(200)
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if ours.cut_short else data)

      def log_message(self, *args):
        pass

    self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    self._thread = threading.Thread(target=self._server.serve_forever)
    self._thread.start()
    self.base = f'http://127.0.0.1:{self._server.server_port}/'

  def stop(self):
    self._server.shutdown()
    self._server.server_close()
    self._thread.join()


@pytest.fixture
def serve(monkeypatch):
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  monkeypatch.setenv('no_proxy', '127.0.0.1')
  servers = []

  def start(files):
    servers.append(_Server(files))
    return servers[-1]

  yield start
  for server in servers:
    server.stop()


def _digests(files):
  return {n: hashlib.sha256(data).hexdigest() for n, data in files.items()}


FILES = {'a/one.txt': b'one' * 99, 'LICENSE': b'MIT' * 50}


def _fetch(server, kept, digests=None):
  digests = digests or _digests(FILES)
  return grape58.fetch(digests, server.base, kept, retries=0)


def test_files_are_fetched_once_and_then_without_a_network(serve, tmp_path):
  server = serve(FILES)
  files = _fetch(server, tmp_path / 'kept')
  assert {n: p.read_bytes() for n, p in files.items()} == FILES
  assert sorted(server.asked) == sorted(FILES)
  server.files = {}
  again = _fetch(server, tmp_path / 'kept')
  assert again == files and len(server.asked) == 2


def test_a_kept_file_that_was_damaged_is_fetched_again(serve, tmp_path):
  server = serve(FILES)
  files = _fetch(server, tmp_path)
  files['LICENSE'].write_bytes(b'?')
  assert _fetch(server, tmp_path)['LICENSE'].read_bytes() == FILES['LICENSE']
  assert len(server.asked) == 3


def _fails(server, kept, *words, digests=None):
  with pytest.raises(UserError) as error:
    _fetch(server, kept, digests)
  text = str(error.value)
  assert '\n' not in text and 'LICENSE' in text
  for word in words:
    assert word in text
  assert not (kept / 'LICENSE').exists()


def test_another_file_than_the_published_one_is_refused(serve, tmp_path):
  server = serve(FILES | {'LICENSE': b'something else'})
  _fails(server, tmp_path, 'not the file that was published', 'SHA-256')


def test_a_file_that_is_gone_is_a_sentence(serve, tmp_path):
  server = serve({'a/one.txt': FILES['a/one.txt']})
  _fails(server, tmp_path, '404', 'check the network', str(tmp_path))
  server.files = FILES  # What was fetched before is not fetched again.
  _fetch(server, tmp_path)
  assert server.asked.count('a/one.txt') == 1


def test_a_file_that_is_cut_short_is_a_sentence(serve, tmp_path):
  server = serve(FILES)
  _fetch(
    server, tmp_path, {k: v for k, v in _digests(FILES).items() if 'a' in k}
  )
  server.cut_short = True
  _fails(server, tmp_path, 'run the same command again')
  server.cut_short = False
  assert _fetch(server, tmp_path)['LICENSE'].read_bytes() == FILES['LICENSE']


def test_no_network_is_a_sentence(serve, tmp_path):
  server = serve(FILES)
  _fetch(
    server, tmp_path, {k: v for k, v in _digests(FILES).items() if 'a' in k}
  )
  server.stop()
  server.stop = lambda: None
  _fails(server, tmp_path, 'check the network')


def test_a_cache_that_cannot_be_written_is_a_sentence(serve, tmp_path):
  images.write(tmp_path / 'file', b'')
  with pytest.raises(UserError, match='Cannot write to the cache folder'):
    _fetch(serve(FILES), tmp_path / 'file' / 'kept')


def test_every_published_file_has_a_digest():
  listed = grape58.published()
  assert {len(digest) for digest in listed.values()} == {64}
  photographs = [name for name in listed if name.startswith(PHOTOGRAPHS)]
  assert len(photographs) == len(set(photographs)) == 126
  assert set(listed) - set(photographs) == {KEY, 'LICENSE'}
  assert listed[KEY].startswith('2be10d938eb7')


def _photograph(n):
  places = [(40, 40, 180), (260, 60, 170), (150, 230, 190)][:n]
  return images.encode(
    scenes.photograph(places, size=(480, 500))[0], 'JPEG', quality=95
  )


@pytest.fixture
def drawn(serve, monkeypatch):
  """A repository of two varieties, and a third with too few leaves."""
  leaves = {'B2.JPG': 3, 'A1.JPG': 2, 'A2.JPG': 3, 'C1.jpg': 2, 'C2.JPG': 2}
  varieties = {'A': 'Müller-Thurgau', 'B': 'Few', 'C': 'Aramon'}
  rows = ['variety\ttype\tvalue\timage\tleaf'] + [
    f'{varieties[n[0]]}\twine\t{n}1\t{n[:2]}\tLeaf1' for n in leaves
  ]
  files = {PHOTOGRAPHS + n: _photograph(k) for n, k in leaves.items()}
  files[KEY] = '\r\n'.join(rows).encode('mac_roman')
  files['LICENSE'] = b'MIT License\n'
  monkeypatch.setattr(grape58, 'published', lambda: _digests(files))
  return serve(files)


def test_the_set_is_cut_split_and_named_as_it_was_published(
  drawn, tmp_path, monkeypatch
):
  monkeypatch.setattr(grape58, '_CLASSES', 2)
  monkeypatch.setattr(grape58, '_LEAVES', 4)
  out = tmp_path / 'out'
  counts = grape58.build(out, base=drawn.base, kept=tmp_path / 'kept')
  assert counts == {'train': 4, 'test': 4}
  anno = {p.stem: p.read_text().splitlines() for p in (out / 'anno').iterdir()}
  assert anno == {
    'classes': ['1 01_Aramon', '2 02_Muller_Thurgau'],
    'train': [
      '01_Aramon/C1_0.jpg 1', '01_Aramon/C1_1.jpg 1',
      '02_Muller_Thurgau/A1_0.jpg 2', '02_Muller_Thurgau/A1_1.jpg 2',
    ],
    # Of five leaves the third is on neither side.
    'test': [
      '01_Aramon/C2_0.jpg 1', '01_Aramon/C2_1.jpg 1',
      '02_Muller_Thurgau/A2_1.jpg 2', '02_Muller_Thurgau/A2_2.jpg 2',
    ],
  }  # fmt: skip
  assert (out / 'LICENSE').read_bytes() == b'MIT License\n'
  readme = (out / 'README.md').read_text()
  assert grape58.COMMIT in readme and 'Morphology' in readme
  assert len(labelled_folders.open_folder(out).test.names) == 4
  for path in (out / 'images').rglob('*.jpg'):
    picture = decode.decode(path.read_bytes(), path.name)
    assert min(picture.shape[:2]) == 256
    with Image.open(path) as image:
      assert image.format == 'JPEG'


def test_other_leaves_than_in_the_tables_are_refused(drawn, tmp_path):
  with pytest.raises(UserError, match='not 58, 129 and 129') as error:
    grape58.build(tmp_path / 'out', base=drawn.base, kept=tmp_path / 'kept')
  assert 'Found 2 varieties, 4 leaves for training' in str(error.value)
  assert not (tmp_path / 'out').exists()


def test_the_folder_is_checked_before_anything_is_fetched(drawn, tmp_path):
  images.write(tmp_path / 'out/mine.txt', b'')
  with pytest.raises(UserError, match='not empty'):
    grape58.build(tmp_path / 'out', base=drawn.base, kept=tmp_path / 'kept')
  assert not drawn.asked
