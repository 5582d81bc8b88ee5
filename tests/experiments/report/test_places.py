"""The tables of results that stand in documents."""

from experiments import marks
from experiments.report import __main__ as command, collect, places, text

from lines import first, line


def test_both_documents_are_written(tmp_path, monkeypatch):
  monkeypatch.setattr(places, 'ROOT', tmp_path)
  (tmp_path / 'docs').mkdir()
  for path in (tmp_path / 'README.md', tmp_path / 'docs' / 'evidence.md'):
    path.write_text('a\n<!-- results: begin -->\n<!-- results: end -->\nb\n')
  command.main(['--readme'])
  made = places.generated()
  for path, table in made.items():
    assert marks.inside(path, places.NAME) == table
    assert table.startswith('| arm | grape58')
  short, whole = made.values()
  assert set(short.splitlines()) < set(whole.splitlines())


def test_the_readme_has_the_strongest_cross_entropy_and_the_probe():
  rows = []
  for set_, figures in (('a', (20, 10, 18, 5)), ('b', (20, 21, 19, 30))):
    arms = ('base', 'cross-entropy, x', 'cross-entropy, y', 'other')
    for arm, right in zip(arms, figures, strict=True):
      rows += [line(arm, s, first(right), set_=set_) for s in range(2)]
  for x in rows:
    x['summary']['start'] = {'knn': 40.0, 'linear_probe': 50.0}
  made = collect.tables(rows)
  lines = text.summary(made).splitlines()
  assert lines[0] == '| arm | a | b |' and len(lines) == 5
  assert lines[2] == '| base | 50.0 ± 0.0 (2) | 50.0 ± 0.0 (2) |'
  assert lines[3].startswith('| cross-entropy, y | 45.0 ± 0.0 (2)<br>-5.0 (')
  assert lines[4] == '| frozen features, linear probe | 50.0 | 50.0 |'
  assert len(text.overview(made).splitlines()) == 9


def test_they_say_by_which_commit_they_were_made():
  rows = [line('base', 0, first(9), code={'commit': '3fbbd39'})]
  last = text.overview(collect.tables(rows)).splitlines()[-2:]
  assert last == ['', 'Made by commit 3fbbd39.']


def test_one_seed_has_a_difference_without_an_interval():
  rows = [line(a, 0, first(n)) for a, n in (('base', 20), ('a', 22))]
  lines = text.overview(collect.tables(rows)).splitlines()
  assert '| a | 55.0 (1)<br>+5.0 |' in lines
