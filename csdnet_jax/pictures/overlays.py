"""Segmented images beside the truth, in colours that most eyes tell apart."""

import functools
from collections.abc import Sequence

import numpy as np

from csdnet_jax.pictures import draw
from csdnet_jax.runtime import paths

IGNORED = (0.0, 0.0, 0.0)
_NAMED = 40  # Classes that a legend has room for: those with the most pixels.
_LEVELS = 11  # Of red, green and blue, among which the palette is chosen.
_DARKEST = 0.4  # Lightness of a colour in it, in OKLab.

# What the eye sees without one kind of cones, of linear RGB, at full severity
# (Machado, Oliveira, Fernandes, IEEE TVCG 15(6), 2009): protan, deutan.
_EYES = (
  np.eye(3),
  np.array(
    [
      [0.152286, 1.052583, -0.204868],
      [0.114503, 0.786281, 0.099216],
      [-0.003882, -0.048116, 1.051998],
    ]
  ),
  np.array(
    [
      [0.367322, 0.860646, -0.227968],
      [0.280085, 0.672501, 0.047413],
      [-0.011820, 0.042940, 0.968881],
    ]
  ),
)
# Linear RGB to the cones and on to OKLab (Ottosson, 'A perceptual color space
# for image processing', 2020), where distances are about what the eye sees.
_CONES = np.array(
  [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
  ]
)
_OKLAB = np.array(
  [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
  ]
)


@functools.cache
def _chosen(classes: int) -> np.ndarray:
  levels = np.linspace(0, 1, _LEVELS)
  colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
  seen = _seen(colours)
  # Dark colours are further apart in OKLab than on a screen.
  light = seen[0, :, 0] > _DARKEST
  colours, seen = colours[light], seen[:, light]
  # Black is that of ignored pixels, and white that of the paper.
  nearest = np.minimum(
    *(_distances(seen, _seen(np.full((1, 3), grey))) for grey in (0.0, 1.0))
  )
  chosen = []
  for _ in range(classes):
    chosen.append(int(np.argmax(nearest)))
    nearest = np.minimum(nearest, _distances(seen, seen[:, chosen[-1:]]))
  return colours[chosen]


def palette(classes: int) -> np.ndarray:
  """A fixed colour for each class, the same however many there are.

  Each is, of a grid of sRGB, the one that is farthest from black, white and
  those before it, for that of three eyes which tells it worst: with all cones,
  which are asked for twice the distance, without red and without green ones.

  Args:
    classes: C, at most 500.

  Returns:
    float64 [C, 3], sRGB in [0, 1].
  """
  return _chosen(classes).copy()


def _seen(colours: np.ndarray) -> np.ndarray:
  """sRGB [n, 3] as each of the eyes sees it, in OKLab: [eyes, n, 3]."""
  linear = np.where(
    colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4
  )
  cones = [np.clip(linear @ eye.T, 0, 1) @ _CONES.T for eye in _EYES]
  return np.cbrt(cones) @ _OKLAB.T


def _distances(seen: np.ndarray, one: np.ndarray) -> np.ndarray:
  """Of n colours to one [eyes, 1, 3], for the eye that tells it worst: [n]."""
  # Eyes with all cones are asked for twice as much, or all would be purple.
  weights = np.array([0.5, 1.0, 1.0])[:, None]
  return (weights * np.linalg.norm(seen - one, axis=-1)).min(0)


def write(
  path: paths.Path,
  image: np.ndarray,
  label: np.ndarray,
  predicted: np.ndarray,
  class_names: Sequence[str],
  *,
  title: str,
) -> None:
  """Writes an image, its mask and its segmentation side by side, as PNG.

  Args:
    path: of the PNG.
    image: uint8 [h, w, 3].
    label: integers [h, w], classes, or anything else where it is left out.
    predicted: integers [h, w], classes.
    class_names: by class; the legend names those that either map shows.
    title: over all.
  """
  n = len(class_names)
  # One more row, for the pixels that are left out.
  colours = np.concatenate([palette(n), [IGNORED]])
  label = np.where((label >= 0) & (label < n), label, n)
  panels = {
    'image': image / 255.0,
    'ground truth': colours[label],
    'prediction': colours[predicted],
  }
  pixels = np.bincount(label.ravel(), minlength=n + 1)
  pixels += np.bincount(predicted.ravel(), minlength=n + 1)
  shown = np.sort(np.argsort(-pixels[:n], kind='stable')[:_NAMED])
  legend = [(class_names[i], colours[i]) for i in shown if pixels[i]]
  if pixels[n]:
    legend.append(('left out', np.array(IGNORED)))
  draw.side_by_side(path, panels, legend, title=title)
