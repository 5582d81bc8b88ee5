"""A grid is run point by point: skipped, resumed, recorded, stopped."""

import importlib.util
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import types

import pytest
import rich.console

from csdnet_jax.runtime import code
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.tasks import classification
from experiments import grid as grid_lib, results, run as run_lib

import command
import images
from lines import CODE

GRID = '--grid=csdnet:saliency'


@pytest.fixture(autouse=True)
def clean(monkeypatch):
  """The code is as a commit has it, wherever these tests run."""
  monkeypatch.setattr(code, '_of_package', lambda package: CODE)


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp('cache')


@pytest.fixture
def points(cache):
  name, grid = grid_lib.find('csdnet:saliency')
  flags = command.flags(**{'data.cache': cache})
  return grid_lib.expand(name, grid, flags, seeds_of_each=1)


def _finish(point, workdir, top1=50.0):
  """Leaves what a finished run leaves, as far as a line of results needs it."""
  folder = workdir / point.name
  folder.mkdir(exist_ok=True)
  config = grid_lib.resolve(point.arguments)
  start = {
    'seconds': 1.0, 'command': 'python -m x --workdir=/a/b --config.seed=1',
    'devices': 'cpu', 'packages': {}, 'code': code.of_code(),
  }  # fmt: skip
  split = classification.split_of(classification.load(config))
  texts = {
    'environment.json': json.dumps({'starts': [start]}),
    'predictions.csv': 'path,label,class_1\na,{0},{0}\nb,{1},{0}\n'.format(
      *split['class_names']
    ),
    'split.json': json.dumps(split),
    'summary.json': json.dumps({'top1': top1}),
  }
  for name, content in texts.items():
    (folder / name).write_text(content)


def _launch(outcomes):
  """A launcher that trains nothing."""

  def launch(points, workdir, stop):
    for point in points:
      outcome = outcomes.pop(0)
      (workdir / point.name).mkdir(exist_ok=True)
      log = 'error: Long ago.\n\n$ x\nx\nerror: [/red] It broke.\ny\n'
      (workdir / point.name / 'log.txt').write_text(log)
      if outcome == run_lib.DONE:
        _finish(point, workdir)
      yield point, outcome

  return launch


def test_a_failure_is_recorded_and_the_rest_is_done(points, tmp_path):
  path = tmp_path / 'r.jsonl'
  launch = _launch([run_lib.FAILED, run_lib.DONE])
  became = run_lib.run(points, tmp_path, path, launch=launch)
  assert list(became.values()) == [run_lib.FAILED, run_lib.DONE]
  failures = json.loads((tmp_path / 'failures.json').read_text())
  assert failures == {points[0].name: 'error: [/red] It broke.'}
  # The same command tries it again, and that one alone.
  became = run_lib.run(points, tmp_path, path, launch=_launch([run_lib.DONE]))
  assert set(became.values()) == {run_lib.DONE}
  assert not (tmp_path / 'failures.json').exists()
  rows = results.read(path)
  assert [row['arm'] for row in rows] == [p.arm for p in reversed(points)]
  assert results.bits(rows[0]['test']).tolist() == [True, False]
  assert not any('root' in key for key in rows[0]['config'])


def test_what_ended_without_its_line_is_recorded(points, tmp_path):
  _finish(points[0], tmp_path)
  path = tmp_path / 'r.jsonl'
  run_lib.run(points, tmp_path, path, launch=_launch([run_lib.DONE]))
  assert len(results.read(path)) == 2


def test_a_failure_of_another_set_is_kept(points, tmp_path):
  (tmp_path / 'failures.json').write_text('{"other": "no leaves"}')
  launch = _launch([run_lib.DONE] * 2)
  run_lib.run(points, tmp_path, tmp_path / 'r.jsonl', launch=launch)
  failures = json.loads((tmp_path / 'failures.json').read_text())
  assert failures == {'other': 'no leaves'}


def _queue(queue, cache, **fields):
  arms = [grid_lib.named(f'queue {queue}', {'method.csdnet.queue': queue})]
  grid = grid_lib.Grid(lambda base: arms)
  flags = command.flags(**{'data.cache': cache} | fields)
  return grid_lib.expand(f'queue{queue}', grid, flags, seeds_of_each=2)


def _run(points, outcomes, tmp_path):
  path = tmp_path / f'{points[0].grid}.jsonl'
  run_lib.run(points, tmp_path, path, launch=_launch(outcomes))
  return results.read(path)


