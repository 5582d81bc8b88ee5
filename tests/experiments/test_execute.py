"""A point in a process of its own."""

import types

from experiments import execute


def test_ctrl_c_of_a_terminal_is_no_failure(tmp_path):
  # It reaches the point as well, which may end before it is told to.
  came = tmp_path / 'came'
  point = types.SimpleNamespace(
    name='p', command=lambda *_: ['sh', '-c', f'touch {came}; exit 2']
  )
  assert execute.execute(point, tmp_path, lambda: False) == execute.FAILED
  came.unlink()
  assert execute.execute(point, tmp_path, came.exists) == execute.STOPPED
