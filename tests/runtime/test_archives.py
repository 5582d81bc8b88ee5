"""Arrays come back as they were, or a sentence says why not."""

import numpy as np
import pytest

from csdnet_jax.runtime import archives
from csdnet_jax.runtime.errors import UserError


def test_what_is_written_is_read(tmp_path):
  path, values = tmp_path / 'a.npz', np.arange(3)
  archives.write(path, {'values': values, 'names': np.array(['a', 'été'])})
  found = archives.read(path, dict, 'remove it.')
  np.testing.assert_array_equal(found['values'], values)
  assert found['names'].tolist() == ['a', 'été']
  assert [file.name for file in tmp_path.iterdir()] == ['a.npz']


@pytest.mark.parametrize('data', [b'', b'half', None])
def test_what_is_none_ends_in_a_sentence(tmp_path, data):
  path = tmp_path / 'a.npz'
  if data is not None:
    path.write_bytes(data)
  with pytest.raises(UserError, match=r'a.npz cannot be read .*; remove it.$'):
    archives.read(path, dict, 'remove it.')


def test_nothing_is_unpickled(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez(path, code=np.array([object()], object))
  with pytest.raises(UserError, match='cannot be read'):
    archives.read(path, lambda file: file['code'], 'remove it.')