def test_what_another_grid_has_run_is_not_run_again(cache, tmp_path):
  # Of 12 training images no more than 24 keys are used.
  ran = _run(_queue(128, cache), [run_lib.DONE] * 2, tmp_path)
  took = _run(_queue(512, cache), [], tmp_path)
  assert [row['arm'] for row in took] == ['queue 512'] * 2
  assert [row['same_as'] for row in took] == ['queue 128'] * 2
  assert [row['config']['method.csdnet.queue'] for row in took] == [512] * 2
  assert [row['test'] for row in took] == [row['test'] for row in ran]
  # A shorter queue, or another rate, is another run.
  assert len(_run(_queue(16, cache), [run_lib.DONE] * 2, tmp_path)) == 2
  other = _queue(256, cache, **{'optim.lr': 0.5})
  assert len(_run(other, [run_lib.DONE] * 2, tmp_path)) == 2


def test_another_folder_of_the_same_name_is_run(cache, tmp_path):
  path = tmp_path / 'r.jsonl'
  for project in ('one', 'two'):
    root = tmp_path / project / 'leaves'
    images.class_folders(root, {f'{project} oak': 9, 'elm': 9})
    fields = {'data.source': 'folder', 'data.root': root}
    points = _queue(16, cache, **fields)
    launch = _launch([run_lib.DONE] * 2)
    run_lib.run(points, tmp_path / project, path, launch=launch)
  assert len(results.read(path)) == 4


def test_a_foreign_file_beside_the_results_is_left_aside(points, tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1}\n')
  launch = _launch([run_lib.DONE] * 2)
  run_lib.run(points, tmp_path, tmp_path / 'r.jsonl', launch=launch)
  assert len(results.read(tmp_path / 'r.jsonl')) == 2


def test_paths_of_this_computer_are_not_kept(points, tmp_path):
  _finish(points[0], tmp_path)
  folder = tmp_path / points[0].name
  row = results.record(points[0], folder)
  assert row['command'] == 'x --workdir=... --config.seed=1'
  environment = json.loads((folder / 'environment.json').read_text())
  environment['starts'][0]['command'] = (
    'python -m x --config=/a/c.py --config.data.root /a/b -workdir=~/c '
    '--config=configs/folder.py --config.data.root=leaves'
  )
  (folder / 'environment.json').write_text(json.dumps(environment))
  assert results.record(points[0], folder)['command'] == (
    'x --config=... --config.data.root ... -workdir=... '
    '--config=configs/folder.py --config.data.root=leaves'
  )


def test_the_paths_that_a_run_keeps_are_not_in_its_line(cache, tmp_path):
  weights = tmp_path / 'home' / 'w.npz'
  images.write(weights, b'')
  point, _ = _queue(16, cache, init_from=weights)
  _finish(point, tmp_path)
  line = json.dumps(results.record(point, tmp_path / point.name))
  assert '"init_from": "w.npz"' in line and str(tmp_path) not in line


def test_a_train_set_too_small_fails_its_point_alone(points, cache, tmp_path):
  big = _queue(16, cache, batch_size=99)
  became = run_lib.run(big, tmp_path, tmp_path / 'r.jsonl', launch=_launch([]))
  assert set(became.values()) == {run_lib.FAILED}
  assert 'lower it' in (tmp_path / 'failures.json').read_text()


@pytest.mark.parametrize('grid, words', [
  (grid_lib.Grid(lambda c: [{}]), r'test part.*data\.test_fraction=0\.5'),
  (grid_lib.Grid(lambda c: [{}], part='val'), r'val part.*val_fraction=0\.34'),
])  # fmt: skip
def test_what_leaves_nothing_to_judge_by_is_refused_before_it_runs(
  grid, words, tmp_path, monkeypatch
):
  images.class_folders(tmp_path / 'set', dict.fromkeys('abc', 4))
  monkeypatch.setattr(run_lib, 'find', lambda name: ('g', grid))
  flags = command.flags(**{
    'data.source': 'folder', 'data.root': tmp_path / 'set',
    'data.cache': tmp_path / 'cache', 'data.test_fraction': 0.0,
  })  # fmt: skip
  to = [f'--workdir={tmp_path / "w"}', f'--results={tmp_path / "r.jsonl"}']
  with pytest.raises(UserError, match=words):
    run_lib.main(['--grid=x:g', *flags, *to])
  assert not (tmp_path / 'r.jsonl').exists()
  # A single arm fails alone, as one that ended before this was refused.
  (point,) = grid_lib.expand('g', grid, flags, seeds_of_each=1)
  became = run_lib.run(
    [point], tmp_path, tmp_path / 'r.jsonl', launch=_launch([])
  )
  assert became == {point: run_lib.FAILED}


