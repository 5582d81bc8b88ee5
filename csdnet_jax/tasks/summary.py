"""The figures of a classification: summed up, and in words."""


def judge_of(parts) -> str:
  """Which of these parts judges a run; 'train' where nothing is held out."""
  return next(part for part in ('test', 'val', 'train') if part in parts)


def line(figures: dict[str, float]) -> str:
  """Returns the figures of an evaluation in a line."""
  return (
    f'top-1 {figures["top1"]:.2f}  mean per class '
    f'{figures["mean_per_class"]:.2f}  top-5 {figures["top5"]:.2f}'
  )


def summarise(records, steps: int, parts, start: dict[str, float]) -> dict:
  """Makes the summary, reproducible figures only.

  Args:
    records: of `metrics.jsonl`.
    steps: of the whole run.
    parts: that were evaluated, by name.
    start: of `start`.

  Returns:
    The figures on the test part; without one, on the validation part, with
    `n_test` 0 and `n_val`; and without either, none.
  """
  judge = judge_of(parts)
  if judge == 'train':
    return {'start': start, 'n_test': 0, 'steps': steps}
  tests = {r['step']: r for r in records if r['kind'] == judge}
  selected_on = 'val' if 'val' in parts else 'test'
  # Of equal ones the later, as the checkpoints keep it.
  best = max(
    (r for r in records if r['kind'] == selected_on),
    key=lambda r: (r['top1'], r['step']),
  )
  last = tests[steps]
  return {
    'top1': last['top1'],
    'top5': last['top5'],
    'mean_per_class': last['mean_per_class'],
    'best': {
      'epoch': best['epoch'],
      'top1': tests[best['step']]['top1'],
      'selected_on': selected_on,
    },
    'start': start,
    **({} if judge == 'test' else {'n_val': last['n']}),
    'n_test': last['n'] if judge == 'test' else 0,
    'steps': steps,
  }


def shown(figures: dict[str, float]) -> dict[str, float]:
  """Returns the figures of an evaluation under the names that people use."""
  return {
    'top-1, percent': figures['top1'],
    'mean per class, percent': figures['mean_per_class'],
    'top-5, percent': figures['top5'],
    'cross-entropy, nats': figures['loss'],
    'images': figures['n'],
  }


_BASELINES = {
  'knn': 'kNN', 'prototypes': 'prototypes', 'linear_probe': 'linear probe'
}  # fmt: skip


def rows(summary: dict) -> dict[str, float]:
  """Returns {name: figure} of a summary; none where nothing was held out."""
  if 'best' not in summary:
    return {}
  best, steps = summary['best'], summary['steps']
  shown = {
    'top-1, last epoch' if steps else 'top-1': summary['top1'],
    'mean per class': summary['mean_per_class'],
    'top-5': summary['top5'],
  }
  if steps:
    chosen = f'{best["epoch"]:g}, chosen on {best["selected_on"]}'
    shown[f'top-1, best epoch ({chosen})'] = best['top1']
  for key, name in _BASELINES.items():
    if key in summary['start']:  # An older run has no prototypes.
      shown[f'{name}, initial features'] = summary['start'][key]
  return shown


def remark(summary: dict) -> str:
  """Returns how a run compares with the features that it began with, or ''."""
  start = summary['start']
  if not start:
    return ''
  best = max(start, key=start.get)
  gain, name = summary['top1'] - start[best], _BASELINES[best]
  before = f'the {start[best]:.2f} of the {name} on the features as they came'
  if not summary.get('steps', 1):
    if gain >= 0:
      return ''  # It is what is compared with.
    return 'Another way to read the same features gives more, see above.'
  if gain >= 0:
    return f'Training gained {gain:.2f} points over {before}.'
  return (
    f'This is below {before}: the run has learnt nothing worth keeping. More '
    'epochs (--config.epochs) or more images may help.'
  )
