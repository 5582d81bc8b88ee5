"""Rotary positions in two dimensions: queries and keys turn with their place.

Su et al., RoFormer, 2021, over the rows and columns of an image as Simeoni et
al., DINOv3, 2025 (arXiv 2508.10104) have it: places are relative to the image,
so that any size and shape of it has positions, and none of them is learnt.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Rotation(NamedTuple):
  """Of N tokens and heads of d channels, [N, 1, d] float32.

  Attributes:
    cos: of each token's angle in each channel; 1 where nothing turns.
    sin: likewise; 0 where nothing turns.
  """

  cos: np.ndarray
  sin: np.ndarray


def periods(channels: int, base: float = 100.0, dtype=np.float32) -> np.ndarray:
  """`base^(4 i / d)` for i below d / 4, the image being two units long.

  Args:
    channels: d, of a head, a multiple of four.
    base: the longest period, which none reaches.
    dtype: that the values are rounded to. DINOv3's release stores bfloat16;
      timm and transformers compute float32.

  Returns:
    [d / 4] float32.
  """
  exponents = np.arange(channels // 4, dtype=np.float32) * 4 / channels
  values = np.float32(base) ** exponents
  return values.astype(dtype).astype(np.float32)


def rotation(
  height: int, width: int, lengths: np.ndarray, *, unplaced: int = 0
) -> Rotation:
  """Angles of the patches of an image, row by row.

  A patch's centre (y, x) lies in [-1, 1] along both axes. The first half of a
  head's channel pairs turns by `2 pi y / lengths`, the second by
  `2 pi x / lengths`.

  Args:
    height: patches in a column.
    width: patches in a row.
    lengths: of `periods`, [d / 4] float32.
    unplaced: tokens before the patches that have no place and do not turn.

  Returns:
    That of `unplaced + height * width` tokens.
  """
  y, x = (
    2 * (np.arange(0.5, n, dtype=np.float32) / np.float32(n)) - 1
    for n in (height, width)
  )
  places = np.stack(np.meshgrid(y, x, indexing='ij'), -1).reshape(-1, 2, 1)
  angles = np.float32(2 * math.pi) * places / lengths
  angles = np.tile(angles.reshape(len(places), -1), 2)
  angles = np.pad(angles, ((unplaced, 0), (0, 0)))[:, None]
  return Rotation(np.cos(angles), np.sin(angles))


def rotate(x: jax.Array, turn: Rotation) -> jax.Array:
  """Turns channel i of each head against channel i + d / 2, in float32.

  Args:
    x: queries or keys, [B, N, heads, d].
    turn: of the N tokens.

  Returns:
    The same shape and dtype.
  """
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  across = jnp.concatenate([-second, first], axis=-1)
  turned = jnp.concatenate([first, second], axis=-1) * turn.cos
  return (turned + across * turn.sin).astype(x.dtype)
