"""The words above the tables of a grid, and those of the committed report."""

import pathlib
import re

import pytest

from csdnet_jax.runtime.errors import UserError
from experiments import results
from experiments.report import answers, collect, text

REPORT = pathlib.Path(text.__file__).parents[1] / 'reports' / 'csdnet'
GRIDS = ('baselines', 'components', 'ssdp', 'recipe')


def test_a_paragraph_may_be_written_in_lines(tmp_path):
  path = tmp_path / 'a.toml'
  path.write_text("[g]\nquestion = 'Why?'\nanswer = '''\nIt is\nso.\n'''\n")
  assert answers.read(path, ['g']) == {'g': answers.Answer('Why?', 'It is so.')}


@pytest.mark.parametrize(
  ('content', 'words'),
  [
    ("[g]\nquestion = 'x'\nanswer = 'y'\n", 'in one of the two alone: h'),
    ("[g]\n[h]\n[z]\n", 'in one of the two alone: z'),
    ("[g]\nquestion = 'x'\n[h]\n", r'\[g\] needs the texts `question` and'),
    ("g = 'x'\nh = 'y'\n", r'\[g\] needs the texts'),
    ('[g', 'cannot be read as TOML'),
    (None, 'cannot be read as TOML'),
  ],
)  # fmt: skip
def test_other_words_than_those_of_the_grids_are_refused(
  tmp_path, content, words
):
  path = tmp_path / 'a.toml'
  if content is not None:
    path.write_text(content)
  with pytest.raises(UserError, match=words):
    answers.read(path, ['g', 'h'])


def test_the_committed_report_is_of_the_committed_lines():
  rows = [
    x for g in GRIDS for x in results.read(results.RESULTS / f'{g}.jsonl')
  ]
  made = collect.tables(rows, baseline='CSDNet without SSDP')
  words = answers.read(REPORT / 'answers.toml', GRIDS)
  written = (REPORT / 'report.md').read_text(encoding='utf-8')
  assert written.endswith(text.document(made, words))


@pytest.mark.parametrize('grid', GRIDS)
def test_a_figure_of_a_committed_answer_is_one_of_its_tables(grid):
  """Or, of a difference, the same without its sign."""
  written = (REPORT / 'report.md').read_text(encoding='utf-8')
  tables = re.findall(rf'^### {grid}:.*\n\n.*\n\n((?:\|.*\n)+)', written, re.M)
  answer = answers.read(REPORT / 'answers.toml', GRIDS)[grid].answer
  said = set(re.findall(r'\d+\.\d', answer))
  assert said and said <= set(re.findall(r'\d+\.\d', ''.join(tables)))
