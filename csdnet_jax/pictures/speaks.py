"""Class evidence laid over its leaf, readable in grey and on paper."""

import numpy as np

_LEFT = 0.18  # Of the picture's contrast where nothing speaks.
_FULL = 0.4  # Of the strongest evidence; from there on the leaf is as it is.
_LINE = 0.3  # Of the strongest; the outline.


def panels(view: np.ndarray, speaks: np.ndarray) -> tuple[np.ndarray, ...]:
  """The leaf twice: where it speaks for the chosen class, and for the rival.

  The leaf stays as it is where it speaks for the class, within an outline, and
  is faded elsewhere. Both panels have one scale, that of the strongest place of
  either, so that little evidence looks like little.

  Args:
    view: uint8 [S, S, 3].
    speaks: float [S, S], smoothed evidence, positive for the chosen class.

  Returns:
    Two uint8 [S, S, 3].
  """
  strongest = np.abs(speaks).max() or 1.0
  return tuple(
    _panel(view, np.clip(sign * speaks / strongest, 0, 1)) for sign in (1, -1)
  )


def _panel(view, share):
  shown = np.clip(share / _FULL, 0, 1)[..., None]
  grey = np.mean(view, axis=-1, keepdims=True)
  faded = 255 - _LEFT * (255 - grey)
  image = shown * view + (1 - shown) * faded
  inside = share > _LINE
  image[_edge(inside)] = 0
  image[_edge(~inside)] = 255
  return np.uint8(np.round(image))


def _edge(inside):
  """What of a region touches the outside, by its four neighbours."""
  around = np.pad(inside, 1, mode='edge')
  return inside & ~(
    around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
  )
