"""The report: complete or not, a page that needs nothing and leaks nothing."""

import html
import html.parser
import re

import numpy as np
import pytest

from csdnet_jax.evaluation import calibration, unknown
from csdnet_jax.pictures import report
from csdnet_jax.pictures.report import page, said

VOID = {'meta', 'link', 'img', 'br', 'wbr'}
# HTML lets these end by themselves.
OPEN = {'html', 'tr', 'td', 'th', 'li'}


class Strict(html.parser.HTMLParser):
  """Fails where an element is closed that is not open, or stays open."""

  def __init__(self, text):
    super().__init__()
    self.stack, self.tags, self.text = [], [], []
    self.feed(text)
    self.close()
    assert set(self.stack) <= OPEN, self.stack

  def handle_starttag(self, tag, attrs):
    names = [name for name, _ in attrs]
    assert len(names) == len(set(names)), (tag, names)
    self.tags.append((tag, dict(attrs)))
    if tag not in VOID:
      self.stack.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    while self.stack and self.stack[-1] != tag:
      assert self.stack.pop() in OPEN, tag
    assert self.stack, f'</{tag}> closes nothing'
    self.stack.pop()

  def handle_data(self, data):
    self.text.append(data)

  @property
  def words(self):
    return ' '.join(''.join(self.text).split())


def predictions(classes, per_class=3, seed=0):
  rng = np.random.default_rng(seed)
  labels = np.repeat(np.arange(classes), per_class)
  logits = rng.normal(size=(len(labels), classes))
  logits[np.arange(len(labels)), labels] += 1.0
  names = [f'class {y}/{i}.png' for i, y in enumerate(labels)]
  p = calibration.softmax(logits, 2.0)
  return report.Predictions(names, labels, logits, p)


def image(name):
  return np.full((30, 20, 3), len(name), np.uint8)


def whole(names):
  """A report with all its parts."""
  n, rng = len(names), np.random.default_rng(1)
  view = rng.integers(0, 256, (24, 24, 3), np.uint8)
  row = {'top1': 61.0, 'low': 50.2, 'high': 71.4}
  counts = {
    'images': 9, 'classes': n, 'smallest_class_images': 1,
    'largest_class_images': 3,
  }  # fmt: skip
  return report.Content(
    title='leaves',
    class_names=names,
    verdict=('They can be told apart.', 'Weights of /home/me/w/a.pth.'),
    candidates=[
      row | {'name': 'a', 'title': 'CSDNet', 'chosen': True, 'candidate': True},
      row | {'name': 'k', 'title': 'kNN', 'chosen': False, 'candidate': False},
    ],
    advice='Two more pictures of each would help most.',
    data={
      'parts': {'train': counts}, 'images_of_class': dict.fromkeys(names, 3),
      'groups': 7, 'sizes': {'smallest': [5, 6], 'largest': [7, 8]},
      'unused': {'.CR2': 20}, 'black': ['/home/me/leaves/b.png'],
      'equal_within': [f'{i}.png = {i}b.png' for i in range(12)],
    },
    predictions=predictions(n),
    image=image,
    leaves=[
      report.Leaf('c/1.png', 0, n - 1, 0, view, rng.normal(size=(24, 24)))
    ],
    calibration=calibration.Calibration(2.0, 'Temperature 2.', 5, 9, 1.0, 0.9),
    unknown=unknown.Unknown(
      'nearest', 0.3, 'The threshold is from 90 leaves.', 5, 90, 0.05, 0.91,
      0.6, 0.04,
    ),  # fmt: skip
    records=[
      {'step': 1, 'kind': 'train', 'loss': 2.0, 'train_top1': 10.0},
      {'step': 9, 'kind': 'train', 'loss': 1.0, 'train_top1': 60.0},
      {'step': 9, 'kind': 'test', 'loss': 1.5, 'top1': 40.0},
    ],
    made={'network': 'tiny', 'weights': '/home/me/w/a.pth'},
    card={'intended use': 'names leaves'},
    folders=('/home/me/w', '/home/me/leaves', '/home/me'),
  )  # fmt: skip


def named(n):
  return [f'cultivar_{i:03d}' for i in range(n)]


