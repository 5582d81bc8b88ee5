"""The page: a leaf goes in, cultivars come out; nothing else gets through."""

import html
import re
import signal
import socket
import tempfile

import numpy as np
import pytest
from PIL import Image

from csdnet_jax import load_run
from csdnet_jax.data import uploads
from csdnet_jax.inference import app, embed
from csdnet_jax.runtime.errors import UserError

import command
import images

LEAF = images.encode(images.pixels(0, 60, 48))


@pytest.fixture(scope='module')
def run(trained):
  return load_run(trained)


@pytest.fixture(scope='module')
def client(run):
  train = run.part('train')
  leaves = train, *embed.embed(run, train, [], 'leaves')
  return app.make_app(run, leaves, note='T = 1 & so on').test_client()


def test_the_page_loads_nothing_from_elsewhere(client):
  page = client.get('/')
  assert page.status_code == 200 and 'T = 1 &amp; so on' in page.text
  assert "default-src 'none'" in page.text
  assert not re.search('https?:|//', page.text)
  assert re.findall('(?:src|href)="([^"]*)"', page.text) == ['data:,']


def test_a_leaf_is_named_as_the_run_names_it(client, run):
  answer = client.post('/leaf', data=LEAF)
  assert answer.status_code == 200
  text = html.unescape(answer.text)
  p = run.predict([images.pixels(0, 60, 48)]).probabilities[0]
  rows = re.findall(r'<tr><td>(.*?)<td>.*?<td>([\d.]+) %', text, re.DOTALL)
  assert [name for name, _ in rows] == [
    run.class_names[c] for c in np.argsort(-p, kind='stable')[:5]
  ]
  np.testing.assert_allclose(
    [float(x) for _, x in rows], 100 * np.sort(p)[::-1][:5], atol=0.051
  )
  first, second = (name for name, _ in rows[:2])
  assert f'Speaks for {first} against {second}' in text
  assert f'Speaks for {second} against {first}' in text
  assert (
    'The most similar leaves' in text and f'Most like <strong>{first}' in text
  )
  assert text.count('data:image/jpeg;base64,') == 3 + 5


def test_a_training_leaf_is_its_own_nearest(client, run):
  train = run.part('train')
  answer = client.post('/leaf', data=train.read(3))
  first = re.search(r'<h2>.*?alt="">(.*?)<br>similarity ([\d.]+)', answer.text,
                    re.DOTALL)  # fmt: skip
  assert first[1] == html.escape(run.class_names[train.labels[3]])
  assert float(first[2]) == 1.0


def test_the_first_words_are_for_a_botanist(run):
  text = app.introduction(run)
  assert f'{len(run.class_names)} kinds of leaf' in text
  for word in ('nats', 'T =', 'likelihood', '/'):
    assert word not in text


def test_without_leaves_the_rest_is_shown(run, monkeypatch):
  names = ('<b>', *run.class_names[1:])
  monkeypatch.setattr(run, 'class_names', names)
  text = app.make_app(run).test_client().post('/leaf', data=LEAF).text
  assert 'Speaks for' in text and 'most similar' not in text
  assert '&lt;b&gt;' in text and '<b>' not in text


def test_a_leaf_of_none_of_these_is_said_to_be(run, monkeypatch):
  page = app.make_app(run).test_client()
  for said, expected in ((None, False), ([False], False), ([True], True)):
    found = said and np.array(said)
    monkeypatch.setattr(run, 'none_of_these', lambda outputs, x=found: x)
    text = page.post('/leaf', data=LEAF).text
    assert ('None of these' in text) == expected
    assert ('Most like' in text) != expected


def _postscript():
  # Pillow would hand this to a program of its own.
  return b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n'


@pytest.mark.parametrize(
  ('data', 'sentence'),
  [
    (b'', 'the file is empty'),
    (b'<svg onload="alert(1)">', 'not an image'),
    (_postscript(), 'not an image'),
    (LEAF[:300], 'damaged or cut short'),
    (images.encode(Image.new('1', (7100, 7100))), '50,000,000'),
    (images.encode(Image.new('1', (20000, 20000))), 'too large'),
    (images.encode(Image.new('1', (9000, 2))), 'a line'),
  ],
  ids=['empty', 'svg', 'eps', 'cut', 'large', 'bomb', 'line'],
)
def test_what_is_no_photograph_is_refused(client, data, sentence):
  answer = client.post('/leaf', data=data)
  assert answer.status_code == 400 and sentence in answer.text
  assert '<' not in answer.text


