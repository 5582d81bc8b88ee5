"""What a person should know of a data set before a run spends time on it."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from csdnet_jax.data import folders
from csdnet_jax.data.images import findings, splits
from csdnet_jax.data.masks import layouts, pairs
from csdnet_jax.runtime.errors import UserError, counted, printable
from csdnet_jax.runtime.terminal import say

_SHOWN = 3  # Items of a finding, in a line of the report.
_NAMED = 10  # In an error, which has no file that names the rest.
_CLASSES = 20  # Of more, a line says too much.


class Report(NamedTuple):
  """What is there to be trained on.

  Attributes:
    text: for people, plain lines.
    figures: the same, and more, as plain data.
    details: lines that matter less, of the sizes of the images.
  """

  text: str
  figures: dict[str, Any]
  details: str


def tell(checked: Report) -> None:
  """Says a report, its details to those who ask for more."""
  say(checked.text)
  say(checked.details, verbose=True)


def data_report(
  dataset: splits.Dataset,
  prints: np.ndarray,
  *,
  size: int,
  group: str = '',
  test_fraction: float = 0.5,
  strict: bool = False,
  folds: np.ndarray | None = None,
) -> Report:
  """Counts, sizes, and what may be wrong with the images or their split.

  Args:
    dataset: the images.
    prints: `fingerprints.DTYPE` [n], in the order of `splits.whole`.
    size: pixels a side that the network sees.
    group: `config.data.group`.
    test_fraction: `config.data.test_fraction`, by which a test part was drawn.
    strict: stop at what leaks or contradicts itself, instead of reporting it.
    folds: int [n] of the train part, which is dealt over them (`folds.deal`).

  Returns:
    The text; and the figures `parts`, `unused`, `sizes` and those of
    `findings`, which JSON can hold.

  Raises:
    UserError: with `strict`, names the files.
  """
  found = findings.of(dataset, prints, size=size, group=group, folds=folds)
  figures = {
    'name': dataset.name,
    'classes': len(dataset.class_names),
    'parts': {
      part: _counts(dataset, split)
      for part, split in splits.parts_of(dataset).items()
    },
    'images_of_class': _images_of_class(dataset),
    'unused': folders.counts(dataset.unused),
    'sizes': _sizes(prints['size']),
    **{finding.name: finding.items for finding in found},
  }
  stops = [_refused(f.items, f.what) for f in found if f.stops]
  if strict and stops:
    raise UserError(
      f'{dataset.name}: {" and ".join(stops)}; correct the data, or set '
      '--config.data.strict=False to go on'
    )
  lines = [*_table(figures), *beside(dataset)]
  if folds is None and dataset.drawn:
    lines.append(_drawn(dataset, group, test_fraction))
  elif folds is None and not test_fraction:
    lines.append(
      'note: config.data.test_fraction=0 is not heeded: the split came with '
      'the data'
    )
  for f in sorted(found, key=lambda f: f.warns):
    kind = 'WARNING' if f.warns else 'note'
    lines.append(f'{kind}: {_finding(f.items, f.what, f.advice)}')
  return Report('\n'.join(lines), figures, _details(figures['sizes']))


def _drawn(dataset: splits.Dataset, group: str, test_fraction: float) -> str:
  """How the test part was drawn."""
  if not dataset.test.names:
    told = 'the run trains on every image, and nothing will tell how good it is'
    if dataset.val:
      told = 'the validation part alone will tell how good the run is'
    return f'  Nothing is for test (config.data.test_fraction=0): {told}.'
  by = ''
  if dataset.groups:
    n = counted(len(set(dataset.groups.values())), 'groups')
    whose = f'config.data.group={group}' if group else 'of the table'
    by = f', {n} kept whole ({whose})'
  return (
    f'  The program drew the test part, {test_fraction:g} of each class '
    f'(config.data.test_fraction){by}.'
  )


def beside(dataset: splits.Dataset | layouts.SegmentationSet) -> list[str]:
  """What lies beside the images, and what its source says, in lines."""
  said = folders.said(dataset.unused)
  notes = [f'note: {n}' for n in getattr(dataset, 'notes', ())]
  doubts = [f'WARNING: {w}' for w in getattr(dataset, 'warnings', ())]
  return [*([f'  {said}'] if said else []), *notes, *doubts]


def _counts(dataset: splits.Dataset, split: splits.Split) -> dict[str, Any]:
  counts = np.bincount(split.labels, minlength=len(dataset.class_names))
  smallest = int(counts.argmin())
  return {
    'images': len(split.names),
    'classes': int((counts > 0).sum()),
    'smallest_class': dataset.class_names[smallest],
    'smallest_class_images': int(counts[smallest]),
    'largest_class_images': int(counts.max()),
  }


def _images_of_class(dataset: splits.Dataset) -> dict[str, int]:
  labels = splits.whole(dataset).labels
  counts = np.bincount(labels, minlength=len(dataset.class_names))
  return dict(zip(dataset.class_names, counts.tolist(), strict=True))


def _sizes(sizes: np.ndarray) -> dict[str, Any]:
  long, short = sizes.max(1), sizes.min(1)
  octaves = np.floor(np.log2(long)).astype(int)
  return {
    'longer_side': {
      f'{2**o}-{2 ** (o + 1) - 1}': int(n)
      for o, n in sorted(collections.Counter(octaves.tolist()).items())
    },
    'smallest': sizes[(long * short).argmin()].tolist(),
    'largest': sizes[(long * short).argmax()].tolist(),
    'widest_aspect': round(float((long / short).max()), 2),
  }


def _equal_files(
  parts: Mapping[str, layouts.Pairs],
  digests: Mapping[str, Sequence[str]],
) -> tuple[list[str], list[str]]:
  """Groups of equal files, in one part and over parts, as 'a = b' each."""
  groups = collections.defaultdict(list)
  for part, split in parts.items():
    for name, digest in zip(split.names, digests[part], strict=True):
      groups[digest].append((part, name))
  within, across = [], []
  for group in groups.values():
    if len(group) > 1:
      one_part = len({part for part, _ in group}) == 1
      joined = ' = '.join(f'{name} ({part})' for part, name in group)
      (within if one_part else across).append(joined)
  return within, across


def _finding(items: Sequence[str], what: str, advice: str = '') -> str:
  """A line of the report; what to do comes before what may be long."""
  shown = '; '.join(items[:_SHOWN])
  if len(items) > _SHOWN:
    shown += '; ...; data_report.json has all'
  advice = advice and f'; {advice}'
  return f'{counted(len(items), what)}{advice} ({shown})'


def _refused(items: Sequence[str], what: str) -> str:
  """What stops a run, for an error's sentence."""
  more = len(items) - _NAMED
  rest = f' and {more} more' if more > 0 else ''
  return f'{counted(len(items), what)} ({", ".join(items[:_NAMED])}{rest})'