def test_a_whole_report_says_all_of_it():
  text = page.page(whole(named(3)))
  words = Strict(text).words
  for heading in (
    'What was tried', 'What would help', 'The pictures',
    'Which classes are confused', 'The most confused pairs',
    'What the model looks at', 'Each class', 'Can its probabilities be',
    'Leaves of none of these', 'How the training went', 'How it was made',
    'Model card',
  ):  # fmt: skip
    assert heading in words, heading
  for sentence in (
    '61.0 % of new pictures', '50.2 and 71.4', '7 groups', '20 .CR2',
    'Two more pictures', '12 pictures are there twice', 'and 2 more',
    '1 picture is almost black: b.png', '91.0 %', 'Temperature 2.',
  ):  # fmt: skip
    assert sentence in words, sentence


def test_every_section_says_how_to_read_it():
  text = page.page(whole(named(3)))
  assert len(re.findall('<h2>', text)) == 12
  assert len(re.findall(r'</h2>\n<p class="how">', text)) == 12


def test_it_loads_nothing_runs_nothing_and_tells_no_path():
  text = page.page(whole(named(3)))
  assert "default-src 'none'" in text and 'script' not in text
  text = text.replace('http-equiv', '')
  assert 'http' not in text and '/home' not in text and '://' not in text
  assert 'a.pth' in text
  for _, attrs in Strict(text).tags:
    for name in ('src', 'href'):
      assert attrs.get(name, 'data:').startswith('data:')
    assert not any(name.startswith('on') for name in attrs)


@pytest.mark.parametrize('n', [1, 2, 300])
def test_however_many_classes(n):
  text = page.page(whole(named(n)))
  words = Strict(text).words
  assert f'· {n} class' in words and len(text) < 6e6
  assert ('classes with the fewest mistakes are left out' in words) == (n > 60)


@pytest.mark.parametrize('part', report.Content._fields[2:])
def test_without_an_optional_part_the_others_stand(part):
  default = report.Content._field_defaults[part]
  without = whole(named(3))._replace(**{part: default})
  words = Strict(page.page(without)).words
  assert 'None' not in words and 'nan' not in words.split()


def test_with_nothing_it_says_that_nothing_was_held_out():
  words = Strict(page.page(report.Content('x', ('a', 'b')))).words
  assert 'No picture was held out' in words and 'What was tried' not in words


def test_a_name_is_a_name_whatever_it_holds():
  names = ['<b>"&', "it's", '<script>alert(1)</script>']
  text = page.page(whole(names))
  parsed = Strict(text)
  assert 'script' not in {tag for tag, _ in parsed.tags}
  assert '<b>"&' not in text and '<script>alert' not in text
  assert html.escape('<b>"&', quote=False) in text.replace('&#34;', '"')
  assert '<b>"&' in parsed.words


def test_undecided_pictures_are_mistakes_of_no_class():
  content = whole(named(3))
  p, logits = map(np.array, content.predictions[:1:-1])
  p[0], logits[0] = np.nan, np.nan
  found = content.predictions._replace(probabilities=p, logits=logits)
  words = Strict(page.page(content._replace(predictions=found))).words
  assert 'undecided' in words and 'nan' not in words


def test_the_matrix_counts_every_picture(tmp_path):
  content = whole(named(4))
  shown = page._of_predictions(content)
  assert sum(c['count'] for c in shown['matrix']['cells']) == 12
  assert sum(c['n'] for c in shown['classes']['all']) == 12
  right = sum(c['right'] for c in shown['classes']['all'])
  found = content.predictions
  assert right == np.sum(found.probabilities.argmax(1) == found.labels)
  report.write(tmp_path / 'report.html', content)
  assert (tmp_path / 'report.html').read_text() == page.page(content)


def verdict(names):
  """The whole report of a verdict."""
  return whole(names)._replace(
    folds=5, left_out=('CSDNet is left out.', 'It failed at /data/x/y.'),
    evidence='The places are those of the final model.',
  )  # fmt: skip


def test_the_figure_comes_before_the_sentences():
  words = Strict(page.page(whole(named(3)))).words
  assert words.index('61.0 % of new') < words.index('They can be told apart.')


def test_a_verdict_says_what_its_lines_are_and_what_was_not_tried():
  words = Strict(page.page(verdict(named(3)))).words
  assert 'The dot is what the 5 folds measured' in words
  assert 'overlap' not in words
  tried = words[words.index('What was tried') : words.index('What would help')]
  assert tried.endswith('CSDNet is left out. It failed at y. ')
  assert 'The places are those of the final model.' in words
  single = Strict(page.page(whole(named(3)))).words
  assert 'lines overlap much' in single and 'folds' not in single


