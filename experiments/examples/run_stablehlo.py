"""Names leaves by an exported run: run_stablehlo.py FILE.zip IMAGES...

The pictures have 8 bits; others must be scaled to them, as model.json says.
"""

import json
import sys
import zipfile

import numpy as np
from jax import export
from PIL import Image, ImageOps

archive = zipfile.ZipFile(sys.argv[1])
about = json.loads(archive.read('model.json'))
model = export.deserialize(bytearray(archive.read('model.stablehlo')))
square, resize, size = about['preprocessing'].values()


def view(path):
  image = ImageOps.exif_transpose(Image.open(path)).convert('RGBA')
  white = Image.new('RGBA', image.size, 'white')
  image = Image.alpha_composite(white, image).convert('RGB')
  sides = [
    size if square else resize * n // min(image.size) for n in image.size
  ]
  x, y = (round((n - size) / 2) for n in sides)
  return image.resize(sides, Image.BICUBIC).crop((x, y, x + size, y + size))


outputs = model.call(np.stack([view(path) for path in sys.argv[2:]]))
for path, p in zip(sys.argv[2:], outputs['probabilities'], strict=True):
  for c in np.argsort(-p)[:5]:
    print(f'{path}\t{about["class_names"][c]}\t{p[c]:.6f}')
