"""A run knows its images by their content where no table names them."""

import pytest

from csdnet_jax.data.images import saved
from csdnet_jax.runtime.errors import UserError

import images


@pytest.fixture
def begun(tmp_path):
  """(root, table, split) of a run whose table is gone, a and b one picture."""
  root, table = tmp_path / 'set', tmp_path / 'key.csv'
  for seed, name in enumerate(['a', '0', '1', '2', '3', 'b']):
    picture = images.encode(images.pixels(seed % 5))
    images.write(root / f'{name}.upload', picture)
  rows = (
    'path,label,part\na.upload,ash,train\nb.upload,oak,train\n'
    '0.upload,ash,train\n1.upload,oak,train\n'
    '2.upload,ash,test\n3.upload,oak,test\n'
  )
  images.write(table, rows.encode())
  split = saved.split_to_json(images.load(root, table=str(table)))
  table.unlink()
  return root, str(table), split


def test_files_of_any_extension_are_known_where_they_were(begun):
  root, table, split = begun
  again = images.load(root, split, table=table)
  assert saved.split_to_json(again) == split
  assert again.class_names == ('ash', 'oak') and again.unused == ()


@pytest.mark.parametrize(
  'names', [{'b': '0b.png', 'a': 'z.png'}, {'a': 'z.png'}, {'b': '0b.png'}]
)
def test_equal_pictures_of_two_classes_keep_their_labels(begun, names):
  root, table, split = begun
  for old, new in names.items():
    (root / f'{old}.upload').rename(root / new)
  again = images.load(root, split, table=table)
  assert again.train.labels.tolist() == list(split['train'].values())


def test_what_is_gone_is_named(begun):
  root, table, split = begun
  (root / '2.upload').unlink()
  with pytest.raises(UserError, match=r'1 are missing \(2\.upload\)'):
    images.load(root, split, table=table)
  images.write(root / '2.upload', images.encode(images.pixels(99)))
  with pytest.raises(
    UserError, match=r'1 are other pictures now \(2\.upload\)'
  ):
    images.load(root, split, table=table)


def test_names_of_a_split_lead_out_of_no_root(begun):
  root, table, split = begun
  (root / '2.upload').rename(root.parent / '2.upload')
  split['test'] = {'../2.upload': 0, '3.upload': 1}
  split['digests']['../2.upload'] = split['digests'].pop('2.upload')
  with pytest.raises(UserError, match='1 are missing'):
    images.load(root, split, table=table)