def test_too_large_a_file_is_refused(client):
  answer = client.post('/leaf', data=b'x' * (uploads.MAX_BYTES + 1))
  assert answer.status_code == 413
  with pytest.raises(UserError, match='over 20 MiB'):
    uploads.open_upload(b'x' * (uploads.MAX_BYTES + 1))


def test_another_host_name_is_refused(client):
  for host, status in (('127.0.0.1:8000', 200), ('leaves.example', 400)):
    assert client.get('/', headers={'Host': host}).status_code == status


def test_an_upload_never_touches_the_disk(client, monkeypatch):
  def fail(*args, **kwargs):
    raise AssertionError('a temporary file')

  for name in ('mkstemp', 'TemporaryFile', 'SpooledTemporaryFile'):
    monkeypatch.setattr(tempfile, name, fail)
  big = images.encode(images.pixels(1, 700, 700))
  assert len(big) > 1e6
  assert client.post('/leaf', data=big).status_code == 200


def test_a_taken_port_is_a_sentence(trained):
  with socket.create_server(('127.0.0.1', 0)) as other:
    port = other.getsockname()[1]
    with pytest.raises(UserError, match=f'--port={port} is not free'):
      command.here(app.main, 'app', f'--run={trained}', f'--port={port}')


@pytest.fixture
def served(trained):
  """The address of the command, in a process of its own."""
  process = command.start(
    'app', f'--run={trained}', '--port=0', module='csdnet_jax',
    env={'PYTHONUNBUFFERED': '1'},
  )  # fmt: skip
  said = ''
  for line in process.stdout:
    said += line
    if found := re.search(r'http://127\.0\.0\.1:\d+', line):
      break
  else:
    raise AssertionError(said)
  yield found[0]
  process.send_signal(signal.SIGINT)
  rest, _ = process.communicate(timeout=60)
  assert process.returncode == 0 and 'Traceback' not in rest


@pytest.mark.slow
def test_in_a_browser(served, browser, run, tmp_path):
  page = browser.new_page(viewport={'width': 1000, 'height': 800})
  asked, problems = [], []
  page.on('request', lambda request: asked.append(request.url))
  page.on('console', lambda message: problems.append(message.text))
  page.on('pageerror', lambda error: problems.append(str(error)))
  page.goto(served)
  leaf = images.write(tmp_path / 'leaf.png', LEAF)
  p = run.predict([leaf]).probabilities[0]
  best = run.class_names[p.argmax()]

  page.set_input_files('input', leaf)
  page.wait_for_selector('table')
  assert page.locator('td').first.inner_text() == best
  assert page.locator('section img').count() == 3 + 5
  loaded = 'all => all.every(i => i.complete && i.naturalWidth > 0)'
  assert page.locator('img').evaluate_all(loaded)
  page.screenshot(path=tmp_path / 'page.png', full_page=True)
  with Image.open(tmp_path / 'page.png') as screenshot:
    assert screenshot.width == 1000
    assert len(screenshot.convert('RGB').getcolors(2**24)) > 1000

  drop = """async bytes => {
    const carried = new DataTransfer()
    carried.items.add(new File([new Uint8Array(bytes)], 'leaf'))
    document.querySelector('output').textContent = ''
    dispatchEvent(new DragEvent('drop', {dataTransfer: carried}))
  }"""
  page.evaluate(drop, list(LEAF))
  page.wait_for_selector('table')
  assert page.locator('td').first.inner_text() == best
  assert not problems

  page.evaluate(drop, list(b'no image'))
  page.get_by_text('not an image').wait_for()
  large = images.write(tmp_path / 'large', b'x' * (uploads.MAX_BYTES + 1))
  page.set_input_files('input', large)
  page.get_by_text('too large').wait_for()
  elsewhere = [u for u in asked if not u.startswith((served, 'data:'))]
  assert not elsewhere
