"""A table of images is a data set like a folder, or a sentence says why not."""

import os
import unicodedata

import pytest

from csdnet_jax.data import folders
from csdnet_jax.data.images import tables
from csdnet_jax.runtime.errors import UserError

import images

NAMES = ('a/1.png', 'a/2.png', 'b/1.png', 'b/2.png')
ROWS = 'a/1.png,ash\na/2.png,ash\nb/1.png,oak\nb/2.png,oak\n'


@pytest.fixture
def root(tmp_path):
  for i, name in enumerate(NAMES):
    images.write(tmp_path / 'set' / name, images.encode(images.pixels(i)))
  return tmp_path / 'set'


def opened(root, text, name='t.csv', **fields):
  data = text if isinstance(text, bytes) else text.encode()
  return tables.open_table(
    images.write(root.parent / name, data), root, **fields
  )


def refused(root, text, match, name='t.csv'):
  with pytest.raises(UserError, match=match) as e:
    opened(root, text, name)
  assert '\n' not in str(e.value)


def test_a_table_names_the_images_and_the_program_splits(root):
  fields = {'root': root, 'table': root.parent / 't.csv'}
  images.write(fields['table'], f'path,label\n{ROWS}'.encode())
  dataset = images.load(root, table=str(fields['table']))
  assert dataset.name == 'set' and dataset.class_names == ('ash', 'oak')
  assert len(dataset.train.names) == len(dataset.test.names) == 2
  assert dict(dataset.groups) == {} and dataset.unused == ()
  name = dataset.test.names[0]
  assert dataset.test.read(0) == (root / name).read_bytes()


@pytest.mark.parametrize(
  ('text', 'name'),
  [
    ('Label\tnotes\tPATH\n' + '\n'.join(
      f'{"ash" if n[0] == "a" else "oak"}\tx, "y"\t{n}' for n in NAMES
    ), 't.TSV'),
    ('path;label\n' + ROWS.replace(',', ';'), 't.csv'),
    ('path\tlabel\n' + ROWS.replace(',', '\t'), 'table.txt'),
    ('\ufeff"path","label"\r\n' + ROWS.replace('\n', '\r\n'), 't.csv'),
    ('path,label,\n\n' + ROWS.replace('\n', ',\n,,\n'), 't.csv'),
    ('path,label\n' + ROWS.replace('/', '\\'), 't.csv'),
    ('path,label\n' + ROWS.replace('b/', './a/../b/'), 't.csv'),
  ],
  ids=['tsv', 'semicolons', 'sniffed', 'mark', 'blanks', 'windows', 'dots'],
)  # fmt: skip
def test_tables_as_programs_write_them(root, text, name):
  dataset = opened(root, text, name)
  assert dataset.train.names == NAMES
  assert dataset.train.labels.tolist() == [0, 0, 1, 1]
  assert dataset.class_names == ('ash', 'oak')


def test_a_part_and_a_group_come_with_the_table(root):
  text = (
    'path,label,group,part,plot\n'
    'a/1.png,ash,tree 1,Training,N\na/2.png,ash,tree 1,valid,N\n'
    'b/1.png,oak,tree 2,TRAIN,S\nb/2.png,oak,,Testing,S\n'
  )
  dataset = opened(root, text)
  assert dataset.train.names == ('a/1.png', 'b/1.png')
  assert dataset.val.names == ('a/2.png',)
  assert dataset.test.names == ('b/2.png',)
  assert dataset.groups == {
    'a/1.png': 'tree 1', 'a/2.png': 'tree 1', 'b/1.png': 'tree 2'
  }  # fmt: skip
  assert '1 row of t.csv is without a group' in dataset.notes[0]
  by_plot = opened(root, text, group='Plot').groups
  assert set(by_plot.values()) == {'N', 'S'}
  assert opened(root, text, group='stem').groups == {}


def test_a_val_part_tests_where_there_is_no_other(root):
  text = f'path,label,part\n{ROWS}'.replace('ash\n', 'ash,train\n', 1)
  text = text.replace('oak\n', 'oak,train\n', 1)
  text = text.replace('ash\n', 'ash,dev\n').replace('oak\n', 'oak,dev\n')
  dataset = opened(root, text)
  assert dataset.val is None and dataset.test.names == ('a/2.png', 'b/2.png')
  assert 'validation part is the test part' in dataset.notes[0]


def test_what_the_table_does_not_name_is_counted(root):
  for i in range(2):
    images.write(root / f'c/{i}.png', b'x')
  images.write(root / 'notes.txt', b'x')
  dataset = opened(root, f'path,label\n{ROWS}', 'set/t.csv')
  assert folders.said(dataset.unused) == (
    'not used: 2 images that the table does not name (c/0.png, c/1.png), '
    '1 of unknown kind (notes.txt)'
  )


def test_the_root_is_the_tables_folder_unless_said(root, monkeypatch):
  images.write(root / 't.csv', f'path,label\n{ROWS}'.encode())
  assert tables.open_table(root / 't.csv').train.names == NAMES
  monkeypatch.setenv('HOME', str(root))
  assert tables.open_table('~/t.csv').train.names == NAMES
  monkeypatch.chdir(root.parent)
  assert tables.open_table('set/t.csv', '~').train.names == NAMES


def test_paths_may_be_absolute_where_they_lie_in_the_root(root):
  (root.parent / 'again').symlink_to(root)
  (root / 'a/2.png').rename(root / 'c.png')
  (root / 'a/2.png').symlink_to(root / 'c.png')
  for given in (root, root.parent / 'again', root / 'b' / '..'):
    rows = ''.join(f'{given}/{row}\n' for row in ROWS.splitlines())
    dataset = opened(given, f'path,label\n{rows}{given}/c.png,oak\n')
    assert dataset.train.names == (*NAMES, 'c.png')
  for other in (f'{root}/../t.csv', f'{root}x/a/1.png', '/a/1.png'):
    refused(root, f'path,label\n{ROWS}{other},oak\n', 'names images outside')


