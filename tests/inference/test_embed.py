"""Embeddings, nearest training leaves and the page that shows them."""

import base64
import html.parser
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from csdnet_jax import load_run
from csdnet_jax.data.images import inputs
from csdnet_jax.inference import embed, trained as trained_lib
from csdnet_jax.runtime.errors import UserError

import command
import images


@pytest.fixture(scope='module')
def run(trained):
  return load_run(trained)


def _command(*argv):
  return command.here(embed.main, 'embed', *argv)


# ---------------------------------------------------------------- the archive


def test_a_part_comes_with_its_labels(run, trained, tmp_path):
  out = tmp_path / 'test.npz'
  assert _command(f'--run={trained}', f'--out={out}', '--part=test')[0] == 0
  test, problems = run.part('test'), []
  vectors = [x['embedding'] for _, x in run.outputs(test, problems)]
  with np.load(out) as z:
    assert z['path'].tolist() == list(test.names)
    np.testing.assert_array_equal(z['label'], test.labels)
    np.testing.assert_array_equal(z['vector'], np.concatenate(vectors))
    assert tuple(z['class_names']) == run.class_names
    assert z['label'].dtype == np.int32 and z['vector'].dtype == np.float32


def test_images_have_no_labels_and_bad_ones_are_left_out(
  run, trained, tmp_path
):
  good = images.write(
    tmp_path / 'a.png', images.encode(images.pixels(0, 40, 40))
  )
  bad = images.write(tmp_path / 'b.png', b'')
  out = tmp_path / 'emb.npz'
  status, said = _command(f'--run={trained}', f'--out={out}', bad, good)
  assert status == 1 and 'b.png: the file is empty' in said
  with np.load(out) as z:
    assert z['path'].tolist() == [str(good)]
    assert z['label'].tolist() == [-1]
    np.testing.assert_array_equal(z['vector'], run.embed([good]))
  images.write(tmp_path / 'more/notes.txt', b'x')
  good.rename(tmp_path / 'more/a.png')
  status, said = _command(f'--run={trained}', f'--out={out}', tmp_path / 'more')
  assert status == 1 and 'Not used, 1 in all:' in said
  assert '1 of unknown kind:' in said


@pytest.mark.parametrize(
  ('args', 'words'),
  [
    ((), 'Say which images'),
    (('--part=test', 'a.png'), 'Say which images'),
    (('absent.png',), 'absent'),
    (('--part=test', '--neighbours=page.txt'), r'ends in \.html'),
  ],
)
def test_a_mistake_is_said(args, words, tmp_path):
  with pytest.raises(UserError, match=words):
    _command('--run=no/such', f'--out={tmp_path / "x.npz"}', *args)


# ------------------------------------------------------------------- the page


class _Page(html.parser.HTMLParser):
  """Counts rows, and collects the text and every attribute that could load."""

  def __init__(self, text):
    super().__init__()
    self.rows, self.tags, self.text, self.loaded = 0, set(), '', []
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    self.rows += tag == 'section'
    self.tags.add(tag)
    self.loaded += [v for k, v in attributes if k in ('src', 'href', 'srcset')]

  def handle_data(self, data):
    self.text += data


def test_the_page_stands_alone(run, trained, tmp_path):
  path = tmp_path / 'page.html'
  _command(
    f'--run={trained}', f'--out={tmp_path / "x.npz"}', '--part=test',
    f'--neighbours={path}',
  )  # fmt: skip
  page = _Page(path.read_text(encoding='utf-8'))
  n = len(run.part('test').names)
  assert page.rows == n
  assert len(page.loaded) == n * (1 + embed._NEIGHBOURS)
  assert all(x.startswith('data:image/jpeg;base64,') for x in page.loaded)
  assert not re.search(r'https?:|url\(|@import', path.read_text())
  assert page.tags.isdisjoint({'script', 'link', 'iframe'})
  hits = re.search(r'same class for (\d+) of 8', page.text)
  assert hits and page.text.count('✓ cos') >= int(hits[1])
  assert page.text.count('✓ cos') + page.text.count('✗ cos') == 5 * n


def test_a_run_whose_images_are_gone_writes_nothing(
  trained, tmp_path, monkeypatch
):
  def part(self, name):
    raise UserError(f'The {name} part is gone.')

  monkeypatch.setattr(trained_lib.TrainedRun, 'part', part)
  picture = images.write(
    tmp_path / 'a.png', images.encode(images.pixels(0, 40, 40))
  )
  out, page = tmp_path / 'x.npz', tmp_path / 'page.html'
  with pytest.raises(UserError, match='The train part is gone'):
    _command(
      f'--run={trained}', f'--out={out}', f'--neighbours={page}', picture
    )
  assert not out.exists() and not page.exists()
  # Who asks for no page needs none of them.
  assert _command(f'--run={trained}', f'--out={out}', picture)[0] == 0