def _table(figures: Mapping[str, Any]) -> list[str]:
  lines = [f'{figures["name"]}: {counted(figures["classes"], "classes")}']
  for part, c in figures['parts'].items():
    low, high = c['smallest_class_images'], c['largest_class_images']
    spread = f'{low} to {high} each (fewest: {c["smallest_class"]})'
    lines.append(
      f'  {part:5} {_aligned(c["images"], "images")} of '
      f'{counted(c["classes"], "classes")}, '
      f'{spread if low < high else f"{low} each"}'
    )
  of_class = figures['images_of_class']
  if len(of_class) <= _CLASSES:
    said = ', '.join(f'{printable(name)} {n}' for name, n in of_class.items())
    lines.append(f'  classes: {said}')
  return lines


def _aligned(n: int, what: str) -> str:
  """`counted`, with the numbers of lines below one another."""
  number, _, noun = counted(n, what).partition(' ')
  return f'{number:>6} {noun}'


def _details(sizes: Mapping[str, Any]) -> str:
  (h0, w0), (h1, w1) = sizes['smallest'], sizes['largest']
  longer = ', '.join(f'{k}: {n}' for k, n in sizes['longer_side'].items())
  lines = [
    f'  sizes from {h0} x {w0} to {h1} x {w1}, aspects up to '
    f'{sizes["widest_aspect"]} : 1',
    f'  longer side in pixels: {longer}',
  ]
  return '\n'.join(lines)


