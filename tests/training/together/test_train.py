"""Runs trained together are the runs trained alone."""

import contextlib
import csv
import json

import jax
import numpy as np
import pytest

from csdnet_jax.data.images import dividing, splits
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.writers import read_records
from csdnet_jax.tasks import baselines, classification
from csdnet_jax.training import train as alone
from csdnet_jax.training.fit import evaluations, fit
from csdnet_jax.training.initial import initial_weights
from csdnet_jax.training.prepare import prepare
from csdnet_jax.training.restore import read_run, restore_run
from csdnet_jax.training.together import group, train as together

import runs

DEVICE = jax.devices()[:1]
# SSDP ranks pixels that almost tie, which rounding swaps.
COMMON = {
  'method.csdnet.mode': 'none',
  'data.leaves.test_per_class': 3,
  'data.resplit': True,
  'epochs': 3.0,
  'optim.name': 'sgd',  # Adam would amplify rounding.
  'log_every': 3,
  'save_every': 100,
}
CHEAP = {'method.name': 'supervised'}
POINTS = [
  {'seed': 0},
  {'seed': 1, 'data.split_seed': 1, 'optim.lr': 0.006},
  {
    'seed': 2,
    'data.split_seed': 2,
    'method.csdnet.alpha': 0.5,
    'method.csdnet.beta': 0.0,
    'method.csdnet.temperature': 2.0,
    'optim.weight_decay': 0.2,
    'views.area': (0.5, 0.9),
  },
]


def _configs(cache, **fields):
  return [
    runs.config(cache, **{**COMMON, 'optim.lr': 0.003, **point, **fields})
    for point in POINTS
  ]


def _runs(configs, workdir):
  made = []
  for i, config in enumerate(configs):
    dataset = classification.load(config)
    fitted, _ = fit(config, len(dataset.train.names))
    made.append(group.Run(fitted, dataset, workdir / str(i)))
  return made


def _train(configs, workdir):
  return together.train(_runs(configs, workdir), workdir / 'group')


def _read(workdir, name):
  return json.loads((workdir / name).read_text())


def _predictions(workdir):
  """The texts of the table, and its numbers, to which rounding may be seen."""
  with open(workdir / 'predictions.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  numbers = [name for name in rows[0] if name.startswith(('prob', 'dist'))]
  values = [[float(row.pop(name)) for name in numbers] for row in rows]
  return rows, np.array(values)


@contextlib.contextmanager
def _last_state(monkeypatch):
  """Yields a list that gets the states after the last step."""
  kept, evaluate = [], together._evaluate

  def keep(group, states, *rest):
    kept[:] = [jax.device_get(states)]
    return evaluate(group, states, *rest)

  with monkeypatch.context() as patch:
    patch.setattr(together, '_evaluate', keep)
    yield kept


def _require_same(one, other, state):
  """Compares a run that was trained together with the same one alone.

  Args:
    one: its workdir.
    other: that of the run alone.
    state: of the first, after the last step.

  Returns:
    The texts of its predictions.
  """
  # Momenta are gradients, in which rounding shows first.
  state, other_state = (
    s.replace(opt_state=()) for s in (state, runs.saved_state(other))
  )
  for a, b in zip(
    jax.tree.leaves(state), jax.tree.leaves(other_state),
    strict=True,
  ):  # fmt: skip
    # What has no gradient is rounding alone.
    scale = max(np.abs(b).max(), 1e-2)
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * scale)
  (texts, numbers), (other_texts, others) = map(_predictions, (one, other))
  assert texts == other_texts
  np.testing.assert_allclose(numbers, others, atol=2e-4)
  for name in (
    'split.json', 'config.json', 'class_names.json', 'data_report.json',
    'weights.json',
  ):  # fmt: skip
    assert (one / name).read_text() == (other / name).read_text()
  summary, other_summary = (
    _read(one, 'summary.json'),
    _read(other, 'summary.json'),
  )
  assert summary == other_summary
  records, other_records = (
    read_records(d / 'metrics.jsonl') for d in (one, other)
  )
  for a, b in zip(records, other_records, strict=True):
    b.pop('images_per_s', None)
    assert a.keys() == b.keys()
    assert a.pop('kind') == b.pop('kind')
    assert a == pytest.approx(b, rel=1e-3, abs=1e-4)
  return texts