def test_training_images_do_not_find_themselves(trained, tmp_path):
  path = tmp_path / 'page.html'
  _command(
    f'--run={trained}', f'--out={tmp_path / "x.npz"}', '--part=train',
    f'--neighbours={path}',
  )  # fmt: skip
  sections = path.read_text(encoding='utf-8').split('<section>')[1:]
  assert sections
  for section in sections:
    itself, *others = re.findall(r'title="([^"]*)"', section)
    assert itself not in others and len(set(others)) == len(others)


def _parts(tmp_path, name, n=1):
  """A page's arguments for n copies of a picture with this file name."""
  path = images.write(tmp_path / name, images.encode(images.pixels(0, 300, 30)))
  split = inputs.of_paths([path] * n)
  return split, list(range(n)), np.ones((n, 2))


def test_names_are_escaped(run, tmp_path, monkeypatch):
  evil = '<script>alert("x")</script>&$title'
  monkeypatch.setattr(run, 'class_names', (evil,) * 4)
  queries = _parts(tmp_path, 'a "<img src=x>.png')
  split, rows, vectors = _parts(tmp_path, 'b.png', 6)
  train = split._replace(labels=np.zeros(6, np.int32)), rows, vectors
  page = _Page(embed.page(run, queries, train, itself=False))
  assert 'script' not in page.tags
  assert all(x.startswith('data:') for x in page.loaded)
  assert page.text.count(evil) == 5 and 'a "<img src=x>.png' in page.text
  assert '✓' not in page.text and 'same class' not in page.text


def test_a_page_tells_no_folder_of_this_machine(run, tmp_path):
  folder = tmp_path / 'mine'
  files = [
    images.write(folder / name, images.encode(images.pixels(i, 40, 40)))
    for i, name in enumerate(['a/1.png', 'b/2.png'])
  ]
  path = tmp_path / 'page.html'
  _command(
    f'--run={run.workdir}', f'--out={tmp_path / "x.npz"}', *files,
    f'--neighbours={path}',
  )  # fmt: skip
  text = path.read_text(encoding='utf-8')
  assert 'title="a/1.png"' in text and 'title="b/2.png"' in text
  assert str(tmp_path) not in text
  # One alone is in its folder; those of two disks share nothing.
  shown = embed._without_common_folder
  assert shown(['/home/me/1.png']) == ['1.png']
  assert shown(['/home/me/1.png', '/disk/2.png']) == ['1.png', '2.png']
  assert shown(['ash/1.png', '../2.png']) == ['ash/1.png', '../2.png']


def test_a_page_is_bounded(run, tmp_path, monkeypatch):
  monkeypatch.setattr(embed, '_MOST_ROWS', 3)
  part = _parts(tmp_path, 'a.png', 10)
  text = embed.page(run, part, part, itself=False)
  assert _Page(text).rows == 3
  assert '3 of them are shown' in text


def test_thumbnails_are_small_and_keep_their_aspect(tmp_path):
  split, _, _ = _parts(tmp_path, 'a.png')
  image = inputs.decoded(split, 0)
  data = inputs.thumbnail(image, 144).partition(',')[2]
  with Image.open(io.BytesIO(base64.b64decode(data))) as image:
    assert image.size == (14, 144)


def test_the_own_parts_are_embedded_wherever_they_are(folder_run, tmp_path):
  workdir = shutil.copytree(folder_run[0], tmp_path / 'run')
  config = json.loads((workdir / 'config.json').read_text())
  config['data']['root'] = '/gone/pictures'
  (workdir / 'config.json').write_text(json.dumps(config))
  out = tmp_path / 'e.npz'
  args = (f'--run={workdir}', f'--out={out}', '--part=test')
  with pytest.raises(UserError, match=r'/gone/pictures .*--data_root=DIR'):
    _command(*args)
  assert not out.exists()
  assert _command(*args, f'--data_root={folder_run[1]}')[0] == 0
  with np.load(out) as z:
    split = json.loads((workdir / 'split.json').read_text())
    assert z['path'].tolist() == list(split['test'])
    assert z['label'].tolist() == list(split['test'].values())
