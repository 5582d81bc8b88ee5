"""Makes `backbones.npz` and `backbones.json` with timm and open_clip.

They need a torchvision of their own, so an environment of their own:

  pip install torch torchvision timm open_clip_torch
  PYTHONPATH=tests/helpers python tests/golden/make_backbones.py
"""

import json
import pathlib
import re

import numpy as np
import open_clip
import timm
import torch

from drawn import draw, pixels

HERE = pathlib.Path(__file__).parent
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
VIT = {'embed_dim': 32, 'depth': 2, 'num_heads': 2, 'patch_size': 8}
CONVNEXT = {'depths': (1, 1, 2, 1), 'dims': (8, 16, 32, 64)}
# Of timm: the reduced sizes, and those of the images.
REDUCED = {
  'vit_small_patch16_dinov3': (VIT, ((32, 32), (48, 32))),
  'vit_small_patch16_dinov3_qkvb': (VIT, ((48, 48),)),
  'vit_small_plus_patch16_dinov3': (VIT, ((32, 32),)),
  'vit_base_patch14_reg4_dinov2': (
    VIT | {'img_size': 48},
    ((48, 48), (24, 24), (72, 72)),
  ),
  'convnext_tiny': (CONVNEXT, ((64, 64), (72, 100))),
}  # fmt: skip
# Those as published, whose names and shapes are facts worth a test.
PUBLISHED = (
  'vit_small_patch16_dinov3',
  'vit_small_plus_patch16_dinov3',
  'vit_base_patch14_reg4_dinov2',
  'convnext_tiny',
  'vit_tiny_patch16_224',
  'swin_tiny_patch4_window7_224',
  'resnet18',
)
CLIP_SMALL = {
  'embed_dim': 24,
  'vision_cfg': {
    'image_size': 32,
    'layers': 2,
    'width': 32,
    'head_width': 16,
    'patch_size': 8,
  },
  'text_cfg': {
    'context_length': 5,
    'vocab_size': 11,
    'width': 16,
    'heads': 2,
    'layers': 1,
  },
}


def shapes(net):
  return {name: tuple(x.shape) for name, x in net.state_dict().items()}


def fill(net):
  arrays = draw(shapes(net))
  net.load_state_dict({k: torch.from_numpy(x) for k, x in arrays.items()})
  return net.eval()


def images(size, colours):
  x = torch.from_numpy(pixels(*size))
  mean, std = (torch.tensor(values) for values in colours)
  return ((x - mean) / std).permute(0, 3, 1, 2)


def of_timm(golden, keys):
  for name in PUBLISHED:
    keys[name] = shapes(timm.create_model(name, num_classes=0))
  for name, (sizes, all_images) in REDUCED.items():
    net = timm.create_model(name, num_classes=0, **sizes)
    keys[f'{name} reduced'] = shapes(fill(net))
    for size in all_images:
      if hasattr(net, 'pos_embed') and net.pos_embed is not None:
        # As timm resamples the positions of a file for another size.
        other = timm.create_model(
          name, num_classes=0, **(sizes | {'img_size': size[0]})
        )
        filter_fn = timm.models.vision_transformer.checkpoint_filter_fn
        other.load_state_dict(filter_fn(net.state_dict(), other))
        net_of_size = other.eval()
      else:
        net_of_size = net
      x = net_of_size.forward_features(images(size, IMAGENET))
      at = f'{name}/{size[0]}x{size[1]}'
      golden[f'{at}/features'] = x.numpy()
      if name.startswith('convnext'):
        pooled = net_of_size.forward_head(x, pre_logits=True)
        golden[f'{at}/embedding'] = pooled.numpy()
  net = fill(
    timm.create_model('vit_small_patch16_dinov3', num_classes=0, **VIT)
  )
  # The release's periods, which its file has in bfloat16.
  net.rope.periods = net.rope.periods.bfloat16().float()
  x = net.forward_features(images((48, 48), IMAGENET))
  golden['vit_small_patch16_dinov3 bfloat16/48x48/features'] = x.numpy()


def of_open_clip(golden, keys):
  for name in ('ViT-B-16', 'ViT-L-14', 'ViT-H-14'):
    net = open_clip.create_model(name)
    keys[name] = {
      key: shape
      for key, shape in shapes(net).items()
      # Of the larger ones, which differ in sizes, three blocks say all.
      if name == 'ViT-B-16' or re.match(r'visual\.(?!.*s\.([3-9]|\d\d)\.)', key)
    }
  for kind, quick in (('gelu', False), ('quick_gelu', True)):
    net = fill(open_clip.CLIP(**CLIP_SMALL, quick_gelu=quick))
    keys['open_clip reduced'] = shapes(net)
    for size in (24, 32, 48):
      config = CLIP_SMALL | {
        'vision_cfg': CLIP_SMALL['vision_cfg'] | {'image_size': size}
      }
      other = open_clip.CLIP(**config, quick_gelu=quick)
      arrays = dict(net.state_dict())
      open_clip.model.resize_pos_embed(arrays, other)
      other.load_state_dict(arrays)
      visual = other.eval().visual
      x = visual.transformer(visual._embeds(images((size, size), CLIP)))
      golden[f'clip {kind}/{size}x{size}/features'] = visual.ln_post(x).numpy()


def main():
  golden, keys = {}, {}
  with torch.no_grad():
    of_timm(golden, keys)
    of_open_clip(golden, keys)
  np.savez_compressed(HERE / 'backbones.npz', **golden)
  lines = ',\n'.join(
    f'{json.dumps(name)}: {json.dumps(value)}' for name, value in keys.items()
  )
  (HERE / 'backbones.json').write_text('{\n' + lines + '\n}\n')


if __name__ == '__main__':
  main()