@pytest.mark.slow
def test_runs_together_are_the_runs_alone(tmp_path, monkeypatch):
  configs = _configs(tmp_path / 'cache', ema=0.5)
  with _last_state(monkeypatch) as kept:
    assert _train(configs, tmp_path / 'together') == ['', '', '']
  for of_a_run in ('write_start', 'write_end'):  # Pictures take longest.
    monkeypatch.setattr(
      classification.of_run, of_a_run, lambda *args, **kwargs: None
    )
  ended = tmp_path / 'together' / '0'
  with pytest.raises(UserError, match='shared its program'):
    restore_run(ended, *read_run(ended), devices=DEVICE)
  tests = set()
  for i, config in enumerate(configs):
    one, other = tmp_path / 'together' / str(i), tmp_path / 'alone' / str(i)
    alone.train(config, other, devices=DEVICE)
    texts = _require_same(
      one, other, jax.tree.map(lambda x, i=i: x[i], kept[0])
    )
    tests.add(tuple(row['path'] for row in texts))
  assert len(tests) == 3


@contextlib.contextmanager
def _stopped_at(monkeypatch, last):
  """What is trained within is told to stop after a step."""
  with monkeypatch.context() as patch:
    patch.setattr(together, '_LOOK', 0.0)  # A step at a time.
    patch.setattr(
      together, 'stopper',
      lambda: contextlib.nullcontext(lambda step: step == last),
    )  # fmt: skip
    yield


@pytest.mark.slow
def test_a_stopped_group_goes_on_with_the_same_bits(tmp_path, monkeypatch):
  # As above, so that no second program is compiled.
  configs = _configs(tmp_path / 'cache', ema=0.5)
  with _last_state(monkeypatch) as kept:
    assert _train(configs, tmp_path / 'whole') == ['', '', '']
    whole = kept[0]
    with _stopped_at(monkeypatch, 5):
      assert _train(configs, tmp_path / 'stopped') is None
      assert not (tmp_path / 'stopped' / '0' / 'summary.json').exists()
    assert _train(configs, tmp_path / 'stopped') == ['', '', '']
    for a, b in zip(
      jax.tree.leaves(whole), jax.tree.leaves(kept[0]), strict=True
    ):
      np.testing.assert_array_equal(a, b)
  for i in range(3):
    one, other = tmp_path / 'whole' / str(i), tmp_path / 'stopped' / str(i)
    (texts, numbers), (other_texts, others) = map(_predictions, (one, other))
    assert texts == other_texts
    np.testing.assert_allclose(numbers, others, atol=2e-4)
    assert _read(one, 'summary.json') == _read(other, 'summary.json')
    starts = _read(other, 'environment.json')['starts']
    assert [start['together'] for start in starts] == [3, 3]
  # The states of all have served.
  assert not (tmp_path / 'stopped' / 'group' / 'checkpoints').exists()


@pytest.mark.slow
def test_a_run_that_diverges_fails_alone_and_says_why(tmp_path):
  configs = _configs(tmp_path / 'cache', **CHEAP)
  configs[1].optim.lr, configs[1].optim.clip = 1e30, 1e30
  configs[0].optim.clip = configs[2].optim.clip = 5.0
  first, second, third = _train(configs, tmp_path)
  assert first == third == ''
  assert 'not finite' in second
  assert 'the others of its program went on' in second
  assert '\n' not in second
  assert (tmp_path / '0' / 'summary.json').exists()
  assert not (tmp_path / '1' / 'summary.json').exists()


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """Of a run that a few steps have trained, with averages of its own."""
  workdir = tmp_path_factory.mktemp('weights')
  config = runs.config(workdir / 'cache', **CHEAP, **{'optim.lr': 1e-3})
  alone.train(config, workdir / 'run', devices=DEVICE)
  return str(workdir / 'run')