def test_the_live_table_has_an_arm_a_row_and_a_seed_a_column(cache):
  points = _queue(16, cache)
  board = run_lib.Board(points)
  board.show(points[0], '61.2')
  board.show(points[1], run_lib.FAILED, '[/red] it broke')
  console = rich.console.Console(width=80, file=io.StringIO())
  console.print(board)
  lines = console.file.getvalue().splitlines()
  assert '2 of 2 points' in lines[0]
  assert 'seed 0' in lines[2] and 'seed 1' in lines[2]
  assert '61.2' in lines[4] and 'failed' in lines[4]


def test_no_point_starts_after_the_budget_or_a_signal(points, tmp_path):
  for ended in ({'budget_minutes': -1.0}, {'stop': lambda: True}):
    became = run_lib.run(
      points, tmp_path, tmp_path / 'r.jsonl', launch=_launch([]), **ended
    )
    assert set(became.values()) == {''}


def test_a_budget_that_ends_leaves_what_is_done(points, tmp_path, monkeypatch):
  # At the start, of the table, and before the first point.
  ticks = iter([0.0] * 3)
  clock = types.SimpleNamespace(monotonic=lambda: next(ticks, 120.0))
  monkeypatch.setattr(run_lib, 'time', clock)
  became = run_lib.run(
    points, tmp_path, tmp_path / 'r.jsonl', budget_minutes=1.0,
    launch=_launch([run_lib.DONE]),
  )  # fmt: skip
  assert list(became.values()) == [run_lib.DONE, '']
  assert len(results.read(tmp_path / 'r.jsonl')) == 1


def test_a_point_begun_by_other_code_is_refused(points, tmp_path):
  _finish(points[0], tmp_path)
  path = tmp_path / points[0].name / 'environment.json'
  text = path.read_text()
  (start,) = json.loads(text)['starts']
  other = start | {'code': CODE | {'csdnet_jax/*.py': 'other'}}
  for starts in ([other], [start, other]):
    path.write_text(json.dumps({'starts': starts}))
    launch = _launch([run_lib.DONE])
    path_ = tmp_path / f'{len(starts)}.jsonl'
    became = run_lib.run(points, tmp_path, path_, launch=launch)
    assert became[points[0]] == run_lib.FAILED
    assert '*.py: ' in (tmp_path / 'failures.json').read_text()
    path_.unlink()
  # What has saved nothing starts anew.
  (tmp_path / points[0].name / 'summary.json').unlink()
  launch = _launch([run_lib.FAILED, run_lib.DONE])
  run_lib.run(points, tmp_path, tmp_path / 'r.jsonl', launch=launch)
  assert 'It broke' in (tmp_path / 'failures.json').read_text()


def _dirty(monkeypatch, content):
  changed = CODE | {'csdnet_jax/models': f'{content}+dirty'}
  monkeypatch.setattr(code, '_of_package', lambda package: changed)


def test_what_no_commit_holds_is_joined_with_nothing(
  cache, tmp_path, monkeypatch
):
  ran = _run(_queue(128, cache), [run_lib.DONE] * 2, tmp_path)
  _dirty(monkeypatch, 'one')
  own = _run(_queue(512, cache), [run_lib.DONE] * 2, tmp_path)
  assert not any('same_as' in row for row in own)
  assert [results.made_by(row['code']) for row in ran + own] == [
    '', '', *['code that no commit holds'] * 2
  ]  # fmt: skip
  # The same command again, of the same content: nothing runs, no line is added.
  assert _run(_queue(512, cache), [], tmp_path) == own
  # Of another content the finished runs are refused.
  _dirty(monkeypatch, 'two')
  assert _run(_queue(512, cache), [], tmp_path) == own
  assert 'one+dirty' in (tmp_path / 'failures.json').read_text()


