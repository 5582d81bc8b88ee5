"""Data sets by the name of their source, ours and others', and from arrays."""

import sys

import numpy as np
import pytest

from csdnet_jax.data import sources
from csdnet_jax.data.images import splits
from csdnet_jax.data.images.saved import split_to_json
from csdnet_jax.runtime import fields
from csdnet_jax.runtime.errors import UserError

import images
from images import load

TRAIN = {'a/1.png': 1, 'a/2.png': 1, 'b/1.png': 2, 'b/2.png': 2}
TEST = {'a/3.png': 1, 'b/3.png': 2}


def names_of(dataset):
  return {p: s.names for p, s in splits.parts_of(dataset).items()}


def refused(root, match, **fields):
  with pytest.raises(UserError, match=match) as e:
    load(root, **fields)
  assert '\n' not in str(e.value)


# The embedded set and the cache.


@pytest.fixture
def drawing(monkeypatch):
  """Stands in for the drawing program, which has its own tests."""
  from csdnet_jax.data import leaves

  drawn = []

  def write(root, **traits):
    drawn.append(traits)
    images.ufg_layout(root, TRAIN, TEST)

  monkeypatch.setattr(leaves, 'write', write, raising=False)
  return drawn


def test_embedded_set_is_drawn_once(tmp_path, drawing):
  traits = {'cultivars': 2, 'seed': 3}
  fields = {'source': 'leaves', 'leaves': traits, 'cache': str(tmp_path)}
  first, again = load('', **fields), load('', **fields)
  assert first.name == 'leaves' and names_of(first) == names_of(again)
  assert drawing == [traits]
  load('', **{**fields, 'leaves': {'cultivars': 2, 'seed': 4}})
  assert len(drawing) == 2
  assert not [p for p in tmp_path.iterdir() if p.name.startswith('.')]


def test_interrupted_drawing_leaves_nothing(tmp_path, drawing, monkeypatch):
  from csdnet_jax.data import leaves

  fields = {'source': 'leaves', 'cache': str(tmp_path)}
  with monkeypatch.context() as m:
    m.setattr(leaves, 'write', lambda root: root.mkdir() or 1 / 0)
    with pytest.raises(ZeroDivisionError):
      load('', **fields)
  assert not list(tmp_path.iterdir())
  assert load('', **fields).train.names == tuple(TRAIN)


def test_another_process_may_draw_first(tmp_path, drawing, monkeypatch):
  from csdnet_jax.data import leaves

  fields = {'source': 'leaves', 'cache': str(tmp_path)}

  def write(root):
    monkeypatch.setattr(leaves, 'write', other)
    load('', **fields)
    images.ufg_layout(root, TRAIN, TEST)

  other = leaves.write
  monkeypatch.setattr(leaves, 'write', write)
  assert load('', **fields).train.names == tuple(TRAIN)
  assert drawing == [{}]


def test_cache_folder_that_cannot_be_written(tmp_path, drawing):
  file = images.write(tmp_path / 'file', b'x')
  refused('', 'config.data.cache', source='leaves', cache=str(file))


# ------------------------------------------------------------- whose they are


def test_a_source_of_the_other_task_or_of_none_is_a_sentence(tmp_path):
  refused('', "'pairs', for segmentation; of .*'folder'", source='pairs')
  refused('', "'web': neither one of folder", source='web')
  refused('', 'Did you mean "folder"', source='foldr')
  refused('', 'were in memory', source='arrays')
  data = images.data_config(source='leaves')
  with pytest.raises(UserError, match="for classification; of .*'cityscapes'"):
    sources.load_masks(data)


def test_the_embedded_set_has_the_fields_of_its_program():
  import inspect

  from csdnet_jax.data import leaves

  drawn = inspect.signature(leaves.write).parameters
  asked = fields.defaults(sources.find('leaves').fields)
  assert asked == {name: drawn[name].default for name in list(drawn)[1:]}


MODULE = """
import numpy as np
from csdnet_jax.data.images.splits import Dataset, Split
from images import encode, pixels
from csdnet_jax.data.sources import SourceSpec
from csdnet_jax.runtime.fields import Field

def load(data):
  n = data.made_leaves.each
  names = [f'{c}/{i}' for c in 'ab' for i in range(n)]
  read = lambda i: encode(pixels(i))
  return Dataset('made', ('a', 'b'), Split(names, [0] * n + [1] * n, read))

SPEC = SourceSpec(load, {'each': Field(4, low=1)})
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
  """A folder on the path; what is imported from it is forgotten."""
  monkeypatch.syspath_prepend(tmp_path)
  before = set(sys.modules)
  yield tmp_path
  for name in sys.modules.keys() - before:
    del sys.modules[name]


@pytest.mark.parametrize('name', ['made_leaves', 'made.made_leaves'])
def test_a_source_may_come_from_outside(outside, name):
  path = outside / f'{name.replace(".", "/")}.py'
  images.write(path, MODULE.encode())
  assert fields.defaults(sources.find(name).fields) == {'each': 4}
  asked = {'source': name, 'made_leaves': {'each': 6}}
  dataset = load('', **asked, val_fraction=0.3)
  sizes = {p: len(s.names) for p, s in splits.parts_of(dataset).items()}
  assert sizes == {'train': 4, 'val': 2, 'test': 6}
  for split in splits.parts_of(dataset).values():
    assert split.labels.dtype == np.int32
    assert split.read(1).startswith(b'\x89PNG')
  saved = split_to_json(dataset)
  assert names_of(load('', split=saved, **asked)) == names_of(dataset)


@pytest.mark.parametrize(
  'wrong,match',
  [
    (('[0] * n + [1] * n', '[0] * n + [2] * n'), r'outside its 2 .*\(2\)'),
    (('[0] * n + [1] * n', '[0] * n'), 'has 8 names, and labels'),
    (('[0] * n + [1] * n', '[0] * 2 * n'), r'no training image \(b\)'),
    (("f'{c}/{i}'", "f'{i}'"), 'same name'),
    (("('a', 'b')", "('a',)"), 'has 1 class'),
    (('return Dataset(', 'return ('), 'returned a tuple; .*splits.Dataset'),
    (('SPEC', 'WHAT'), 'defines no SPEC'),
    (('import numpy', 'import absent'), 'importing that module failed'),
  ],
)
def test_what_is_wrong_with_one_from_outside(outside, wrong, match):
  images.write(outside / 'made_leaves.py', MODULE.replace(*wrong).encode())
  refused('', match, source='made_leaves', made_leaves={'each': 4})