def pairs_report(
  dataset: layouts.SegmentationSet,
  scans: Mapping[str, pairs.Scan],
  counts: Mapping[str, np.ndarray],
  *,
  strict: bool = False,
) -> Report:
  """Counts, class shares, sizes and equal files of images with masks.

  Args:
    dataset: the pairs.
    scans: of each part that `segmentation.parts_of` names.
    counts: int64 [n, 256] for each part; see `pairs.Prepared`.
    strict: stop where equal images are on two sides of the split or a class has
      no pixel to learn from, instead of reporting them.

  Returns:
    The text; and the figures `parts`, `unused`, `classes` (the percentage of
    each class among the labelled pixels of each part), `sizes`, `equal_within`
    and `equal_across`, which JSON can hold.

  Raises:
    UserError: with `strict`, names the files or the classes.
  """
  parts = layouts.parts_of(dataset)
  names = dataset.class_names
  digests = {part: scans[part].images for part in parts}
  within, across = _equal_files(parts, digests)
  pixels = {part: counts[part].sum(0) for part in parts}
  shares = {
    part: 100 * n[: len(names)] / max(n[: len(names)].sum(), 1)
    for part, n in pixels.items()
  }
  absent = {
    part: [c for c, share in zip(names, s, strict=True) if not share]
    for part, s in shares.items()
  }
  figures = {
    'name': dataset.name,
    'parts': {
      part: {
        'pairs': len(parts[part].names),
        'left_out_percent': float(100 * n[layouts.IGNORE] / n.sum()),
        'pairs_without_labels': int(
          (counts[part][:, : len(names)].sum(1) == 0).sum()
        ),
        'absent_classes': absent[part],
      }
      for part, n in pixels.items()
    },
    'classes': {
      name: {part: float(s[i]) for part, s in shares.items()}
      for i, name in enumerate(names)
    },
    'unused': folders.counts(dataset.unused),
    'sizes': _sizes(np.concatenate([scans[part].sizes for part in parts])),
    'equal_within': within,
    'equal_across': across,
  }
  found = [
    (items, what)
    for items, what in (
      (across, 'images are on both sides of the split'),
      (absent['train'], 'classes have no pixel in train'),
    )
    if items
  ]
  if strict and found:
    stops = ' and '.join(_refused(*finding) for finding in found)
    raise UserError(
      f'{dataset.name}: {stops}; correct the data, or set '
      '--config.data.strict=False to go on'
    )
  notes = beside(dataset)
  if within:
    notes.append(f'note: {_finding(within, "images are twice in one part")}')
  notes += [f'WARNING: {_finding(*finding)}' for finding in found]
  return Report(
    '\n'.join([*_pairs_table(figures), *notes]),
    figures,
    _details(figures['sizes']),
  )


def _pairs_table(figures: Mapping[str, Any]) -> list[str]:
  classes = counted(len(figures['classes']), 'classes')
  lines = [f'{figures["name"]}: {classes}']
  for part, p in figures['parts'].items():
    absent = len(p['absent_classes'])
    without = p['pairs_without_labels']
    lines.append(
      f'  {part:5} {_aligned(p["pairs"], "pairs")}, '
      f'{p["left_out_percent"]:.2f} % of the pixels left out'
      + (f', {counted(absent, "classes absent")}' if absent else '')
      + (f', {counted(without, "pairs without any label")}' if without else '')
    )
  train = {name: share['train'] for name, share in figures['classes'].items()}
  rare = sorted(train, key=train.get)[:5]
  said = ', '.join(f'{name} {train[name]:.2f} %' for name in rare)
  return [*lines, f'  rarest in train: {said}']
