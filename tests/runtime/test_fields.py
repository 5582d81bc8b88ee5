"""What a field allows, and the sentence for what it does not."""

import math

import numpy as np
import pytest

from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.fields import Field, check


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    (Field(1, high=3), -5),
    (Field(1, high=3), 3),
    (Field(1, low=0), 10**9),
    (Field(0.5), 2),
    (Field(0.5), math.inf),
    (Field(0.5, low=0, high=1), np.float32(0.25)),
    (Field((0.0, 1.0), low=0), (2, 9)),
    (Field((0.0, 1.0), high=1), (-2, 1)),
    (Field((0.0, 1.0), low=0, high=1), [0.5, 0.5]),
    (Field((1.0,)), (1.0, 2.0, 3.0)),
    (Field(''), 'a'),
    (Field(False), True),
    (Field('a', choices=('a', 'b')), 'b'),
  ],
)
def test_what_is_allowed(field, value):
  check({'x': field}, {'x': value})


@pytest.mark.parametrize(
  ('field', 'value', 'words'),
  [
    (Field(1, high=3), 4, 'is 4, but must be 3 or less.'),
    (Field(1, low=0), -1, 'is -1, but must be 0 or more.'),
    (Field(1, low=0, high=3), 4, 'is 4, but must be 0 to 3.'),
    (Field(1.0, low=0), math.nan, 'is nan, but must be 0 or more.'),
    (Field(1, low=0), 'many', "is 'many', but must be 0 or more."),
    (Field(1, high=3), None, 'is None, but must be 3 or less.'),
    (Field(0.5), 'half', "is 'half', but must be a number."),
    (Field(0.5), None, 'is None, but must be a number.'),
    (Field((0.0, 1.0), low=0), (-1, 1), 'in order, each 0 or more.'),
    (Field((0.0, 1.0), low=0), (2, 1), 'in order, each 0 or more.'),
    (Field((0.0, 1.0), high=1), (0, 2), 'in order, each 1 or less.'),
    (Field((0.0, 1.0), low=0, high=1), (0, 2), 'in order between 0 and 1.'),
    (Field((0.0, 1.0), low=0), ('a', 'b'), r"is \('a', 'b'\), but must be two"),
    (Field((0.0, 1.0), low=0), (None, 1), 'but must be two numbers'),
    (Field((0.0, 1.0), low=0), (0.1,), 'but must be two numbers'),
    (Field((0.0, 1.0), low=0), 0.1, 'is 0.1, but must be two numbers'),
    (Field((0.0, 1.0), low=0), None, 'is None, but must be two numbers'),
    (Field((0.0, 1.0), low=0), 'ab', "is 'ab', but must be two numbers"),
    (Field('a', choices=('alpha', 'b')), 'alpah', 'Did you mean "alpha"'),
  ],
)
def test_what_is_not_ends_in_a_sentence(field, value, words):
  with pytest.raises(UserError, match=rf'config\.part\.x .*{words}'):
    check({'part': {'x': field}}, {'part.x': value})
