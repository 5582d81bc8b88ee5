"""The embedded data set: palmate leaves of cultivars that the program draws.

A cultivar is a point in a space of traits that ampelographers would recognise
(lobes, sinuses, teeth, venation, colour, relief); the cultivars follow a random
walk through it, so each is a small step from its neighbours. A leaf is its
cultivar with growth noise, an age, a pose and spots.
"""

import collections
import pathlib

import numpy as np
from PIL import Image, ImageFilter

from csdnet_jax.runtime.errors import UserError

# The traits and where they range; lengths in midribs, angles in radians.
_RANGES = {
  'lateral_angle': (0.7, 1.0),  # of the upper lateral veins from the midrib
  'basal_angle': (1.7, 2.15),  # of the lower lateral veins from the midrib
  'lateral_length': (0.68, 0.98),
  'basal_length': (0.48, 0.8),
  'upper_sinus': (0.3, 0.74),  # radius between midrib and lateral lobe
  'lower_sinus': (0.3, 0.64),
  'lobe_width': (0.24, 0.42),
  'lobe_bluntness': (1.1, 2.2),  # 1: drawn out to a point, 2: rounded
  'petiole_sinus': (0.12, 0.6),  # half the gap at the stalk
  'tooth_depth': (0.04, 0.15),
  'tooth_skew': (0.2, 0.6),  # share of a tooth behind its point
  'tooth_roundness': (0.0, 1.0),  # 0: serrate, 1: crenate
  'tooth_pairing': (0.0, 0.9),  # height of the tooth between two veins
  'vein_density': (4.5, 8.5),  # secondary veins per midrib
  'vein_slope': (0.45, 1.0),  # how far they lean towards the tip
  'vein_contrast': (0.2, 0.75),
  'vein_red': (0.0, 0.8),
  'hue': (0.1, 0.9),  # 0: yellow green, 1: blue green
  'lightness': (0.1, 0.9),
  'bulge': (0.1, 1.0),  # relief between the veins
  'grain': (0.1, 1.0),  # relief and colour of the tertiary veins
  'mottle': (0.1, 1.0),
}
Cultivar = collections.namedtuple('Cultivar', _RANGES)
_LOW, _HIGH = np.array(list(_RANGES.values())).T

# In shares of a trait's range, calibrated together: small steps make neighbours
# hard to tell, and growth stays well below a step.
_STEP = 0.12
_GROWTH = 0.06


def cultivar(index: int, seed: int) -> Cultivar:
  """The traits of cultivar `index`, from 0: a reflected random walk."""
  rng = np.random.default_rng(seed)
  walk = rng.uniform(size=len(_LOW))
  walk += _STEP * rng.normal(size=(index, len(_LOW))).sum(axis=0)
  share = 1 - np.abs(walk % 2 - 1)
  return Cultivar(*(_LOW + share * (_HIGH - _LOW)).tolist())


def _grow(traits, rng):
  """The traits of one leaf, and its five veins left to right: angle, length."""
  grown = traits + _GROWTH * (_HIGH - _LOW) * rng.normal(size=len(_LOW))
  leaf = Cultivar(*grown.clip(_LOW, _HIGH).tolist())
  a, b = leaf.lateral_angle, leaf.basal_angle
  angles = np.array([-b, -a, 0, a, b]) + 0.03 * rng.normal(size=5)
  a, b = leaf.lateral_length, leaf.basal_length
  lengths = np.array([b, a, 1, a, b]) * (1 + 0.03 * rng.normal(size=5))
  return leaf, angles, lengths


def _venation(leaf, angles, lengths, theta, rho):
  """Place along and across the nearest main vein, its length, and the phase.

  The phase is whole on secondary veins and zero at the tip, so that the teeth,
  which read the same phase, sit where the veins end.
  """
  nearest = np.digitize(theta, (angles[1:] + angles[:-1]) / 2)
  turn = theta - angles.astype(theta.dtype)[nearest]
  length = lengths.astype(theta.dtype)[nearest]
  along, across = rho * np.cos(turn), np.abs(rho * np.sin(turn))
  lean = across * (leaf.vein_slope + 0.5 * across)
  # The two sides of a vein never grow quite alike.
  density = leaf.vein_density * (1 + 0.04 * np.sign(turn))
  return along, across, length, density * (along - length - lean)


