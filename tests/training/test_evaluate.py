"""A run evaluated again: on its own images wherever they are, and on others."""

import csv
import json
import shutil

import jax
import pytest
from PIL import Image

from csdnet_jax.config import from_json
from csdnet_jax.data import leaves
from csdnet_jax.evaluation import calibration
from csdnet_jax.runtime import terminal
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training.dry_run import dry_run
from csdnet_jax.training.evaluate import evaluate_run
from csdnet_jax.training.train import train

import images
import runs

DEVICE = jax.devices()[:1]


def evaluated(workdir, changes=None, **given):
  """The figures, and what was said."""
  config = from_json((workdir / 'config.json').read_text())
  config.update_from_flattened_dict(changes or {})
  with terminal.console.capture() as captured:
    figures = evaluate_run(config, workdir, devices=DEVICE, **given)
  return figures, ' '.join(captured.get().split())


def split_of(workdir):
  return json.loads((workdir / 'split.json').read_text())


def others(root, folder_run, *parts, **more):
  """A folder of the run's own pictures of some parts, under other names."""
  workdir, pictures = folder_run
  split = split_of(workdir)
  for part in parts:
    for i, (name, label) in enumerate(split[part].items()):
      folder = root / split['class_names'][label]
      folder.mkdir(parents=True, exist_ok=True)
      shutil.copy(pictures / name, folder / f'{part}_{i}.png')
  images.class_folders(root, more)
  return str(root)


@pytest.fixture
def moved(folder_run, tmp_path):
  """(workdir, root) of the run, both copied; the first root is kept as gone."""
  workdir = shutil.copytree(folder_run[0], tmp_path / 'run')
  root = shutil.copytree(folder_run[1], tmp_path / 'moved')
  config = json.loads((workdir / 'config.json').read_text())
  config['data']['root'] = '/gone/pictures'
  (workdir / 'config.json').write_text(json.dumps(config))
  return workdir, root


def test_the_own_test_part_in_words_of_people(folder_run):
  workdir, _ = folder_run
  before = sorted(workdir.rglob('*'))
  figures, said = evaluated(workdir)
  summary = json.loads((workdir / 'summary.json').read_text())
  assert figures['top1'] == summary['top1'] and figures['n'] == 12
  for words in ('top-1, percent', 'mean per class', 'cross-entropy', 'images'):
    assert words in said
  assert 'mean_per_class' not in said
  assert sorted(workdir.rglob('*')) == before


def test_moved_images_are_found_where_one_says(folder_run, moved):
  workdir, root = moved
  with pytest.raises(UserError, match='are not at /gone/pic.*--data_root=DIR'):
    evaluated(workdir)
  known, _ = evaluated(folder_run[0])
  for given in (str(root), f'{root}/'):
    assert evaluated(workdir, data_root=given)[0] == known
    assert evaluated(workdir, {'data.root': given})[0] == known
  shutil.copy(root / 'oak' / '0.png', root / 'ash' / 'new.png')
  figures, said = evaluated(workdir, data_root=str(root))
  assert figures == known
  assert 'not used: 1 added since the run began (ash/new.png)' in said
  (root / 'oak' / '3.png').unlink()
  with pytest.raises(UserError, match=r'1 are missing \(oak/3.png\)'):
    evaluated(workdir, data_root=str(root))


def test_a_run_of_a_table_that_is_gone_is_evaluated(folder_run, moved):
  workdir, root = moved
  config = json.loads((workdir / 'config.json').read_text())
  config['data']['table'] = '/gone/key.csv'
  (workdir / 'config.json').write_text(json.dumps(config))
  figures, said = evaluated(workdir, data_root=str(root))
  assert figures == evaluated(folder_run[0])[0]
  assert 'There is no table /gone/key.csv any more' in said


