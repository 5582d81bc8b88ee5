"""Points that share a program: which, how they end, and that all is equal."""

import json
import threading
import time
import types

import jax
import pytest

from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training.together import train
from experiments import grid as grid_lib, results, run as run_lib, together

import command

SUPERVISED = {'method.name': 'supervised', 'data.leaves.test_per_class': 3}


def _points(cache, arms, seeds=2, **fields):
  grid = grid_lib.Grid(lambda base: arms)
  flags = command.flags(**{'data.cache': cache} | SUPERVISED | fields)
  return grid_lib.expand('t', grid, flags, seeds_of_each=seeds)


def _rates(*rates):
  return list(grid_lib.field('optim.lr', rates))


def test_arms_that_are_numbers_share_a_program_and_others_do_not(tmp_path):
  arms = [
    *_rates(0.01, 0.02, 0.0),
    grid_lib.named('batch', {'batch_size': 6}),
    grid_lib.named('split', {'data.resplit': True, 'data.split_seed': 3}),
    grid_lib.named('shots', {'data.shots': 2}),
    grid_lib.named('rotate', {'views.rotate': 30.0}),
    grid_lib.named('views', {'method.supervised.views': 2}),
  ]
  points = _points(tmp_path / 'cache', arms)
  batches = together.plan(points, tmp_path, 16)
  found = [sorted({point.arm for point in b.points}) for b in batches]
  assert found == [
    ['lr 0.01', 'lr 0.02', 'rotate', 'split'],
    ['lr 0'], ['batch'], ['shots'], ['views'],
  ]  # fmt: skip
  assert [len(b.points) for b in batches] == [8, 2, 2, 2, 2]
  said = list(together.describe(batches))
  assert said[0] == (
    'one program, 8 runs together: lr 0.01; lr 0.02; split; rotate'
  )
  assert len(said) == 5


def test_batches_are_equal_and_what_is_left_makes_the_same_ones(tmp_path):
  points = _points(tmp_path / 'cache', _rates(0.01, 0.02), seeds=5)
  batches = together.plan(points, tmp_path, 4)
  assert [len(b.points) for b in batches] == [4, 3, 3]
  left = together.plan(points[4:], tmp_path, 4)
  assert [b.folder for b in left] == [b.folder for b in batches[1:]]
  assert len({b.folder for b in batches}) == 3


def test_what_has_begun_alone_goes_on_alone(tmp_path):
  points = _points(tmp_path / 'cache', _rates(0.01, 0.02))
  (tmp_path / points[1].name / 'checkpoints' / '4').mkdir(parents=True)
  batches = together.plan(points, tmp_path, 16)
  assert sorted(len(b.points) for b in batches) == [1, 3]
  (single,) = (b for b in batches if len(b.points) == 1)
  assert single.points == (points[1],)
  assert list(together.describe(batches))[-1] == 'one by one: 1'


def _named(folder, points):
  folder.mkdir(parents=True)
  named = {point.name: point.arguments for point in points}
  (folder / 'points.json').write_text(json.dumps(named))
  return folder


def test_what_memory_does_not_hold_is_halved(tmp_path, monkeypatch):
  points = _points(tmp_path / 'cache', _rates(0.01, 0.02, 0.03), seeds=1)
  sizes = []

  def tried(runs, folder, keep, baselines, told):
    sizes.append(len(runs))
    if len(runs) > 1:
      raise train.TooManyError(f'{len(runs)} runs are too many.')
    return ['' if 'lr-0.02' not in runs[0].workdir.name else 'It broke.']

  monkeypatch.setattr(train, '_together', tried)
  folder = _named(tmp_path / 'together' / 'x', points)
  assert together.main(folder) == 0
  assert sizes == [3, 2, 1, 1, 1]
  failed = json.loads((folder / 'failed.json').read_text())
  assert failed == {points[1].name: 'It broke.'}


def test_runs_whose_method_reads_a_number_are_trained_one_by_one(
  tmp_path, monkeypatch
):
  points = _points(tmp_path / 'cache', _rates(0.01, 0.02), seeds=1)

  def reads(*args, **kwargs):
    jax.jit(lambda x: 1 if x else 2)(1.0)

  monkeypatch.setattr(train, 'train', reads)
  status = together.main(_named(tmp_path / 'together' / 'x', points))

  def watch(command, folder, stop, env):
    (folder / 'log.txt').write_text('\n$ x\nThey are run one by one.\n')
    return status, False

  monkeypatch.setattr(together, 'watch', watch)
  monkeypatch.setattr(
    together, 'local', lambda points, *rest: [(p, 'done') for p in points]
  )
  became = list(together.launch(points, tmp_path, lambda: False, most=4))
  assert became[2:] == [(points[0], 'done'), (points[1], 'done')]


