r"""How many leaves of a folder of photographs `csdnet cut` finds.

  python -m experiments.bench.cut --photographs=PHOTOS \
    --boxes=experiments/bench/grape_boxes.csv

BOXES has a row `photograph,left,top,right,bottom` for every true leaf, in
pixels. Those of `grape_boxes.csv`, of the photographs that `csdnet data
grape58` fetches, come from another rule than the cutter's (blue or brightest
channel below 110, at full resolution); the leaves were counted, and the
outlines checked, by eye on contact sheets. Prints the photographs with a
mistake, then one JSON line.
"""

import collections
import csv
import json
import pathlib
import time
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.optimize
from absl import app, flags

from csdnet_jax.data import decode
from csdnet_jax.data.photographs import find, folder

Box = tuple[int, int, int, int]
_MATCH = 0.5  # Intersection over union.
_INSIDE = 0.5  # Of a box's own area.


def _overlap(a: Box, b: Box) -> int:
  width = min(a[2], b[2]) - max(a[0], b[0])
  height = min(a[3], b[3]) - max(a[1], b[1])
  return max(width, 0) * max(height, 0)


def compare(found: Sequence[Box], true: Sequence[Box]) -> dict[str, list]:
  """Tells what became of each true box, by one-to-one matching.

  Args:
    found: left, top, right, bottom each.
    true: the same.

  Returns:
    `matched`: the IoU of each pair with at least 0.5, such that they are most
    in all; of the other boxes: `split`, true ones that hold several found ones;
    `joined`, true ones of which a found one holds several; `missed`, the other
    true ones; `false`, the other found ones.

  >>> compare([(0, 0, 9, 9)], [(0, 0, 9, 9), (20, 0, 29, 9)])
  {'matched': [1.0], 'split': [], 'joined': [], 'missed': [(20, 0, 29, 9)], \
'false': []}
  """
  shared = np.array([[_overlap(f, t) for t in true] for f in found])
  shared = shared.reshape(len(found), len(true)).astype(float)
  of_found, of_true = (
    np.array([_overlap(box, box) for box in boxes], float)
    for boxes in (found, true)
  )
  union = of_found[:, None] + of_true - shared
  iou = np.where(shared > 0, shared / union, 0)
  pairs = zip(*scipy.optimize.linear_sum_assignment(-iou), strict=True)
  pairs = [(f, t) for f, t in pairs if iou[f, t] >= _MATCH]
  left = [f for f in range(len(found)) if f not in {f for f, _ in pairs}]
  lost = [t for t in range(len(true)) if t not in {t for _, t in pairs}]
  within = shared > _INSIDE * of_found[:, None]  # Found in true.
  holds = shared > _INSIDE * of_true  # True in found.
  split = [t for t in range(len(true)) if within[:, t].sum() > 1]
  joined = [t for t in lost if (holds[:, t] & (holds.sum(1) > 1)).any()]
  explained = [
    f for f in left if within[f, split].any() or holds[f, joined].any()
  ]
  return {
    'matched': [float(iou[pair]) for pair in pairs],
    'split': [true[t] for t in split],
    'joined': [true[t] for t in joined],
    'missed': [true[t] for t in lost if t not in {*split, *joined}],
    'false': [found[f] for f in left if f not in explained],
  }


def read_boxes(path: pathlib.Path) -> dict[str, list[Box]]:
  """{photograph: its true boxes}."""
  boxes = collections.defaultdict(list)
  with path.open(encoding='utf-8', newline='') as file:
    for name, *box in list(csv.reader(file))[1:]:
      boxes[name].append(tuple(map(int, box)))
  return boxes


def measure(root: pathlib.Path, true: Mapping[str, Sequence[Box]]) -> dict:
  """Looks at every photograph of a folder; says where it errs."""
  counts, ious, noted, start = collections.Counter(), [], 0, time.perf_counter()
  names, _ = folder.list_photographs(root)
  for name in names:
    pixels = decode.decode((root / name).read_bytes(), name)
    leaves = find.find(pixels).leaves
    result = compare([leaf.box for leaf in leaves], true.get(name, []))
    ious += result.pop('matched')
    noted += sum(bool(leaf.note) for leaf in leaves)
    counts.update(
      found=len(leaves), **{what: len(boxes) for what, boxes in result.items()}
    )
    if any(result.values()):
      print(name, {what: boxes for what, boxes in result.items() if boxes})
  return {
    'photographs': len(names),
    'true': sum(len(true.get(name, [])) for name in names),
    'matched': len(ious),
    **counts,
    'noted': noted,
    'mean_iou': round(float(np.mean(ious)), 4) if ious else None,
    'least_iou': round(min(ious), 4) if ious else None,
    'seconds_a_photograph': round(
      (time.perf_counter() - start) / len(names), 3
    ),
  }


def main(argv: Sequence[str]) -> None:
  """Measures and prints."""
  del argv
  args = flags.FLAGS
  true = read_boxes(pathlib.Path(args.boxes))
  print(json.dumps(measure(pathlib.Path(args.photographs), true)))


if __name__ == '__main__':
  flags.DEFINE_string('photographs', None, 'Their folder.', required=True)
  flags.DEFINE_string('boxes', None, 'CSV of the true boxes.', required=True)
  app.run(main)
