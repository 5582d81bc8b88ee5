"""The contact sheet takes whatever people call their classes."""

import numpy as np
from PIL import Image

from csdnet_jax import pictures


def test_names_are_text_and_no_formulas(tmp_path):
  path = tmp_path / 'sheet.png'
  names = ['$5', r'a$\frac$b']
  columns = {name: np.zeros((2, 8, 8, 3)) for name in ('raw', *names)}
  pictures.contact_sheet(path, columns, names, title=r'leaves $\x$ {')
  with Image.open(path) as sheet:
    assert sheet.size[0] > 400