def test_a_batch_that_breaks_says_so_for_each_of_its_points(
  tmp_path, monkeypatch
):
  points = _points(tmp_path / 'cache', _rates(0.01, 0.02), seeds=1)

  def watch(command, folder, stop, env):
    (folder / 'log.txt').write_text('\n$ x\nerror: The disk is full.\n')
    (tmp_path / points[0].name).mkdir()
    (tmp_path / points[0].name / 'summary.json').write_text('{}')
    return 1, False

  monkeypatch.setattr(together, 'watch', watch)
  became = list(together.launch(points, tmp_path, lambda: False, most=4))
  assert became[2:] == [
    (points[0], run_lib.DONE), (points[1], run_lib.FAILED)
  ]  # fmt: skip
  last = run_lib.last_words(tmp_path / points[1].name)
  assert last == 'error: The disk is full.'


def test_programs_run_at_the_same_time_share_a_gpu_and_all_are_stopped(
  tmp_path, monkeypatch
):
  monkeypatch.setenv('XLA_FLAGS', '--xla_gpu_autotune_level=4')
  arms = [
    *_rates(0.01, 0.02), grid_lib.named('views', {'method.supervised.views': 2})
  ]  # fmt: skip
  points = _points(tmp_path / 'cache', arms)
  both, given, stopped = threading.Barrier(2, timeout=30), [], []

  def watch(command, folder, stop, env):
    given.append(env)
    both.wait()  # Neither gets on before the other has started.
    while not stop():
      time.sleep(0.01)
    stopped.append(folder)
    return 0, True

  monkeypatch.setattr(together, 'watch', watch)
  became = {}
  for point, state in together.launch(
    points, tmp_path, lambda: len(given) == 2, most=4, programs=3
  ):
    became[point] = state
  assert became == dict.fromkeys(points, together.STOPPED)
  assert len(set(stopped)) == 2
  for env in given:
    assert env['XLA_PYTHON_CLIENT_MEM_FRACTION'] == '0.450'
    assert env['XLA_FLAGS'].split()[-1] == '--xla_gpu_autotune_level=4'


def test_ray_has_a_process_for_each_point():
  args = types.SimpleNamespace(
    together=4, programs=1, launcher='ray', dry_run=False
  )
  with pytest.raises(UserError, match='Ray runs a process for each point'):
    run_lib._together(args)


@pytest.mark.slow
def test_lines_of_points_together_are_those_of_points_one_by_one(
  tmp_path, capsys
):
  module = 'from experiments.grid import Grid, field\nGRIDS = {"t": Grid('
  module += 'lambda base: field("optim.lr", (0.002, 0.004)), seeds=2)}\n'
  (tmp_path / 'a_grid.py').write_text(module)
  fields = SUPERVISED | {
    'data.cache': tmp_path / 'cache', 'optim.name': 'sgd', 'epochs': 2.0,
    'data.resplit': True,
  }  # fmt: skip
  flags = ['--grid=a_grid:t', *command.flags(**fields)]
  path = f'{command.ROOT}:{tmp_path}'

  def run(*more):
    return command.run(
      *flags, *more, module='experiments.run', env={'PYTHONPATH': path}
    )

  lines = {}
  for most in (1, 4):
    out = tmp_path / str(most) / 'results' / 't.jsonl'  # No file beside it.
    status, said = run(
      f'--together={most}', f'--results={out}',
      f'--workdir={tmp_path / str(most)}',
    )  # fmt: skip
    assert status == 0, said
    lines[most] = {row['hash']: row for row in results.read(out)}
  assert lines[1].keys() == lines[4].keys()
  assert len(lines[1]) == 4
  for key, row in lines[4].items():
    other = lines[1][key]
    for name in ('test', 'summary', 'split', 'arm', 'config', 'command'):
      assert row[name] == other[name], name
    assert row['together'] == 4
    assert 'together' not in other
  # Nothing is left to be done, and nobody starts a program for it.
  status, said = run(
    '--together=4', f'--results={out}',
    f'--workdir={tmp_path / "4"}',
  )  # fmt: skip
  assert status == 0
  assert '4 of 4 points are done' in said
  status, said = run('--together=4', '--dry_run', f'--workdir={tmp_path / "n"}')
  assert 'one program, 4 runs together: lr 0.002; lr 0.004' in said