def _tooth(leaf, phase):
  """Height of a tooth in [0, 1]; the points are at whole phases."""
  phase, skew = phase % 1, leaf.tooth_skew
  serrate = np.maximum(1 - phase / skew, (phase - skew) / (1 - skew))
  crenate = 0.5 + 0.5 * np.cos(2 * np.pi * phase)
  return serrate + leaf.tooth_roundness * (crenate - serrate)


def _margin(leaf, angles, lengths, theta):
  """Radius of the blade, seen from the stalk, at angles [n] from the tip."""
  sinuses = [leaf.lateral_angle / 2, (angles[4] + angles[3]) / 2, np.pi]
  radii = [leaf.upper_sinus, leaf.lower_sinus, 0.9 * leaf.lower_sinus]
  body = np.interp(np.abs(theta), sinuses, radii)
  away = np.abs(theta[:, None] - angles) / leaf.lobe_width
  lobes = np.exp(-(away**leaf.lobe_bluntness)) * (lengths - body[:, None])
  gap = np.exp(-(((np.pi - np.abs(theta)) / leaf.petiole_sinus) ** 2))
  radius = (body + lobes.max(axis=1)) * (1 - 0.94 * gap)
  phase = _venation(leaf, angles, lengths, theta, radius)[-1]
  between = leaf.tooth_pairing * _tooth(leaf, phase + 0.5)
  teeth = np.maximum(_tooth(leaf, phase), between) - 0.5
  return radius * (1 + leaf.tooth_depth * teeth * (1 - gap))


def _cloud(rng, side, cells):
  """Smooth noise of about unit strength, float32 [side, side]."""
  cloud = Image.fromarray(np.float32(rng.normal(size=(cells, cells))))
  return np.asarray(cloud.resize((side, side), Image.Resampling.BICUBIC))


def _line(distance, width, blur):
  """Share in [0, 1] of a soft line."""
  return np.clip((width - distance) / blur + 0.5, 0, 1)


def _halve(plane):
  return np.asarray(Image.fromarray(plane).reduce(2))[..., None]


def _mix(image, share, colour):
  return image + share * (np.asarray(colour, np.float32) - image)