def test_a_task_that_was_lost_has_no_log(points, tmp_path):
  def launch(points, workdir, stop):
    yield from ((point, run_lib.FAILED) for point in points)

  run_lib.run(points, tmp_path, tmp_path / 'r.jsonl', launch=launch)
  assert 'has not started' in (tmp_path / 'failures.json').read_text()


def test_a_workdir_that_cannot_be_made_is_said(points, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='file cannot be made'):
    run_lib.main([GRID, *command.flags(), f'--workdir={tmp_path / "file"}'])


def test_a_dry_run_prints_commands_that_make_the_same_config(points, capsys):
  args = [GRID, *command.flags(), '--seeds=1', '--dry_run', '--workdir=w']
  assert run_lib.main(args) == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == len(points)
  for line, point in zip(lines, points, strict=True):
    python, m, module, *arguments, workdir = shlex.split(line)
    assert (python, m, module) == ('python', '-m', 'csdnet_jax.main')
    assert workdir == f'--workdir=w/{point.name}'
    config = grid_lib.resolve(arguments)
    found = code.of_data(grid_lib.set_of(config), grid_lib.identity(config))
    assert found == point.hash


def _start(tmp_path, *args, env=None, **fields):
  fields = {'data.cache': tmp_path / 'cache', 'log_every': 1} | fields
  flags = [*command.flags(**fields), '--seeds=1', f'--workdir={tmp_path / "w"}']
  return subprocess.Popen(
    [sys.executable, '-m', 'experiments.run', GRID, *flags,
     f'--results={tmp_path / "r.jsonl"}', *args],
    cwd=command.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    text=True, start_new_session=True,
    env=os.environ | {'JAX_NUM_CPU_DEVICES': '1', 'COLUMNS': '500'}
    | (env or {}),
  )  # fmt: skip


def _training(tmp_path, process):
  """Waits until a point has trained a step."""
  deadline = time.monotonic() + 300
  while not any(
    path.stat().st_size for path in tmp_path.glob('w/*/metrics.jsonl')
  ):
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_a_grid_stopped_in_the_middle_goes_on(number, tmp_path):
  process = _start(tmp_path)
  _training(tmp_path, process)
  if number == signal.SIGKILL:
    os.killpg(process.pid, number)
    process.communicate()
  else:
    process.send_signal(number)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert 'The same command continues.' in output
  assert len(results.read(tmp_path / 'r.jsonl')) < 2
  process = _start(tmp_path)
  output, _ = process.communicate(timeout=600)
  assert process.returncode == 0, output
  assert '2 of 2 points are done' in output
  rows = results.read(tmp_path / 'r.jsonl')
  assert len(rows) == 2
  for row in rows:
    right = results.bits(row['test']).mean()
    assert 100 * right == pytest.approx(row['summary']['top1'])


@pytest.mark.slow
def test_a_point_that_cannot_run_fails_by_its_own_sentence(tmp_path):
  process = _start(tmp_path, **{'init_from': 'no/such.npz', 'epochs': 1.0})
  output, _ = process.communicate(timeout=600)
  assert process.returncode == 1, output
  said = (tmp_path / 'w' / 'failures.json').read_text()
  assert 'no/such.npz cannot be read' in said


@pytest.mark.slow
@pytest.mark.skipif(
  importlib.util.find_spec('ray') is None, reason='ray is not installed'
)
def test_two_workers_of_a_ray_cluster(tmp_path):
  script = command.ROOT / 'tests' / 'helpers' / 'ray_cluster.py'
  cluster = subprocess.Popen(
    [sys.executable, str(script)], stdin=subprocess.PIPE, text=True,
    stdout=subprocess.PIPE,
    # Its workers' environment is the points'.
    env=os.environ
    | {'JAX_NUM_CPU_DEVICES': '1', 'RAY_USAGE_STATS_ENABLED': '0'},
  )  # fmt: skip
  try:
    lines = iter(cluster.stdout.readline, '')
    address = next(x.split()[1] for x in lines if x.startswith('address'))
    env = {'RAY_ADDRESS': address}
    process = _start(tmp_path, '--launcher=ray', env=env, epochs=1.0)
    output, _ = process.communicate(timeout=600)
  finally:
    cluster.communicate()
  assert process.returncode == 0, output
  # The second starts before the first has ended.
  events = [x for x in output.splitlines() if '_seed-0-' in x]
  assert [x.endswith('running') for x in events] == [True] * 2 + [False] * 2
  assert len(results.read(tmp_path / 'r.jsonl')) == 2
