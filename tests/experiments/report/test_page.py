"""The page of a report."""

from experiments.report import collect, page

from lines import first, line


def test_a_page_keeps_its_tables():
  (table,) = collect.tables([line('base', 0, first(3))])
  assert page.page('a & b', [table]).count('a &amp; b') == 2
