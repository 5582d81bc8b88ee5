"""The table of the photographs, and what may be wrong with it."""

import pytest

from csdnet_jax.data.photographs import key
from csdnet_jax.runtime.errors import UserError


def _table(tmp_path, text, encoding='utf-8'):
  path = tmp_path / 'key.txt'
  path.write_bytes(text.encode(encoding))
  return path


@pytest.mark.parametrize('separator', [',', '\t', ';'])
@pytest.mark.parametrize(
  'names', [('photograph', 'label'), ('image', 'variety'), ('Image', 'Label ')]
)
def test_columns_are_found_by_name(separator, names, tmp_path):
  rows = [('n', *names), ('1', 'a.jpg', 'ash'), ('2', 'b', 'oak')]
  text = ''.join(separator.join(row) + '\r\n' for row in rows)
  read = key.read(_table(tmp_path, text + '\r\n', 'utf-8-sig'))
  assert read == {'a.jpg': 'ash', 'b': 'oak'}


def test_rows_of_a_photograph_may_repeat(tmp_path):
  text = 'photograph,label\na,ash\nb,oak\na, ash \n'
  assert key.read(_table(tmp_path, text)) == {'a': 'ash', 'b': 'oak'}


def test_labels_are_of_one_unicode_form(tmp_path):
  text = 'photograph,label\na,Aligote\u0301\nb,Aligot\u00e9\n'
  assert set(key.read(_table(tmp_path, text)).values()) == {'Aligot\u00e9'}


def test_an_encoding_can_be_named(tmp_path):
  path = _table(tmp_path, 'image,variety\na,Müller-Thurgau\n', 'mac_roman')
  assert key.read(path, 'mac_roman') == {'a': 'Müller-Thurgau'}
  with pytest.raises(UserError) as error:
    key.read(path)
  for word in ('not utf-8 text', 'CSV UTF-8', '--encoding=mac_roman'):
    assert word in str(error.value)


@pytest.mark.parametrize('encoding', ['klingon', 'zlib', 'rot13', ''])
def test_an_encoding_that_is_none_is_a_sentence(encoding, tmp_path):
  path = _table(tmp_path, 'image,variety\na,ash\n')
  with pytest.raises(UserError, match='no text encoding'):
    key.read(path, encoding)


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('', ['no rows', 'photograph,label']),
    ('photograph,label\n', ['no rows']),
    ('name,label\na,ash\n', ['no columns photograph or image', 'name, label']),
    ('image,photograph,label\na,a,ash\n', ['2 columns photograph or image']),
    ('photograph\na\n', ['no columns label or variety']),
    ('photograph,label\na\n', ['Line 2', 'no label']),
    ('photograph,label\na,ash\n,oak\n', ['Line 3', 'no photograph']),
    ('photograph,label\na,ash\na,oak\n', ["both 'ash' and 'oak'", 'line 3']),
    ('photograph,label\na,../ash\n', ['Line 2', "'../ash'", 'slashes']),
    ('photograph,label\na,.ash\n', ["'.ash'"]),
    ('photograph,label\na,Train\n', ["'Train'"]),
    ('photograph,label\na,valid\n', ["'valid'"]),
    ('photograph,label\na,"a\nsh"\n', ["'a\\nsh'"]),
    (f'photograph,label\na,{"x" * 300}\n', ['cannot name a folder']),
    (f'photograph,label\na,{"x" * 200_000}\n', ['is no table']),
  ],
)
def test_a_bad_table_is_a_sentence(text, words, tmp_path):
  with pytest.raises(UserError) as error:
    key.read(_table(tmp_path, text))
  assert '\n' not in str(error.value)
  for word in words:
    assert word in str(error.value)


def test_an_absent_table_is_a_sentence(tmp_path):
  with pytest.raises(UserError, match='No such file'):
    key.read(tmp_path / 'none.csv')
  with pytest.raises(UserError, match='cannot be read'):
    key.read(tmp_path)


def test_photographs_are_matched_by_path_name_or_stem():
  labels = {'x/a.jpg': 'ash', 'b.JPG': 'oak', 'C': 'elm', 'd': 'yew'}
  photographs = ['x/a.jpg', 'y/a.jpg', 'y/b.jpg', 'c.png', 'e.png']
  found, without = key.match(labels, photographs)
  assert found == {'x/a.jpg': 'ash', 'y/b.jpg': 'oak', 'c.png': 'elm'}
  assert without == ['d']


def test_a_row_that_may_mean_two_photographs_is_refused():
  with pytest.raises(UserError, match='a: x/a.jpg, y/a.png'):
    key.match({'a': 'ash'}, ['x/a.jpg', 'y/a.png'])