def test_added_images_change_nothing_and_replaced_ones_stop(folder_run, moved):
  workdir, root = moved
  (workdir / 'summary.json').unlink()
  config = from_json((workdir / 'config.json').read_text())
  config.data.root = str(root)
  shutil.copy(root / 'oak' / '0.png', root / 'ash' / 'new.png')
  images.class_folders(root, {'aspen': 2})
  with terminal.console.capture() as captured:
    assert train(config, workdir, devices=DEVICE)['n_test'] == 12
  words = 'not used: 3 added since the run began (ash/new.png, aspen/0.png'
  assert words in ' '.join(captured.get().split())
  assert split_of(workdir) == split_of(folder_run[0])
  kept = json.loads((workdir / 'config.json').read_text())
  assert kept['data']['root'] == str(root)
  (workdir / 'summary.json').unlink()
  shutil.copy(root / 'yew' / '1.png', root / 'oak' / '2.png')
  for start in (train, dry_run):
    with pytest.raises(UserError, match=r'other pictures now \(oak/2.png\)'):
      start(config, workdir, devices=DEVICE)


def test_a_run_without_a_test_part_is_evaluated_on_a_folder(
  moved, folder_run, tmp_path
):
  workdir, root = moved
  split = split_of(workdir)
  del split['test']
  (workdir / 'split.json').write_text(json.dumps(split))
  with pytest.raises(UserError, match=r'no test part; .* FOLDER'):
    evaluated(workdir, data_root=str(root))
  folder = others(tmp_path / 'x', folder_run, 'test')
  assert evaluated(workdir, folder=folder)[0] == evaluated(folder_run[0])[0]


def test_all_of_a_folder_without_what_was_trained_on(folder_run, tmp_path):
  workdir, _ = folder_run
  n = {part: len(split_of(workdir)[part]) for part in ('train', 'test')}
  folder = others(tmp_path / 'new', folder_run, 'train', 'test')
  known, _ = evaluated(workdir)
  figures, said = evaluated(workdir, folder=folder)
  assert figures == known
  trained, whole = n['train'], n['train'] + n['test']
  assert f'{trained} images of {whole} were trained on and are left out' in said
  with pytest.raises(UserError, match=f'was trained on all {trained} images'):
    evaluated(workdir, folder=others(tmp_path / 'old', folder_run, 'train'))


@pytest.mark.slow
def test_what_was_trained_on_and_saved_again_is_known(tmp_path):
  root, workdir, new = (tmp_path / name for name in ('set', 'run', 'new'))
  leaves.write(root, cultivars=3, train_per_class=2, test_per_class=2, size=128)
  fields = {'data.source': 'folder', 'data.root': str(root), 'epochs': 1.0}
  train(runs.config(tmp_path / 'cache', **fields), workdir, devices=DEVICE)
  split = split_of(workdir)
  for name in split['train']:
    leaf = Image.open(root / 'images' / name)
    again = new / 'test' / name
    images.write(again, images.encode(leaf, compress_level=0))
    images.write(again.with_suffix('.jpg'), images.encode(leaf, 'JPEG'))
  # Other leaves of the same cultivars.
  for name in split['test']:
    data = (root / 'images' / name).read_bytes()
    images.write(new / 'train' / name, data)
  figures, said = evaluated(workdir, folder=str(new))
  assert figures['n'] == 12
  assert '6 images of 18 were trained on and are left out' in said
  words = 'WARNING: 6 of 12 images are all but equal to training images ('
  first = 'test/cultivar_01/1.jpg ~ cultivar_01/1.png, '
  assert words + first in said and said.count(' ~ ') == 3
  # Its test part alone.
  changes = {'data.root': str(new), 'data.split_seed': 5}
  figures, said = evaluated(workdir, changes)
  assert figures['n'] == 6
  assert '6 images of 12 were trained on' in said and '6 of 6 images' in said
  # A run from before fingerprints were kept.
  del split['prints']
  (workdir / 'split.json').write_text(json.dumps(split))
  figures, said = evaluated(workdir, folder=str(new))
  assert figures['n'] == 18
  assert 'left out' not in said and 'WARNING' not in said


def test_a_folder_may_have_a_split_and_some_of_the_classes(
  folder_run, tmp_path
):
  workdir, _ = folder_run
  for part, seed in (('train', 3), ('test', 2)):
    for i in range(seed):
      data = images.encode(images.pixels(9000 + 10 * seed + i))
      images.write(tmp_path / 'x' / part / 'yew ' / f'{i}.png', data)
  figures, said = evaluated(workdir, folder=str(tmp_path / 'x'))
  assert figures['n'] == 5 and 'left out' not in said


