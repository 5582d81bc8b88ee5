r"""Makes a report of finished grids.

  python -m experiments.report experiments/results/components.jsonl \
    --out=experiments/reports/components

prints a Markdown table for each grid and data set: for each arm the mean, the
standard deviation, the numbers of seeds and of splits, and the difference from
the baseline with a 95 % interval and with half its width, the difference that
it could have seen. Where each seed has a split of its own the intervals are
over re-splits of these images, else over seeds and images of the one split.
Where lines know the groups of their images and a split cuts some, a second
table is of the classes of which it cuts none.
With --out it also writes `report.md`, `report.html` and, for each table, a CSV
file with the columns `arm,n,splits,mean,sd,diff,low,high,visible`. Runs are
averaged only if nothing differs between them but the seed and its split, and
compared only if nothing but what the grid sets. A grid that chooses something,
such as tuning, is judged on the validation part of train; --part says another.
--notes=FILE puts paragraphs of text on top of the report, --answers=FILE above
the tables of each grid the question that it asks and the answer, from a TOML
file with

  [components]
  question = 'What is each module worth?'
  answer = 'It is not seen yet.'

for every grid, and --pictures=RUN at the end of the page what a run's workdir
shows of it.

  python -m experiments.report --readme

writes the tables of README.md and docs/evidence.md from
experiments/results/baselines.jsonl.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from csdnet_jax.runtime.errors import UserError
from experiments import results
from experiments.report import answers, collect, page, places, text


def main(argv: Sequence[str]) -> None:
  """Reads the files, prints the tables, writes the report."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.report',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('results', nargs='*', type=pathlib.Path)
  parser.add_argument('--baseline', default='', metavar='ARM')
  parser.add_argument('--part', default='', choices=('test', 'val'))
  parser.add_argument('--out', type=pathlib.Path, metavar='DIR')
  parser.add_argument('--notes', type=pathlib.Path, metavar='FILE')
  parser.add_argument('--answers', type=pathlib.Path, metavar='FILE')
  parser.add_argument('--pictures', type=pathlib.Path, metavar='RUN')
  parser.add_argument('--readme', action='store_true')
  args = parser.parse_args(argv)
  if args.readme:
    places.write()
  if not args.results:
    if args.readme:
      return
    raise UserError(
      'Say which results to collect, such as '
      'experiments/results/components.jsonl.'
    )
  absent = [str(path) for path in args.results if not path.exists()]
  if absent:
    raise UserError(f'There is no file {absent[0]}; run its grid first.')
  if (args.notes or args.answers or args.pictures) and not args.out:
    raise UserError(
      '--notes, --answers and --pictures go into files; add --out=DIR.'
    )
  notes = ''
  if args.notes:
    try:
      notes = args.notes.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
      raise UserError(
        f'--notes={args.notes} cannot be read as UTF-8 text ({error}); name '
        'another file.'
      ) from error
  for name in ('config.json', 'pictures'):
    if args.pictures and not (args.pictures / name).exists():
      raise UserError(
        f'--pictures={args.pictures}: it is not the workdir of a finished run, '
        f'there is no {name} in it.'
      )
  rows = [row for path in args.results for row in results.read(path)]
  grids = dict.fromkeys(row['grid'] for row in rows)
  words = answers.read(args.answers, grids) if args.answers else {}
  made = collect.tables(rows, baseline=args.baseline, part=args.part)
  whole = text.document(made, words)
  print(whole)
  if args.out:
    try:
      args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise UserError(
        f'--out={args.out} cannot be made ({error.strerror}); name a folder.'
      ) from error
    title = ', '.join(grids)
    head = '\n\n'.join(x for x in (notes.strip(), text.METHOD) if x)
    (args.out / 'report.md').write_text(f'{head}\n\n{whole}', encoding='utf-8')
    (args.out / 'report.html').write_text(
      page.page(title, made, answers=words, notes=notes, run=args.pictures),
      encoding='utf-8',
    )
    for table in made:
      name = f'{table.grid}_{table.set}'.replace(', ', '_').replace(' ', '_')
      text.write_csv(args.out / f'{name}.csv', table)
    print(f'Wrote {args.out / "report.html"}')


if __name__ == '__main__':
  try:
    main(sys.argv[1:])
  except UserError as error:
    sys.exit(f'error: {error}')