@pytest.mark.slow
def test_a_head_at_the_probe_is_the_probe_until_it_is_trained(
  weights, tmp_path
):
  """In one trainer as in the other: frozen BatchNorm leaves the features."""
  configs = _configs(
    tmp_path / 'cache',
    **CHEAP,
    **{
      'init_from': weights, 'model.freeze_bn': True, 'optim.lr': 1e-9,
      'epochs': 1.0, 'ema': 0.5,
    },
  )  # fmt: skip
  for config, head in zip(configs, ('probe', 'probe', 'loaded'), strict=True):
    config.init_head = head
  assert _train(configs, tmp_path) == ['', '', '']
  alone.train(configs[1], tmp_path / 'alone', devices=DEVICE)
  for name in ('0', '1', 'alone'):
    summary = _read(tmp_path / name, 'summary.json')
    assert summary['top1'] == pytest.approx(summary['start']['linear_probe'])
    assert (summary['top1'], summary['start']) != (0, {})
  (texts, numbers), (other_texts, others) = (
    _predictions(tmp_path / name) for name in ('1', 'alone')
  )
  assert texts == other_texts
  # Where the fit stops depends on the last bits of the features.
  np.testing.assert_allclose(numbers, others, atol=5e-3)


@pytest.mark.slow
def test_baselines_are_measured_once_for_weights_and_split(
  tmp_path, monkeypatch
):
  measured, probe = [], baselines.probes.linear_probe
  monkeypatch.setattr(
    baselines.probes, 'linear_probe',
    lambda *args: measured.append(1) or probe(*args),
  )  # fmt: skip
  configs = _configs(tmp_path / 'cache', epochs=1.0, **CHEAP)
  assert _train(configs, tmp_path / 'one') == ['', '', '']
  assert len(measured) == 3
  starts = [_read(tmp_path / 'one' / str(i), 'start.json') for i in range(3)]
  for config in configs:
    config.optim.label_smoothing = 0.3
  assert _train(configs, tmp_path / 'other') == ['', '', '']
  assert len(measured) == 3
  assert starts == [
    _read(tmp_path / 'other' / str(i), 'start.json') for i in range(3)
  ]
  # The ordinary trainer starts from the same weights, and asks for no more.
  dataset = classification.load(configs[2])
  experiment = prepare(configs[2], dataset, None, devices=DEVICE).experiment
  config, program, _ = experiment
  weights = initial_weights(config, program.model, dataset.class_names)[:2]
  state = program.init(*weights)
  assert classification.start(experiment, state) == starts[2]
  assert len(measured) == 3


@pytest.mark.slow
def test_what_ssdp_can_be_told_trains_together(tmp_path):
  ssdp = {
    'mode': 'erase', 'map': 'fine', 'saliency': 'margin', 'inside': True,
    'fill': 'blur',
  }  # fmt: skip
  configs = _configs(
    tmp_path / 'cache', **{f'method.csdnet.{k}': v for k, v in ssdp.items()}
  )
  for i, config in enumerate(configs):
    config.method.csdnet.hidden = (0.02 * (i + 1), 0.04 * (i + 1))
  assert _train(configs, tmp_path) == ['', '', '']
  records = [
    record
    for i in range(3)
    for record in read_records(tmp_path / str(i) / 'metrics.jsonl')
    if record['kind'] == 'train'
  ]
  assert all(np.isfinite(record['ce_aug']) for record in records)


def _unequal(cache, **fields):
  """Runs of 9 steps whose train and test parts are of unequal size."""
  made, steps = [], 9
  for seed, moved in ((0, 0), (1, 2), (1, 5)):
    config = runs.config(
      cache, **{
        **COMMON, 'data.resplit': False, 'optim.lr': 0.003, 'seed': seed,
        **fields,
      }
    )  # fmt: skip
    dataset = classification.load(config)
    test, train = dataset.test, dataset.train
    every = [(train, i) for i in range(len(train.names))]
    # From the other end for the last, so that no test part is part of another.
    order = np.arange(len(test.names))[:: 1 if moved < 5 else -1]
    every += [(test, i) for i in order[:moved]]
    dataset = dataset._replace(
      train=splits.gather(every),
      test=splits.gather([(test, i) for i in np.sort(order[moved:])]),
    )
    n = len(every)
    config.epochs = steps * config.batch_size / n
    config.optim.warmup = 2 * config.batch_size / n
    # As the ordinary trainer takes it.
    made.append((config, dividing.divide(dataset, config.data)))
  return made