def test_of_folds_it_speaks_of_folds():
  figures = {'equal_across': ['a.png = b.png'], 'stems_across': ['a', 'b']}
  content = verdict(named(3))._replace(data=figures)
  words = Strict(page.page(content)).words
  assert '1 picture is equal and in several folds' in words
  assert 'sides of' not in words
  one = content._replace(data={'stems_across': ['a']})
  words = Strict(page.page(one)).words
  assert 'flatters the figures if that is so' in words


def test_the_caption_names_an_outline_where_there_is_one():
  assert '(red, outlined)' in Strict(page.page(whole(named(24)))).words
  assert '(red). Classes' in Strict(page.page(whole(named(25)))).words


def test_a_class_without_a_picture_was_never_tested():
  content = whole((*named(3), 'single'))
  found = content.predictions
  rows = found.labels < 3
  tested = report.Predictions(
    found.names[:9], found.labels[rows], found.logits[rows],
    found.probabilities[rows],
  )  # fmt: skip
  words = Strict(page.page(content._replace(predictions=tested))).words
  assert 'single never tested' in words and '0 of 0' not in words


def test_a_loss_below_zero_stays_in_its_plot():
  for losses in ((-3.0, 1.0), (-3.0, -1.0), (0.0, 0.0), (2.0, 1.0)):
    of_kind = {'train': list(enumerate(losses))}
    plot = page._plot('loss', of_kind)
    heights = [y for line in plot['lines'] for _, y in line['points']]
    assert all(0 <= y <= 1 for y in heights)
    assert plot['bottom'] <= min(losses) and max(losses) <= plot['top']


def test_a_class_that_looks_like_a_path_keeps_its_name():
  name = 'B/C /x/y'
  content = whole((name, '/data/z', 'c'))._replace(
    verdict=(f'Never tested: {name}.',), advice=f'More pictures of {name}.',
    data={'copies': [f'{name} of c: all']},
  )  # fmt: skip
  words = Strict(page.page(content)).words
  for kept in ('Never tested: B/C /x/y.', 'More pictures of B/C /x/y.',
               'B/C /x/y of c', '/data/z'):  # fmt: skip
    assert kept in words


@pytest.mark.parametrize('text', [
  r'C:\Users\Jane Doe\leaves\a.png', r'\\host\share\Jane Doe\a.png',
  '/home/Jane Doe/a.png', 'root:/home/Jane/a.png', '/home/a.png', '/a.png',
  '~/Jane/a.png', 'file:///home/Jane/a.png', '/Users/Jane Doe/x.y/a.png',
])  # fmt: skip
def test_no_folder_is_told(text):
  found = said.without_paths(f'It is from {text}, 3/4 of 5.')
  assert found.endswith('a.png, 3/4 of 5.')
  for part in ('Jane', 'home', 'Users', 'host', '\\', ' /'):
    assert part not in found


def test_known_folders_go_whatever_their_names():
  folders = ('/mnt/my, own: leaves', '/mnt')
  found = said.without(folders, 'at /mnt/my, own: leaves/B/a.png; /mnt2/x')
  assert found == 'at B/a.png; /mnt2/x'


@pytest.mark.slow
@pytest.mark.parametrize('n', [1, 3, 300])
def test_on_a_phone(browser, tmp_path, n):
  names = [f'{name}_{"verylongname" * 8}' for name in named(n)]
  report.write(tmp_path / 'report.html', whole(names))
  shown = browser.new_page(viewport={'width': 360, 'height': 740})
  asked, problems = [], []
  shown.on('request', lambda request: asked.append(request.url))
  shown.on('console', lambda message: problems.append(message.text))
  shown.on('pageerror', lambda error: problems.append(str(error)))
  shown.goto((tmp_path / 'report.html').as_uri())
  assert shown.evaluate('document.documentElement.scrollWidth') == 360
  loaded = 'all => all.every(i => i.complete && i.naturalWidth > 0)'
  assert shown.locator('img').evaluate_all(loaded)
  assert not problems
  others = [url for url in asked if not url.startswith('data:')]
  assert others == [(tmp_path / 'report.html').as_uri()]