def test_all_rows_of_a_table_are_evaluated_whatever_their_part(
  folder_run, tmp_path
):
  workdir, pictures = folder_run
  split = split_of(workdir)
  rows = ['path,label,part']
  for part in ('train', 'test'):
    for i, (name, label) in enumerate(split[part].items()):
      images.write(tmp_path / f'{part}{i}.png', (pictures / name).read_bytes())
      rows.append(f'{part}{i}.png,{split["class_names"][label]},test')
  table = images.write(tmp_path / 't.csv', '\n'.join(rows).encode())
  given = {'data.table': str(table)}
  figures, said = evaluated(workdir, given, folder=str(tmp_path))
  assert figures == evaluated(workdir)[0]
  n = {part: len(split[part]) for part in ('train', 'test')}
  assert f'{n["train"]} images of {sum(n.values())} were trained on' in said
  # The rows of its train part alone, and of a single class.
  rows = [row.replace(',test', ',train') for row in rows if ',test' in row]
  rows = [row for row in rows if row.startswith('test0')]
  images.write(table, '\n'.join(['path,label,part', *rows]).encode())
  assert evaluated(workdir, given, folder=str(tmp_path))[0]['n'] == 1


def test_classes_that_are_unknown_are_refused_by_name(folder_run, tmp_path):
  folder = others(tmp_path / 'x', folder_run, 'test', Oak=1, oaks=1)
  words = r'none of the run: Oak \(the run has oak\), oaks; rename'
  with pytest.raises(UserError, match=words):
    evaluated(folder_run[0], folder=folder)
  with pytest.raises(UserError, match='There is no folder .*absent'):
    evaluated(folder_run[0], folder=str(tmp_path / 'absent'))


def test_the_table_of_a_folder_is_written_where_one_says(folder_run, tmp_path):
  workdir, _ = folder_run
  before = sorted(workdir.rglob('*'))
  folder = others(tmp_path / 'x', folder_run, 'test')
  out = tmp_path / 'x.csv'
  figures, said = evaluated(workdir, folder=folder, out=out)
  assert f'12 images: {out}' in said
  assert calibration.read(workdir).how in said and 'no distances' not in said
  tables = []
  for path in (out, workdir / 'predictions.csv'):
    with open(path, newline='', encoding='utf-8') as file:
      tables.append(list(csv.DictReader(file)))
  ours, known = ([r | {'path': ''} for r in rows] for rows in tables)
  by_row = [sorted(map(str, rows)) for rows in (ours, known)]
  assert by_row[0] == by_row[1]
  right = sum(r['label'] == r['class_1'] for r in ours)
  assert figures['top1'] == 100 * right / 12
  assert sorted(workdir.rglob('*')) == before


def test_another_draw_tests_nothing_that_was_trained_on(folder_run, tmp_path):
  workdir, root = folder_run
  copy = shutil.copytree(root, tmp_path / 'copy')
  for given in ({}, {'data.root': str(copy)}):
    figures, said = evaluated(workdir, given | {'data.split_seed': 5})
    assert f'{12 - figures["n"]} images of 12 were trained on' in said
    assert 0 < figures['n'] < 12
  with pytest.raises(UserError, match=r'once .*config\.data\.split_seed'):
    evaluated(workdir, {'data.split_seed': 5}, folder=str(copy))


def test_what_an_older_run_lacks_for_its_table_is_said(moved, tmp_path):
  workdir, root = moved
  for name in ('calibration.json', 'embeddings.npz'):
    (workdir / name).unlink()
  out = tmp_path / 'x.csv'
  _, said = evaluated(workdir, data_root=str(root), out=out)
  assert 'Not calibrated (T = 1), nothing was fitted at step' in said
  assert 'too sure; train with --config.data.val_fraction=0.2' in said
  assert 'the table has no distances' in said
  assert out.read_text().splitlines()[1].endswith(',,')


def test_an_older_run_is_told_by_its_images_or_by_names(moved, folder_run):
  workdir, root = moved
  split = split_of(workdir)
  del split['digests']
  (workdir / 'split.json').write_text(json.dumps(split))
  folder = others(root.parent / 'x', folder_run, 'train', 'test')
  known, _ = evaluated(folder_run[0])
  figures, said = evaluated(workdir, folder=folder, data_root=str(root))
  assert figures == known and 'left out' in said
  figures, said = evaluated(workdir, folder=folder)
  assert 'told by their names alone' in said
  assert figures['n'] == len(split['train']) + 12
