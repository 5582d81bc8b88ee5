"""Two processes over loopback train what one does."""

import socket

import chex
import numpy as np
import pytest

import command
import runs

pytestmark = pytest.mark.slow


def _args(workdir, cache):
  # Adam divides rounding errors by their own size where a gradient vanishes.
  fields = {'data.cache': cache, 'epochs': 2.0, 'optim.name': 'sgd'}
  return *command.flags(**fields), f'--workdir={workdir}'


def _port():
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


def test_two_processes_equal_one(tmp_path):
  status, output = command.run(*_args(tmp_path / 'one', tmp_path / 'cache'))
  assert status == 0, output
  address = f'127.0.0.1:{_port()}'
  processes = [
    command.start(
      *_args(tmp_path / 'two', tmp_path / 'cache'),
      '--distributed',
      env={
        'JAX_COORDINATOR_ADDRESS': address,
        'JAX_NUM_PROCESSES': '2',
        'JAX_PROCESS_ID': str(i),
      },
    )
    for i in range(2)
  ]
  outputs = [p.communicate(timeout=600)[0] for p in processes]
  assert [p.returncode for p in processes] == [0, 0], outputs
  # Process 0 speaks, the other keeps silent.
  assert 'Everything is in' in outputs[0]
  assert 'Everything is in' not in outputs[1]
  one = runs.saved_state(tmp_path / 'one')
  two = runs.saved_state(tmp_path / 'two')
  for name in ('labels', 'ids', 'ptr', 'count'):
    np.testing.assert_array_equal(
      getattr(one.memory, name), getattr(two.memory, name)
    )
  chex.assert_trees_all_close(one.memory.keys, two.memory.keys, atol=1e-5)
  chex.assert_trees_all_close(one.params, two.params, atol=1e-5)
  for name in ('split.json', 'config.json'):
    one_text = (tmp_path / 'one' / name).read_text()
    assert one_text == (tmp_path / 'two' / name).read_text()
