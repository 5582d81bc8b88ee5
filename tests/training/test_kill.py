"""A run killed at any step ends as one never killed, bit for bit."""

import chex
import pytest

import command
import runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp('cache')


@pytest.fixture(scope='module')
def unbroken(cache, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('unbroken')
  _run(workdir, cache)
  return workdir


def _args(workdir, cache, **fields):
  fields = {'data.cache': cache} | fields
  return *command.flags(**fields), f'--workdir={workdir}'


def _run(workdir, cache):
  status, output = command.run(*_args(workdir, cache))
  assert status == 0, output
  return output


def _same(workdir, unbroken):
  chex.assert_trees_all_equal(
    runs.saved_state(workdir), runs.saved_state(unbroken)
  )
  for name in ('summary.json', 'split.json', 'confusion.csv', 'config.json'):
    assert (workdir / name).read_text() == (unbroken / name).read_text(), name


def test_the_same_seed_gives_the_same_run_twice(unbroken, cache, tmp_path):
  _run(tmp_path, cache)
  _same(tmp_path, unbroken)


@pytest.mark.parametrize('step', [1, 6, 14])
def test_killed_at_a_step(step, unbroken, cache, tmp_path):
  process = command.start(*_args(tmp_path, cache))
  command.kill_when(
    process, tmp_path / 'metrics.jsonl', f'"step": {step},', command.kill
  )
  process.communicate()
  assert process.returncode == -9
  assert not (tmp_path / 'summary.json').exists()
  _run(tmp_path, cache)
  _same(tmp_path, unbroken)


def test_sigterm_saves_and_exits_with_zero(unbroken, cache, tmp_path):
  process = command.start(*_args(tmp_path, cache))
  command.kill_when(
    process, tmp_path / 'metrics.jsonl', '"step": 3,', command.terminate
  )
  output, _ = process.communicate()
  assert process.returncode == 0, output
  assert 'the same command continues' in output
  steps = [int(p.name) for p in (tmp_path / 'checkpoints').iterdir()]
  assert max(steps) >= 3
  assert 'Continuing from step' in _run(tmp_path, cache)
  _same(tmp_path, unbroken)


def test_a_finished_run_exits_with_zero_at_once(unbroken, cache):
  before = (unbroken / 'metrics.jsonl').stat().st_mtime_ns
  assert 'is finished' in _run(unbroken, cache)
  assert (unbroken / 'metrics.jsonl').stat().st_mtime_ns == before
