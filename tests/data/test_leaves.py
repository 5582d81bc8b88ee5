"""Promises of the embedded data set."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from csdnet_jax.data import leaves
from csdnet_jax.runtime.errors import UserError

SMALL = {
  'cultivars': 3,
  'train_per_class': 2,
  'test_per_class': 1,
  'size': 32,
  'seed': 5,
}


def digests(root):
  return {
    str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(root.rglob('*'))
    if path.is_file()
  }


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('leaves') / 'set'
  leaves.write(root, **SMALL)
  return root


def test_the_same_seed_writes_the_same_bytes(root, tmp_path):
  leaves.write(tmp_path, **SMALL)
  assert digests(tmp_path) == digests(root)


def test_another_seed_draws_other_leaves(root, tmp_path):
  leaves.write(tmp_path, **(SMALL | {'seed': 6}))
  theirs, ours = digests(tmp_path), digests(root)
  assert theirs.keys() == ours.keys()
  pictures = [name for name in ours if name.endswith('.png')]
  assert all(theirs[name] != ours[name] for name in pictures)


def test_a_leaf_does_not_depend_on_the_rest_of_the_set(root, tmp_path):
  larger = SMALL | {'cultivars': 4, 'test_per_class': 2}
  leaves.write(tmp_path, **larger)
  theirs, ours = digests(tmp_path / 'images'), digests(root / 'images')
  assert ours.items() < theirs.items()


def test_no_two_pictures_are_equal(root):
  assert len(set(digests(root / 'images').values())) == 9


def test_layout_is_that_of_the_release(root):
  read = {
    part: [
      line.split(' ')
      for line in (root / 'anno' / f'{part}.txt').read_text().splitlines()
    ]
    for part in ('train', 'test', 'classes')
  }
  names = ['cultivar_01', 'cultivar_02', 'cultivar_03']
  assert read['classes'] == [['1', names[0]], ['2', names[1]], ['3', names[2]]]
  assert read['train'] == [
    [f'{name}/{n}.png', str(label)]
    for label, name in enumerate(names, 1)
    for n in (1, 2)
  ]
  assert read['test'] == [
    [f'{name}/3.png', str(label)] for label, name in enumerate(names, 1)
  ]
  listed = {path for part in ('train', 'test') for path, _ in read[part]}
  assert listed == set(digests(root / 'images'))


def test_pictures_are_rgb_of_the_size_asked_for(root):
  for path in (root / 'images').rglob('*.png'):
    with Image.open(path) as picture:
      assert (picture.mode, picture.size) == ('RGB', (32, 32))


@pytest.mark.parametrize('seed', range(4))
def test_a_leaf_is_green_and_inside_a_pale_frame(seed):
  image = leaves.draw(leaves.cultivar(seed, seed), (seed,), 96).astype(int)
  frame = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
  assert frame.min() > 170
  red, green, blue = np.moveaxis(image, -1, 0)
  blade = (green > red + 8) & (green > blue + 8)
  assert 0.25 < blade.mean() < 0.75
  assert np.median(image.sum(axis=-1)[blade]) < 420


def test_neighbours_in_the_walk_are_the_nearest_on_average():
  traits = np.array([leaves.cultivar(i, 0) for i in range(24)])
  traits = (traits - traits.min(axis=0)) / np.ptp(traits, axis=0)
  apart = np.linalg.norm(traits[:, None] - traits[None], axis=-1)
  steps = [np.diagonal(apart, n).mean() for n in (1, 4, 12)]
  assert steps == sorted(steps)
  assert apart[np.triu_indices(24, 1)].min() > 0


def test_growth_stays_within_a_cultivar():
  # Who could measure the traits would name every leaf.
  low, high = np.array(list(leaves._RANGES.values())).T
  cultivars = np.array([leaves.cultivar(i, 0) for i in range(24)])
  for index, traits in enumerate(cultivars):
    grown = leaves._grow(traits, np.random.default_rng(index))[0]
    away = np.linalg.norm((cultivars - np.array(grown)) / (high - low), axis=1)
    assert away.argmin() == index


def test_siblings_look_more_alike_than_strangers():
  def look(index, leaf):
    image = leaves.draw(leaves.cultivar(index, 0), (0, index, leaf), 64)
    pixels = image.reshape(-1, 3).astype(float)
    blade = pixels[:, 1] > pixels[:, 2] + 30
    return [blade.mean(), *pixels[blade].mean(axis=0), pixels[blade].std()]

  looks = np.array([[look(i, n) for n in range(4)] for i in range(0, 24, 3)])
  looks /= looks.reshape(-1, 5).std(axis=0)
  apart = np.linalg.norm(
    looks[:, None, :, None] - looks[None, :, None], axis=-1
  )
  same = np.eye(8, dtype=bool)
  siblings = apart[same].sum() / (8 * 4 * 3)
  assert siblings < 0.8 * apart[~same].mean()


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('cultivars', 1),
    ('train_per_class', 0),
    ('test_per_class', 0),
    ('size', 31),
    ('seed', -1),
  ],
)
def test_numbers_that_are_too_small_get_a_sentence(tmp_path, name, value):
  with pytest.raises(UserError, match=rf'leaves\.{name} is {value}: set it to'):
    leaves.write(tmp_path / 'set', **(SMALL | {name: value}))
  assert not (tmp_path / 'set').exists()
