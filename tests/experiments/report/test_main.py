"""The command that makes a report."""

import csv

import pytest

from csdnet_jax.config import default, to_json
from csdnet_jax.runtime.errors import UserError
from experiments import results
from experiments.report import __main__ as command

from lines import first, line


def test_the_report_is_one_page_that_loads_nothing(tmp_path, capsys):
  rows = [line(a, s, first(9)) for a in ('base', '<b>$x') for s in (0, 1)]
  for row in rows:
    results.append(tmp_path / 'r.jsonl', row)
  command.main([str(tmp_path / 'r.jsonl'), f'--out={tmp_path / "out"}'])
  html = (tmp_path / 'out' / 'report.html').read_text()
  assert '<b>$x' not in html and '&lt;b&gt;$x' in html
  assert 'http' not in html.replace('data:image', '') and '<script' not in html
  with open(tmp_path / 'out' / 'made_up_grape58.csv') as file:
    header, base, _ = csv.reader(file)
  words = 'arm n splits mean sd diff low high visible'
  assert header == words.split()
  assert base == ['base', '2', '1', '22.5000', '0.0000', '', '', '', '']
  assert '| base (baseline) | 2 | 1 | 22.5 ± 0.0 |' in capsys.readouterr().out


def test_question_and_answer_stand_once_above_the_tables_of_a_grid(tmp_path):
  for set_ in ('oaks', 'elms'):
    results.append(tmp_path / 'r.jsonl', line('base', 0, first(9), set_=set_))
  words = tmp_path / 'a.toml'
  words.write_text("['made up']\nquestion = 'Why?'\nanswer = 'It is < 5.'\n")
  command.main([
    str(tmp_path / 'r.jsonl'), f'--out={tmp_path}', f'--answers={words}'
  ])  # fmt: skip
  written = (tmp_path / 'report.md').read_text()
  assert '## Why?\n\nIt is < 5.\n\n### made up: oaks\n' in written
  html = (tmp_path / 'report.html').read_text()
  order = [html.index(x) for x in ('<h2>Why?', 'It is &lt; 5.', '<h3>made up')]
  assert order == sorted(order)
  assert written.count('Why?') == html.count('Why?') == 1


def test_the_report_shows_notes_and_the_pictures_of_a_run(tmp_path):
  results.append(tmp_path / 'r.jsonl', line('base', 0, first(9)))
  run, notes = tmp_path / 'run', tmp_path / 'notes.txt'
  notes.write_text('It is < 5.\n\nAnd so on.')
  (run / 'pictures').mkdir(parents=True)
  config = default()
  config.data.root = '/home/me/oaks'
  (run / 'config.json').write_text(to_json(config))
  (run / 'pictures' / 'curves.png').write_bytes(b'not looked into')
  out = f'--out={tmp_path}'
  args = [str(tmp_path / 'r.jsonl'), out, f'--notes={notes}']
  command.main([*args, f'--pictures={run}'])
  html = (tmp_path / 'report.html').read_text()
  assert html.count('<p class="note">') == 2 and 'It is &lt; 5.' in html
  assert html.count('data:image/png') == 1 and 'terms of the loss' in html
  assert 'csdnet on oaks, seed 0, 30 epochs.' in html and '/home' not in html
  with pytest.raises(UserError, match='no pictures in it'):
    (run / 'pictures').rename(run / 'images')
    command.main([*args, f'--pictures={run}'])
  with pytest.raises(UserError, match=r'no config\.json in it'):
    command.main([*args, f'--pictures={tmp_path}'])
  with pytest.raises(UserError, match='cannot be read as UTF-8'):
    command.main([args[0], out, f'--notes={run / "x"}'])
  with pytest.raises(UserError, match='add --out'):
    command.main([args[0], f'--notes={notes}'])
  with pytest.raises(UserError, match='notes.txt/x cannot be made'):
    command.main([args[0], f'--out={notes / "x"}'])
  assert (tmp_path / 'report.md').read_text().startswith('It is < 5.')
