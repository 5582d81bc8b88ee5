r"""The README's table of results, generated from finished runs.

  python -m experiments.table runs/a runs/b ...   adds runs, then writes it
  python -m experiments.table                     writes it again

Each run becomes one line of `experiments/results/leaves.jsonl`: its config, its
summary, its command and what it ran on. The table gives the mean and the
standard deviation over the seeds of runs whose configs differ in nothing else.
"""

import collections
import json
import pathlib
import re
import statistics
import sys

from csdnet_jax import config as config_lib
from csdnet_jax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / 'experiments' / 'results' / 'leaves.jsonl'
# Paths of the machine are nobody else's business.
_PATHS = re.compile(r'(--config\.data\.(?:root|cache)|--workdir)=\S+')
BEGIN, END = '<!-- results: begin -->\n', '<!-- results: end -->\n'


def record(workdir: pathlib.Path) -> dict:
  """Returns what is kept of a finished run.

  Raises:
    UserError: if the run is not finished.
  """
  if not (workdir / 'summary.json').exists():
    raise UserError(f'{workdir} holds no finished run: summary.json is absent.')
  config = json.loads((workdir / 'config.json').read_text())
  starts = json.loads((workdir / 'environment.json').read_text())['starts']
  fields = config_lib.flat(config)
  # Where the images lie and what is logged change no figure.
  for key in ('data.root', *config_lib.LOGGING_KEYS, 'wandb.project'):
    fields.pop(key, None)
  return {
    'set': pathlib.Path(config['data']['root']).name
    or config['data']['name']
    or config['data']['source'],
    'seed': fields.pop('seed'),
    'config': fields,
    'summary': json.loads((workdir / 'summary.json').read_text()),
    'seconds': round(sum(start['seconds'] for start in starts), 1),
    'command': _PATHS.sub(r'\1=...', starts[0]['command'].partition(' -m ')[2]),
    'devices': starts[0]['devices'],
    'packages': starts[0]['packages'],
  }


def _method(config: dict) -> tuple[str, int]:
  """The name of an arm, and the forwards that each image takes an epoch."""
  if config['method.name'] != 'supervised':
    return config['method.name'], 2
  views = config['method.supervised.views']
  return f'cross-entropy, {views} view' + 's' * (views > 1), views


def table(records: list[dict]) -> str:
  """Returns the Markdown table: one row for each config, over its seeds."""
  rows = collections.defaultdict(list)
  for r in records:
    rows[r['set'], json.dumps(r['config'], sort_keys=True)].append(r)
  lines = [
    '| set | method | epochs | images through the network, per training image '
    '| seeds | top-1 | mean per class | kNN, linear probe at start | minutes |',
    '|---|---|---|---|---|---|---|---|---|',
  ]
  for (name, _), runs in sorted(rows.items()):
    config = runs[0]['config']
    arm, views = _method(config)
    start = runs[0]['summary']['start']
    minutes = statistics.median(r['seconds'] for r in runs) / 60
    lines.append(
      f'| {name} | {arm} | {config["epochs"]:g} | '
      f'{config["epochs"] * views:g} | {len(runs)} | {_spread(runs, "top1")} '
      f'| {_spread(runs, "mean_per_class")} | {start["knn"]:.1f}, '
      f'{start["linear_probe"]:.1f} | {minutes:.0f} |'
    )
  return '\n'.join(lines) + '\n'


def _spread(runs: list[dict], key: str) -> str:
  values = [r['summary'][key] for r in runs]
  mean = f'{statistics.mean(values):.1f}'
  return mean + (
    f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
  )


def _key(record: dict) -> str:
  return json.dumps([record[k] for k in ('set', 'seed', 'config')])


def main(workdirs: list[str]) -> None:
  """Adds the runs to the results and writes the README's table."""
  records = []
  if RESULTS.exists():
    records = [json.loads(x) for x in RESULTS.read_text().splitlines()]
  added = [record(pathlib.Path(w)) for w in workdirs]
  # A run added again replaces what is known of it.
  records = [r for r in records if _key(r) not in map(_key, added)] + added
  records.sort(key=_key)
  RESULTS.parent.mkdir(parents=True, exist_ok=True)
  RESULTS.write_text(''.join(json.dumps(r) + '\n' for r in records))
  readme = ROOT / 'README.md'
  head, rest = readme.read_text().split(BEGIN)
  _, tail = rest.split(END)
  readme.write_text(head + BEGIN + table(records) + END + tail)


if __name__ == '__main__':
  try:
    main(sys.argv[1:])
  except UserError as error:
    sys.exit(f'error: {error}')
