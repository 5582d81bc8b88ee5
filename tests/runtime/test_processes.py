"""Two processes over loopback train what one does, and stop as one."""

import shutil
import signal
import socket
import types

import chex
import jax
import numpy as np
import pytest

from csdnet_jax import sharding
from csdnet_jax.runtime import processes
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.writers import read_records

import command
import runs


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


def _start_two(*args, homes=(None, None), devices=1):
  """Starts two processes; `args` are those of each, `homes` their ~."""
  address = f'127.0.0.1:{_port()}'
  return [
    command.start(
      *args[i],
      '--distributed',
      env={
        'JAX_COORDINATOR_ADDRESS': address,
        'JAX_NUM_PROCESSES': '2',
        'JAX_PROCESS_ID': str(i),
        'JAX_NUM_CPU_DEVICES': str(devices),
      }
      | ({'HOME': str(homes[i])} if homes[i] else {}),
    )
    for i in range(2)
  ]


def _wait(both):
  """Returns the exit statuses and the outputs; no process may hang."""
  outputs = [p.communicate(timeout=600)[0] for p in both]
  return [p.returncode for p in both], outputs


@pytest.mark.parametrize('given', [[0], [1], [2], [0, 1], [0, 2], [1, 2]])
def test_incomplete_variables_are_named(given, monkeypatch):
  names = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
  for i, name in enumerate(names):
    monkeypatch.delenv(name, raising=False)
    if i in given:
      monkeypatch.setenv(name, '1')
  absent = ' and '.join(n for i, n in enumerate(names) if i not in given)
  with pytest.raises(UserError, match=f'{absent} is not'):
    processes.join()


def test_devices_stand_process_by_process():
  # A TPU's mesh by place interleaves the hosts; rows are fed in this order.
  places = [(1, 5), (0, 2), (1, 4), (0, 3)]
  devices = [types.SimpleNamespace(process_index=p, id=i) for p, i in places]
  assert [d.id for d in sharding.in_order(devices)] == [2, 3, 4, 5]
  mesh = sharding.make_mesh(jax.devices()[::-1])
  assert mesh.devices.tolist() == jax.devices()


def test_a_problem_of_the_only_process_is_raised_as_it_is():
  with pytest.raises(OSError, match='full'), processes.collective():
    raise OSError('full')
  with processes.collective():
    pass


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
  status, output = command.run(*_args(tmp_path / 'one', tmp_path / 'cache'))
  assert status == 0, output
  args = _args(tmp_path / 'two', tmp_path / 'cache')
  statuses, outputs = _wait(_start_two(args, args))
  assert statuses == [0, 0], outputs
  # Process 0 speaks, the other keeps silent.
  assert 'Everything is in' in outputs[0]
  assert 'Everything is in' not in outputs[1]
  assert not list((tmp_path / 'two').glob('.shared*'))
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


@pytest.mark.slow
def test_workdirs_that_differ_stop_both_in_a_sentence(tmp_path):
  both = _start_two(
    *(_args(tmp_path / name, tmp_path / 'cache') for name in ('here', 'there'))
  )
  statuses, outputs = _wait(both)
  assert statuses == [2, 2], outputs
  assert 'Process 1 has stopped, and this one with it' in outputs[0]
  assert 'Process 1 does not see what process 0 writes' in outputs[1]
  assert 'Traceback' not in outputs[0] + outputs[1]


@pytest.mark.slow
def test_what_stops_the_first_stops_the_other(tmp_path):
  (tmp_path / 'file').write_text('')
  args = _args(tmp_path / 'file', tmp_path / 'cache')
  statuses, outputs = _wait(_start_two(args, args))
  assert statuses == [2, 2], outputs
  assert 'cannot be written' in outputs[0]
  assert 'Process 0 has stopped' in outputs[1]


@pytest.mark.slow
def test_weights_that_one_host_lacks_stop_both(trained, tmp_path):
  shutil.copytree(trained, tmp_path / 'here' / 'run')
  args = _args(tmp_path / 'run', tmp_path / 'cache', init_from='~/run')
  homes = tmp_path / 'here', tmp_path / 'there'
  statuses, outputs = _wait(_start_two(args, args, homes=homes))
  assert statuses == [2, 2], outputs
  assert 'Process 1 has stopped' in outputs[0]
  assert 'there/run cannot be read' in outputs[1]


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_process_saves_the_same_step_on_both(tmp_path, number):
  # Enough steps for the notice, which is passed on within seconds.
  fields = {'epochs': 30.0, 'eval_every': 30.0, 'save_every': 1000}
  cache = tmp_path / 'cache'
  args = _args(tmp_path / 'stopped', cache, **fields)
  both = _start_two(args, args)
  records = tmp_path / 'stopped' / 'metrics.jsonl'
  command.kill_when(both[1], records, '"step": 3,', number)
  statuses, outputs = _wait(both)
  assert statuses == [0, 0], outputs
  steps = [p.name for p in (tmp_path / 'stopped' / 'checkpoints').iterdir()]
  assert len(steps) == 1 and 3 <= int(steps[0]) < 90
  for output in outputs:
    assert f'Stopped and saved at step {steps[0]} of 90' in output
  if number == signal.SIGINT:
    return
  statuses, outputs = _wait(_start_two(args, args))
  assert statuses == [0, 0], outputs
  assert f'Continuing from step {steps[0]}.' in outputs[0]

  unbroken = _args(tmp_path / 'unbroken', cache, **fields)
  statuses, outputs = _wait(_start_two(unbroken, unbroken))
  assert statuses == [0, 0], outputs
  chex.assert_trees_all_equal(
    runs.saved_state(tmp_path / 'stopped'),
    runs.saved_state(tmp_path / 'unbroken'),
  )


@pytest.mark.slow
def test_a_pod_killed_three_times_ends_as_one_never_killed(tmp_path):
  """Two processes of four devices each; either is killed, in mid-step."""
  fields = {
    'epochs': 15.0, 'eval_every': 15.0, 'save_every': 3, 'batch_size': 8
  }  # fmt: skip
  killed, unbroken = tmp_path / 'killed', tmp_path / 'unbroken'

  def start(workdir):
    args = _args(workdir, tmp_path / 'cache', **fields)
    return _start_two(args, args, devices=4)

  rng = np.random.default_rng(0)
  for _ in range(3):
    records = read_records(killed / 'metrics.jsonl')
    step = max((r['step'] for r in records), default=0) + rng.integers(1, 5)
    both, victim = start(killed), rng.integers(2)
    command.kill_when(
      both[victim], killed / 'metrics.jsonl', f'"step": {step},', command.kill
    )
    # What waits for it alone in vain is ended too, as by a cluster.
    both[1 - victim].kill()
    statuses, outputs = _wait(both)
    assert statuses[victim] == -9, outputs
    assert not (killed / 'summary.json').exists()
  for workdir in (killed, unbroken):
    statuses, outputs = _wait(start(workdir))
    assert statuses == [0, 0], outputs
    if workdir == killed:
      assert 'Continuing from step' in outputs[0]
  chex.assert_trees_all_equal(
    runs.saved_state(killed), runs.saved_state(unbroken)
  )
  for name in ('summary.json', 'split.json', 'confusion.csv'):
    assert (killed / name).read_text() == (unbroken / name).read_text(), name