def draw(traits: Cultivar, key: tuple[int, ...], size: int) -> np.ndarray:
  """One leaf on a scanner's pale ground, uint8 [size, size, 3].

  Args:
    traits: the cultivar.
    key: whole numbers that name the leaf; equal keys draw equal leaves.
    size: side of the image in pixels.
  """
  rng = np.random.default_rng(key)
  leaf, *veins = _grow(traits, rng)
  side = 2 * size

  # The outline around the stalk, turned and then fitted into the frame.
  circle = np.linspace(-np.pi, np.pi, 2048, dtype=np.float32)
  margin = _margin(leaf, *veins, circle)
  pose, stalk = rng.normal(0, 0.3), rng.uniform(0.15, 0.4)
  radius, angle = np.append(margin, stalk), np.append(circle, np.pi) + pose
  xs, ys = radius * np.sin(angle), -radius * np.cos(angle)
  pixel = float(max(np.ptp(xs), np.ptp(ys))) / side / rng.uniform(0.84, 0.94)
  x = y = (np.arange(side, dtype=np.float32) + 0.5 - side / 2) * pixel
  # The blade grew unevenly: bend the plane before looking at it.
  x = x + float(xs.max() + xs.min()) / 2 + 0.03 * _cloud(rng, side, 4)
  y = y[:, None] + float(ys.max() + ys.min()) / 2 + 0.03 * _cloud(rng, side, 4)
  rho, theta = np.hypot(x, y), np.arctan2(x, -y) - pose
  theta -= 2 * np.pi * np.round(theta / (2 * np.pi))
  edge = np.interp(theta, circle, margin).astype(np.float32)
  blade = np.clip((edge - rho) / pixel + 0.5, 0, 1)

  # The veins, and the relief under a lamp at the upper left.
  along, across, length, phase = _venation(leaf, *veins, theta, rho)
  taper = np.clip(1 - along / length, 0, 1)
  off = np.abs(phase - np.round(phase)) / leaf.vein_density
  rung = np.abs((14 * across + 0.618 * np.floor(phase)) % 1 - 0.5) / 14
  net = 0.75 * _line(off, 0.001 + 0.005 * taper, 3 * pixel)
  net = np.maximum(net, 0.3 * leaf.grain * _line(rung, 0.002, 4 * pixel))
  net = np.maximum(net, _line(across, 0.004 + 0.012 * taper, 2 * pixel))
  height = 0.01 * net - 0.005 * leaf.grain * _cloud(rng, side, 48)
  height += 0.16 * leaf.bulge * off * np.clip(across / 0.1, 0, 1)
  slope = np.add(*np.gradient(height / pixel))

  # The colour: the cultivar's green at this leaf's age, veins and spots.
  hue = leaf.hue + 0.18 * rng.normal()
  green = _mix(np.float32([0.42, 0.52, 0.13]), hue, [0.13, 0.36, 0.16])
  green *= 0.7 + 0.5 * leaf.lightness
  tone = 1 + 0.15 * leaf.mottle * _cloud(rng, side, 8) + 0.4 * slope
  pale = _mix(np.float32([0.72, 0.76, 0.42]), leaf.vein_red, [0.62, 0.31, 0.27])
  image = _mix(green * _halve(tone), leaf.vein_contrast * _halve(net), pale)
  for _ in range(rng.poisson(2)):
    away = np.hypot(x - rng.normal(0, 0.4), y - rng.normal(-0.2, 0.4))
    spot = np.clip(2 - away / rng.uniform(0.01, 0.03), 0, 0.7)
    image = _mix(image, _halve(spot), [0.4, 0.27, 0.12])

  # The stalk, the shadow, the ground and the exposure.
  down = -rho * np.cos(theta)
  bent = np.abs(rho * np.sin(theta) + 0.3 * rng.normal() * down**2)
  stem = (1 - blade) * _line(bent, 0.018, pixel)
  stem *= _line(np.abs(down - stalk / 2), stalk / 2, pixel)
  image = _mix(image, _halve(stem), _mix(green, leaf.vein_red, [0.5, 0.2, 0.2]))
  ink = _halve(np.maximum(blade, stem))
  shadow = Image.fromarray(np.uint8(255 * ink[..., 0]))
  shadow = np.asarray(shadow.filter(ImageFilter.GaussianBlur(size / 50))) / 255
  shadow = 0.16 * np.roll(shadow, size // 60, (0, 1))[..., None]
  ground = 0.95 + 0.008 * rng.normal(size=3) - shadow
  image = ground + ink * (image - ground)
  image *= 1 + 0.05 * rng.normal() + 0.02 * _cloud(rng, size, 2)[..., None]
  image += 0.008 * rng.normal(size=image.shape)
  return np.round(255 * image.clip(0, 1)).astype(np.uint8)


def write(
  root: str | pathlib.Path,
  *,
  cultivars: int = 24,
  train_per_class: int = 4,
  test_per_class: int = 4,
  size: int = 192,
  seed: int = 0,
) -> None:
  """Draws a set in the layout of the UFG release, equal bytes every time.

  Writes `images/<class>/<n>.png` (RGB), `anno/train.txt` and `anno/test.txt`
  (`path label`, labels from 1) and `anno/classes.txt` (`label name`).

  Args:
    root: folder, made if absent.
    cultivars: classes, from 2.
    train_per_class: the first leaves of a cultivar, from 1.
    test_per_class: the leaves after them, from 1.
    size: side of the images in pixels, from 32.
    seed: chooses the cultivars and their leaves, from 0.

  Raises:
    UserError: a number is too small.
  """
  for name, value, low in (
    ('cultivars', cultivars, 2),
    ('train_per_class', train_per_class, 1),
    ('test_per_class', test_per_class, 1),
    ('size', size, 32),
    ('seed', seed, 0),
  ):
    if value < low:
      raise UserError(
        f'config.data.leaves.{name} is {value}: set it to {low} or more.'
      )
  root = pathlib.Path(root)
  lists = {'train': [], 'test': [], 'classes': []}
  for index in range(cultivars):
    name = f'cultivar_{index + 1:02d}'
    lists['classes'].append(f'{index + 1} {name}\n')
    folder = root / 'images' / name
    folder.mkdir(parents=True, exist_ok=True)
    traits = cultivar(index, seed)
    for leaf in range(1, train_per_class + test_per_class + 1):
      part = 'train' if leaf <= train_per_class else 'test'
      lists[part].append(f'{name}/{leaf}.png {index + 1}\n')
      image = Image.fromarray(draw(traits, (seed, index, leaf), size))
      image.save(folder / f'{leaf}.png')
  (root / 'anno').mkdir(exist_ok=True)
  for name, lines in lists.items():
    (root / 'anno' / f'{name}.txt').write_text(''.join(lines), encoding='utf-8')
