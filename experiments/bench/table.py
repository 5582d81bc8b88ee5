"""The table of docs/speed.md, generated from the results that are kept.

python -m experiments.bench.table

A goal has a row for each device that it was measured on, and 'not measured'
where there is no result.
"""

import json
import pathlib
import sys
from collections.abc import Callable
from typing import NamedTuple

from csdnet_jax.runtime.errors import UserError
from experiments import marks
from experiments.bench import measure

PLACE = pathlib.Path(__file__).parents[2] / 'docs' / 'speed.md'
NAME = 'bench'  # Of the marks.


class Goal(NamedTuple):
  """A row of the table.

  Attributes:
    what: is measured.
    goal: in words.
    fields: that a result must have; for `device` a part of the name is enough,
      or one of several.
    figure: `result -> number`.
    unit: printed after the number.
    reached: `number -> bool`.
  """

  what: str
  goal: str
  fields: dict
  figure: Callable[[dict], float | None]
  unit: str
  reached: Callable[[float], bool]


def _compiled_again(result):
  again = result.get('compile_cached_s')
  return None if again is None else 100 * again / result['compile_s']


def _of_peer_memory(result):
  theirs = result.get('peer', {}).get('peak_memory')
  return result['peak_memory'] / theirs if theirs else None


_STEP = {'bench': 'step', 'method': 'csdnet'}
_GPU = {'dtype': 'bfloat16', 'device': ('H100', 'H200')}
_CLASSIFIER = _STEP | _GPU | {'size': 448}
_APD = _GPU | {
  'bench': 'step', 'method': 'apd', 'backbone': 'psp_resnet18',
  'teacher': 'psp_resnet101', 'size': 713,
}  # fmt: skip

GOALS = (
  Goal('CSDNet step over the two-view cross-entropy step, same backbone',
       '≤ 1.03', _STEP | {'against.method': 'supervised2'},
       lambda r: r['time_ratio'], 'x time', lambda x: x <= 1.03),
  Goal('step with a queue of 65,536 over the step without', '≤ 1.05',
       {'bench': 'queue_step', 'queue': 65536},
       lambda r: r['time_ratio'], 'x time', lambda x: x <= 1.05),
  Goal('copies of that queue in memory beside its own', '0',
       {'bench': 'queue_step', 'queue': 65536},
       lambda r: r['copies'], '', lambda x: x == 0),
  Goal('one H100 or H200, ViT-B/16 448 px, bf16, of a large product of random '
       'matrices', '≥ 60 %', _CLASSIFIER | {'backbone': 'vit_b16'},
       lambda r: 100 * r['mfu'], ' %', lambda x: x >= 60),
  Goal('one H100 or H200, ViT-B/16 448 px, bf16, over PyTorch with '
       'torch.compile', '≥ 1.1', _CLASSIFIER | {'backbone': 'vit_b16'},
       lambda r: r.get('ratio'), 'x', lambda x: x >= 1.1),
  Goal('one H100 or H200, Swin-B 448 px, bf16, over PyTorch with '
       'torch.compile', '≥ 1.3', _CLASSIFIER | {'backbone': 'swin_b'},
       lambda r: r.get('ratio'), 'x', lambda x: x >= 1.3),
  Goal('2-core CPU, ViT-S/16 224 px, over PyTorch', '≥ 1.15',
       _STEP | {'backbone': 'vit_s16', 'size': 224, 'device': '2-core CPU'},
       lambda r: r.get('ratio'), 'x', lambda x: x >= 1.15),
  Goal('2-core CPU, EfficientNet-Lite0 128 px, over PyTorch channels-last',
       '≥ 1.0', _STEP | {'backbone': 'efficientnet_lite0', 'size': 128,
                         'device': '2-core CPU'},
       lambda r: r.get('ratio'), 'x', lambda x: x >= 1.0),
  Goal('one H100 or H200, APD from PSPNet-R101 to R18 713 px, bf16, over '
       'PyTorch with torch.compile', '≥ 1.3', _APD,
       lambda r: r.get('ratio'), 'x', lambda x: x >= 1.3),
  Goal("peak memory of that step over PyTorch's", '≤ 0.5', _APD,
       _of_peer_memory, 'x', lambda x: x <= 0.5),
  Goal("APD's step over that of plain KD, its own losses' share", '≤ 5 %',
       {'bench': 'step', 'method': 'apd', 'against.method': 'apd_kd'},
       lambda r: 100 * (1 - 1 / r['time_ratio']), ' %', lambda x: x <= 5),
  Goal("peak memory of APD's step, R101 to R18, 2 crops of 713 px, 150 "
       "classes, over PyTorch's", '≤ 0.5',
       {'bench': 'memory', 'size': 713, 'batch': 2, 'classes': 150},
       lambda r: r['memory_ratio'], 'x', lambda x: x <= 0.5),
  Goal('host pipeline from the cache over what one H100 step eats, 448 px',
       '≥ 2', {'bench': 'pipeline', 'size': 448, 'device': 'H100'},
       lambda r: r.get('ratio'), 'x', lambda x: x >= 2),
  Goal('compile seconds of a second start with the cache, of the first',
       '≤ 15 %', {'bench': 'step'}, _compiled_again, ' %',
       lambda x: x <= 15),
)  # fmt: skip


def _has(result: dict, fields: dict) -> bool:
  for name, wanted in fields.items():
    value = result
    for part in name.split('.'):
      value = value.get(part, {}) if isinstance(value, dict) else {}
    if name == 'device':
      names = (wanted,) if isinstance(wanted, str) else wanted
      if not any(part in value for part in names):
        return False
    elif value != wanted:
      return False
  return True


def _setting(result: dict) -> str:
  names = ('backbone', 'teacher', 'size', 'batch', 'dtype')
  return ', '.join(str(result[name]) for name in names if name in result)


def table(results: list[dict]) -> str:
  """Returns the Markdown table of all goals."""
  lines = [
    '| what | goal | measured | reached | setting | device |',
    '|---|---|---|---|---|---|',
  ]
  for goal in GOALS:
    found = [r for r in results if _has(r, goal.fields)]
    found = [(r, goal.figure(r)) for r in found]
    found = [(r, x) for r, x in found if x is not None]
    for result, x in found:
      lines.append(
        f'| {goal.what} | {goal.goal} | {x:.3g}{goal.unit} | '
        f'{"yes" if goal.reached(x) else "no"} | {_setting(result)} | '
        f'{result["device"]}, JAX {result["jax"]} |'
      )
    if not found:
      lines.append(f'| {goal.what} | {goal.goal} | not measured | | | |')
  return '\n'.join(lines) + '\n'


def kept() -> list[dict]:
  """Returns the results that are kept in the repository."""
  files = sorted(measure.RESULTS.glob('*.json'))
  return [json.loads(file.read_text()) for file in files]


if __name__ == '__main__':
  try:
    marks.fill(PLACE, NAME, table(kept()))
  except UserError as error:
    sys.exit(f'error: {error}')