def test_names_with_quotes_newlines_and_other_scripts(root):
  odd = [
    'a/say "hi".png',
    'a/two\nlines.png',
    'b/лист, 叶.png',
    'b/caf\u00e9.png',
  ]
  on_disk = [*odd[:3], unicodedata.normalize('NFD', odd[3])]
  for i, name in enumerate(on_disk):
    images.write(root / name, images.encode(images.pixels(9 + i)))
  rows = ''.join(
    '"{}",{}\n'.format(n.replace('"', '""'), 'ash' if n[0] == 'a' else 'oak')
    for n in odd
  )
  dataset = opened(root, f'path,label\n{rows}')
  assert dataset.train.names == tuple(on_disk)
  assert [dataset.train.read(i)[:4] for i in range(4)] == [b'\x89PNG'] * 4


def test_class_names_are_compared_in_one_form(root):
  text = f'path,label\n{ROWS}'.replace('ash', 'caf\u00e9', 1)
  text = text.replace('ash', 'cafe\u0301').replace('oak', 'Oak', 1)
  dataset = opened(root, text)
  assert dataset.class_names == ('Oak', 'caf\u00e9', 'oak')
  joined, by_case = dataset.notes
  assert joined.endswith("joined: 'cafe\\u0301', 'caf\\xe9' as caf\u00e9")
  assert by_case.endswith('stay apart: Oak, oak')


def test_a_file_is_read_whatever_its_extension(root):
  (root / 'a/1.png').rename(root / 'a/1.upload')
  dataset = opened(root, f'path,label\n{ROWS}'.replace('a/1.png', 'a/1.upload'))
  assert dataset.train.names[0] == 'a/1.upload' and dataset.unused == ()


@pytest.mark.parametrize(
  ('text', 'match'),
  [
    ('', 'first line is empty'),
    (ROWS, 'no columns path and label; its first line is a/1.png, ash'),
    ('file,label\n' + ROWS, 'first line is file, label'),
    ('path,label,Path\na/1.png,ash,x\n', r'several columns path'),
    ('path,label\n', 'no rows'),
    ('path,label\na/1.png,\n,oak\n', 'line 2 has no label, line 3 has no path'),
    ('path,label\na, b.png,ash\n', 'line 2 has 3 cells for 2 columns'),
    ('path,label\n"a/1.png,ash\n', r'Line 2 of .*t\.csv is no row'),
    ('path,label\n' + ROWS + 'b/3.png,oak\n', r'not in .*\(b/3\.png\)'),
    ('path,label\n' + ROWS + '../t.csv,oak\n', r'outside .*\(\.\./t\.csv\)'),
    ('path,label\n' + ROWS + '..\\t.csv,oak\n', r'outside .*\(\.\./t\.csv\)'),
    ('path,label\n' + ROWS + '/etc/passwd,oak\n', r'outside .*/etc/passwd'),
    ('path,label\n' + ROWS + 'a/1.png,oak\n',
     r'twice \(a/1\.png in lines 2, 6 as ash and oak\)'),
    ('path,label\n' + ROWS + './b/2.png,oak\n',
     r'b/2\.png in lines 5, 6 as oak'),
    ('path,label\na/1.png,ash\na/2.png,ash\n', r'1 class \(ash\)'),
    ('path,label,part\na/1.png,ash,train\nb/1.png,oak,holdout\nb/2.png,oak,\n',
     'line 3: holdout, line 4: nothing'),
    ('path,label,part\na/1.png,ash,train\nb/1.png,oak,train\n',
     'part train but none of test'),
    ('path,label,part\na/1.png,ash,val\nb/1.png,oak,test\n',
     'part val and test but none of train'),
    ('path,label,part\na/1.png,ash,train\nb/1.png,oak,test\n',
     r'no training image \(oak\)'),
  ],
)  # fmt: skip
def test_what_is_wrong_with_a_table_is_a_sentence(root, text, match):
  refused(root, text, match)


@pytest.mark.parametrize(
  'data',
  [
    'path,label\na/1.png,h\u00eatre\n'.encode('cp1252'),
    'path\tlabel\na/1.png\tash\n'.encode('utf-16'),
    'path\tlabel\na/1.png\tash\n'.encode('utf-16-le'),
    b'PK\x03\x04\x14\x00\x06\x00',  # A workbook.
  ],
)
def test_another_encoding_says_how_to_save_it(root, data):
  refused(root, data, 'not UTF-8 text; save it anew .in Excel.*CSV UTF-8')


def test_what_is_no_file_never_hangs(root):
  os.mkfifo(root.parent / 'pipe.csv')
  os.mkfifo(root / 'a/pipe.png')
  for table in ('pipe.csv', 'set', 'absent.csv'):
    with pytest.raises(UserError, match=f'{table} is no file'):
      tables.open_table(root.parent / table, root)
  refused(root, f'path,label\n{ROWS}a/pipe.png,ash\n', r'not in .*pipe\.png')
  dataset = opened(root, f'path,label\n{ROWS}')
  assert folders.counts(dataset.unused) == {'pipes, sockets or devices': 1}


def test_other_sources_do_not_read_a_table(root):
  with pytest.raises(UserError, match=r"not read by the source 'leaves'"):
    images.load('', source='leaves', table='t.csv')