@pytest.mark.slow
def test_runs_of_unequal_parts_are_the_runs_alone(tmp_path, monkeypatch):
  made = _unequal(tmp_path / 'cache', ema=0.5)
  sizes = [(len(d.train.names), len(d.test.names)) for _, d in made]
  assert sizes == [(12, 12), (14, 10), (17, 7)]
  group_ = [
    group.Run(fit(c, len(d.train.names))[0], d, tmp_path / 'together' / str(i))
    for i, (c, d) in enumerate(made)
  ]
  evaluated = {
    tuple(evaluations(run.config, len(run.dataset.train.names)))
    for run in group_
  }
  assert len(evaluated) == 3
  with _last_state(monkeypatch) as kept:
    assert together.train(group_, tmp_path / 'group') == ['', '', '']
  for of_a_run in ('write_start', 'write_end'):
    monkeypatch.setattr(
      classification.of_run, of_a_run, lambda *args, **kwargs: None
    )
  for i, (config, dataset) in enumerate(made):
    other = tmp_path / 'alone' / str(i)
    alone.train(config, other, dataset=dataset, devices=DEVICE)
    state = jax.tree.map(lambda x, i=i: x[i], kept[0])
    texts = _require_same(tmp_path / 'together' / str(i), other, state)
    assert len(texts) == sizes[i][1]


@pytest.mark.slow
def test_what_is_kept_of_runs_is_for_the_caller_to_say(tmp_path, monkeypatch):
  made = _unequal(tmp_path / 'cache', **CHEAP)
  group_ = [
    group.Run(fit(c, len(d.train.names))[0], d, tmp_path / str(i))
    for i, (c, d) in enumerate(made)
  ]
  kept, sizes = [], []
  monkeypatch.setattr(
    baselines, 'measure', lambda *args: pytest.fail('measured')
  )
  real = together._together

  def tried(runs, *rest):
    sizes.append(len(runs))
    if len(runs) == 3:
      raise together.TooManyError('3 runs are too many.')
    return real(runs, *rest)

  monkeypatch.setattr(together, '_together', tried)

  def train():
    return together.train(
      group_, tmp_path / 'group', keep=lambda *args: kept.append(args),
      baselines=False,
    )  # fmt: skip

  with _stopped_at(monkeypatch, 5):
    assert train() is None
  assert (kept, sizes) == ([], [3, 2])
  # The same call continues them.
  assert train() == ['', '', '']
  assert sizes == [3, 2, 2, 1]
  # What has ended as it is asked for is not done again.
  assert train() == ['', '', '']
  assert len(sizes) == 4 and len(kept) == 3
  for (run, found, steps), given in zip(kept, group_, strict=True):
    assert (run, steps) == (given, 9)
    assert found.keys() == {'train', 'test'}
    for part, rows in found.items():
      own = splits.parts_of(run.dataset)[part]
      np.testing.assert_array_equal(rows['label'], own.labels)
      assert rows['logits'].shape == (len(own.names), 4)
      assert len(rows['embedding']) == len(own.names)
    assert not (run.workdir / 'predictions.csv').exists()
    assert _read(run.workdir, 'start.json') == {}
    summary = _read(run.workdir, 'summary.json')
    assert classification.rows(summary)['top-1, last epoch'] == summary['top1']
    assert classification.remark(summary) == ''
    right = found['test']['logits'].argmax(axis=1) == found['test']['label']
    assert summary['top1'] == pytest.approx(100 * right.mean())


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (lambda c, d: c.update(epochs=5.0), r'same steps \(config\.epochs\)'),
    (lambda c, d: c.optim.update(warmup=0.0), 'same steps of warm-up'),
    (lambda c, d: c.method.csdnet.update(queue=16), r'method\.csdnet\.queue'),
    (lambda c, d: c.wandb.update(project='x'), 'share no program: W&B'),
  ],
)
def test_runs_that_no_program_can_hold_are_refused(tmp_path, change, words):
  made = _unequal(tmp_path / 'cache')
  change(*made[1])
  group_ = [group.Run(c, d, tmp_path / str(i)) for i, (c, d) in enumerate(made)]
  with pytest.raises(UserError, match=words):
    together.train(group_, tmp_path / 'group')
