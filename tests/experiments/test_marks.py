"""What programs write into documents."""

import pytest

from csdnet_jax.runtime.errors import UserError
from experiments import marks


def test_only_what_is_between_the_marks_changes(tmp_path):
  path = tmp_path / 'a.md'
  path.write_text('a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n')
  marks.fill(path, 'x', 'new\n')
  assert path.read_text() == 'a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb\n'
  assert marks.inside(path, 'x') == 'new\n'


@pytest.mark.parametrize('text', [None, '', '<!-- x: begin -->\n'])
def test_an_absent_file_or_mark_is_said(tmp_path, text):
  path = tmp_path / 'a.md'
  if text is not None:
    path.write_text(text)
  with pytest.raises(UserError, match='a.md has no line <!-- x: begin -->'):
    marks.fill(path, 'x', 'new\n')
