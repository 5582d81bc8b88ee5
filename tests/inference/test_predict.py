"""The predict command: a table of names, and what could not be read."""

import csv

import numpy as np
import pytest

from csdnet_jax import load_run
from csdnet_jax.evaluation import neighbours
from csdnet_jax.inference import predict
from csdnet_jax.runtime.errors import UserError

import command
import images


@pytest.fixture
def leaves(tmp_path):
  for i in range(6):
    data = images.encode(images.pixels(i, 40, 44))
    images.write(tmp_path / 'leaves' / f'{i}.png', data)
  return tmp_path / 'leaves'


def _run(*argv):
  return command.here(predict.main, 'predict', *argv)


def test_the_table_holds_names_and_probabilities(trained, leaves, tmp_path):
  out = tmp_path / 'pred.csv'
  out.write_text('an older table')
  status, said = _run(f'--run={trained}', f'--out={out}', leaves)
  assert status == 0 and f'6 images: {out}' in said
  run = load_run(trained)
  assert run.calibration.how in said and run.unknown.how in said
  with open(out, newline='', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  paths = [row['path'] for row in rows]
  assert paths == sorted(map(str, leaves.iterdir()))
  p = run.predict(paths).probabilities
  k = len(run.class_names)  # Four: there is no fifth.
  assert len(rows[0]) == 5 + 2 * k
  assert [row['none_of_these'] for row in rows] == [''] * 6
  leaves = neighbours.read(trained)
  cosines = (
    run.embed(paths)
    @ leaves.vectors.T
    / np.outer(
      np.linalg.norm(run.embed(paths), axis=1),
      np.linalg.norm(leaves.vectors, axis=1),
    )
  )
  for row, expected, cosine in zip(rows, p, cosines, strict=True):
    assert row['label'] == ''  # Nobody has said it.
    assert row['nearest'] == leaves.names[cosine.argmax()]
    assert float(row['distance']) == pytest.approx(1 - cosine.max(), abs=1e-5)
    for i, c in enumerate(np.argsort(-expected), 1):
      assert row[f'class_{i}'] == run.class_names[c]
      assert float(row[f'probability_{i}']) == pytest.approx(
        expected[c], abs=1e-6
      )
  assert [f.name for f in tmp_path.iterdir() if '.part' in f.name] == []


def test_unreadable_images_are_listed_and_the_rest_done(
  trained, leaves, tmp_path
):
  images.write(leaves / '2.png', b'no image')
  images.write(leaves / '7.jpg', b'')
  out = tmp_path / 'pred.csv'
  status, said = _run(f'--run={trained}', f'--out={out}', leaves)
  assert status == 1
  assert 'Left out, 2 images' in said
  assert '2.png: not a' in said and '7.jpg: the file is empty' in said
  names = [line.partition(',')[0] for line in out.read_text().splitlines()[1:]]
  assert [n[-5:] for n in names] == [f'{i}.png' for i in (0, 1, 3, 4, 5)]


def test_what_is_passed_by_is_listed_and_the_status_is_1(
  trained, leaves, tmp_path
):
  out = tmp_path / 'pred.csv'
  images.write(leaves / '.DS_Store', b'x')
  status, said = _run(f'--run={trained}', f'--out={out}', leaves)
  assert status == 0 and 'ot used' not in said
  for name in ('a.CR2', 'b.cr2', 'notes.txt', '.hidden.png'):
    images.write(leaves / name, b'x')
  status, said = _run(f'--run={trained}', f'--out={out}', leaves)
  assert status == 1 and f'6 images: {out}' in said
  assert 'Not used, 4 in all:' in said
  lines = [' '.join(line.split()) for line in said.splitlines()]
  listed = ' '.join(lines[lines.index('Not used, 4 in all:') + 1 :])
  assert listed == (
    f'2 .CR2: {leaves}/a.CR2, {leaves}/b.cr2 1 hidden: {leaves}/.hidden.png '
    f'1 of unknown kind: {leaves}/notes.txt'
  )
  # What is named is tried whatever its name.
  picture = images.write(
    tmp_path / 'picture.upload', images.encode(images.pixels(9, 40, 40))
  )
  status, said = _run(f'--run={trained}', f'--out={out}', picture)
  assert status == 0 and '1 image: ' in said


def test_when_nothing_can_be_read_nothing_is_written(trained, tmp_path):
  bad = images.write(tmp_path / 'bad.png', b'no image')
  out = tmp_path / 'pred.csv'
  with pytest.raises(UserError, match='None of 1 images'):
    _run(f'--run={trained}', f'--out={out}', bad)
  assert not out.exists()


@pytest.mark.parametrize(
  ('out', 'words'),
  [
    ('leaves/0.png', r'ends in \.csv'),
    ('leaves', r'ends in \.csv'),
    ('no/pred.csv', 'make it first'),
  ],
)
def test_a_mistaken_out_is_said_before_anything_is_loaded(
  out, words, leaves, tmp_path
):
  with pytest.raises(UserError, match=words):
    _run('--run=absent', f'--out={tmp_path / out}', leaves)


@pytest.mark.slow
def test_the_command_exits_with_its_status(trained, leaves, tmp_path):
  def run(*args):
    status, said = command.csdnet('predict', *args)
    assert 'Traceback' not in said, said
    return status, said

  out = f'--out={tmp_path / "pred.csv"}'
  status, said = run(f'--run={trained}', out, leaves)
  assert status == 0, said
  status, said = run('--run=no/such', out, leaves)
  assert status == 2 and 'error: no/such is not the workdir' in said
  status, said = run(f'--run={trained}', out)
  assert status == 2 and 'IMAGES' in said
  images.write(leaves / 'bad.png', b'')
  status, said = run(f'--run={trained}', out, leaves / '*.png')
  assert status == 1 and 'bad.png' in said
