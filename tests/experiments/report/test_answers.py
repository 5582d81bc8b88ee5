"""The words above the tables of a grid."""

import pytest

from csdnet_jax.runtime.errors import UserError
from experiments.report import answers


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
