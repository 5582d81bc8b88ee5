"""Two processes over loopback train what one does."""

import re
import socket

import chex
import numpy as np
import pytest

import command
import runs

pytestmark = pytest.mark.slow


def _args(workdir, cache, **fields):
  # Both would enlarge rounding errors: Adam divides them by their own size
  # where a gradient vanishes, SSDP's ranks swap two pixels that almost tie.
  fields = {
    'data.cache': cache, 'epochs': 2.0, 'optim.name': 'sgd',
    'method.csdnet.mode': 'views',
  } | fields  # fmt: skip
  return *command.flags(**fields), f'--workdir={workdir}'


def _port():
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


def _start_two(*args):
  address = f'127.0.0.1:{_port()}'
  return [
    command.start(
      *args,
      '--distributed',
      env={
        'JAX_COORDINATOR_ADDRESS': address,
        'JAX_NUM_PROCESSES': '2',
        'JAX_PROCESS_ID': str(i),
      },
    )
    for i in range(2)
  ]


def _finish(processes):
  outputs = [p.communicate(timeout=600)[0] for p in processes]
  assert [p.returncode for p in processes] == [0, 0], outputs
  return outputs


def test_two_processes_equal_one(tmp_path):
  status, output = command.run(*_args(tmp_path / 'one', tmp_path / 'cache'))
  assert status == 0, output
  outputs = _finish(_start_two(*_args(tmp_path / 'two', tmp_path / 'cache')))
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


def test_sigterm_to_one_process_makes_all_save_the_same_step(tmp_path):
  fields = {'epochs': 60.0, 'eval_every': 30.0, 'save_every': 50}
  unbroken = _args(tmp_path / 'unbroken', tmp_path / 'cache', **fields)
  _finish(_start_two(*unbroken))
  args = _args(tmp_path / 'two', tmp_path / 'cache', **fields)
  processes = _start_two(*args)
  command.kill_when(
    processes[1], tmp_path / 'two' / 'metrics.jsonl', '"step": 3,',
    command.terminate,
  )  # fmt: skip
  outputs = _finish(processes)
  stopped = re.search(r'saved at step (\d+) of 180', outputs[0])
  assert stopped and 'the same command continues' in outputs[0]
  checkpoints = tmp_path / 'two' / 'checkpoints'
  assert (checkpoints / stopped[1] / 'commit_success.txt').exists()
  outputs = _finish(_start_two(*args))
  assert f'Continuing from step {stopped[1]}' in outputs[0]
  chex.assert_trees_all_equal(
    runs.saved_state(tmp_path / 'two'), runs.saved_state(tmp_path / 'unbroken')
  )
