"""A server on this computer that answers as the Hugging Face hub does."""

import contextlib
import hashlib
import http.server
import threading

COMMIT = '0123456789abcdef0123456789abcdef01234567'


class Hub:
  """What the server holds and does, which a test may change, and was asked.

  Attributes:
    files: {'owner/name/file': content}.
    commit: that the branch main is at; no other revision is known.
    status: that every request is answered with, or 200 for what they ask.
    code: what goes with a status, the hub's X-Error-Code.
    cuts: bytes after which the next answers end, one for each.
    asked: (method, path, the Range header or None) of each request.
    url: of the server.
  """

  def __init__(self):
    self.files, self.commit = {}, COMMIT
    self.status, self.code = 200, ''
    self.cuts, self.asked, self.url = [], [], ''


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'

  def log_message(self, *_):
    pass

  def do_HEAD(self):
    self._answer(b'')

  def do_GET(self):
    self._answer(None)

  def _answer(self, body):
    hub = self.server.hub
    hub.asked.append((self.command, self.path, self.headers.get('Range')))
    repository, _, rest = self.path.lstrip('/').partition('/resolve/')
    revision, _, name = rest.partition('/')
    content = hub.files.get(f'{repository}/{name}')
    status, code = hub.status, hub.code
    if status == 200 and revision not in ('main', hub.commit):
      status, code = 404, 'RevisionNotFound'
    elif status == 200 and content is None:
      status, code = 404, 'EntryNotFound'
    if status != 200:
      self.send_response(status)
      self.send_header('X-Error-Code', code)
      self.send_header('Content-Length', '0')
      self.end_headers()
      return
    start = int((self.headers.get('Range') or 'bytes=0-')[6:].split('-')[0])
    part = content[start:]
    self.send_response(206 if start else 200)
    digest = hashlib.sha256(content).hexdigest()
    self.send_header('ETag', f'"{digest}"')
    self.send_header('X-Linked-Etag', f'"{digest}"')
    self.send_header('X-Linked-Size', str(len(content)))
    self.send_header('X-Repo-Commit', hub.commit)
    self.send_header('Content-Length', str(len(part)))
    if start:
      last = f'{len(content) - 1}/{len(content)}'
      self.send_header('Content-Range', f'bytes {start}-{last}')
    self.end_headers()
    if body is None:
      cut = hub.cuts.pop(0) if hub.cuts else None
      self.wfile.write(part[:cut])
      if cut is not None:
        self.close_connection = True


@contextlib.contextmanager
def serving():
  """Yields a `Hub` that is served on the loopback."""
  hub = Hub()
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
  server.hub = hub
  hub.url = f'http://127.0.0.1:{server.server_address[1]}'
  thread = threading.Thread(target=server.serve_forever, args=(0.01,))
  thread.start()
  try:
    yield hub
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
