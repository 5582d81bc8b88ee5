"""The UFG release (Yu et al., ICCV 2021) as TFDS builders.

The release cannot be downloaded by a program: it is unpacked by hand into
`<data_dir>/downloads/manual/`, checked against the counts below, and prepared
as array_record, which takes no TensorFlow.
"""

import io
import pathlib
from typing import NamedTuple

import jax
import numpy as np
import tensorflow_datasets as tfds

from csdnet_jax import sharding
from csdnet_jax.data.images import lists, splits, tfds as stored
from csdnet_jax.data.images.saved import split_to_json
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError

_HOME = 'https://github.com/XiaohanYu-GU/Ultra-FGVC'


class Release(NamedTuple):
  """What a set of the release holds, and the folders it is unpacked to.

  The first folder is the one that the official archive makes; the others are
  those that public loaders of the release read.
  """

  classes: int
  train: int
  test: int
  folders: tuple[str, ...]


RELEASES = {
  'cotton80': Release(80, 240, 240, ('COTTON', 'Cotton80/COTTON', 'cotton')),
  'soy_local': Release(
    200, 600, 600, ('soybean200', 'SoyLocal/soybean200', 'soyloc')
  ),
  'soy_gene': Release(
    1110,
    12763,
    11143,
    ('soybeangene', 'SoyGene/soybeangene', 'soybean_gene'),
  ),
  'soy_global': Release(
    1938, 5814, 5814, ('soybean2000', 'SoyGlobal/soybean2000')
  ),
  **{
    f'soy_ageing/{stage}': Release(
      198,
      990,
      990,
      (stage, f'SoyAgeing/SoyAgeing-{stage}/{stage}', f'soybean_aging_{stage}'),
    )
    for stage in ('R1', 'R3', 'R4', 'R5', 'R6')
  },
}


def load(name: str, *, data_dir: str = '') -> splits.Dataset:
  """Opens a set of the release, preparing it on first use.

  Of several processes the first prepares and the others wait for it.

  Args:
    name: a key of `RELEASES`, such as 'cotton80' or 'soy_ageing/R1'.
    data_dir: where TFDS keeps its data, shared by all the processes; '' for its
      default.

  Returns:
    The data set, in the order of the release's lists; `read` gives the files'
    own bytes.

  Raises:
    UserError: an unknown name; the set is not there, or is not the release.
  """
  if name not in RELEASES:
    raise UserError(
      f'config.data.name is {name!r}; say one of {", ".join(RELEASES)}'
    )
  data_dir = data_dir and paths.of_disk(
    data_dir, 'config.data.root', stored.FROM_DISK
  )
  try:
    if jax.process_index() == 0:
      _prepare(name, tfds.builder(name, data_dir=data_dir or None))
  finally:
    # Reached after a failure too: the others stop below instead of waiting.
    sharding.barrier(f'{name} is prepared')
  builder = tfds.builder(name, data_dir=data_dir or None)
  if not builder.data_path.exists():
    raise UserError(
      f'{builder.data_path} is not there on process {jax.process_index()}; set '
      '--config.data.root to a folder that all the processes share'
    )
  saved = builder.info.metadata
  if builder.info.file_format.value != 'array_record' or not saved:
    raise UserError(
      f'{builder.data_path} was not prepared by this program; remove it to '
      'have it prepared again'
    )
  parts = {
    part: _stored(builder, part, saved[part]) for part in ('train', 'test')
  }
  return splits.Dataset(name, tuple(saved['class_names']), val=None, **parts)


def _prepare(name: str, builder) -> None:
  if builder.data_path.exists():
    return
  # Asked before TFDS is, whose own message names no folder of the set.
  _find(name, pathlib.Path(builder.data_dir_root, 'downloads', 'manual'))
  try:
    builder.download_and_prepare(file_format='array_record')
  except OSError as e:
    raise UserError(
      f'Cannot prepare {name} in {builder.data_dir_root} ({e}); free space '
      'there or set --config.data.root to another folder'
    ) from e


def _stored(builder, part: str, labels: dict[str, int]) -> splits.Split:
  records = builder.as_data_source(
    part, decoders={'image': tfds.decode.SkipDecoding()}
  )
  names = tuple(labels)

  def read(i):
    record = records[i]
    if record['file_name'].decode() != names[i]:
      raise UserError(
        f'{builder.data_path} is out of order at {names[i]}; remove it to have '
        'it prepared again'
      )
    return record['image']

  return splits.Split(names, np.array(list(labels.values()), np.int32), read)


def _find(name: str, manual: pathlib.Path) -> pathlib.Path:
  folders = RELEASES[name].folders
  for folder in folders:
    root = manual / folder
    if (root / 'anno').is_dir() and (root / 'images').is_dir():
      return root
  raise UserError(
    f'{name} is not at {manual / folders[0]}, which must hold anno/train.txt, '
    f'anno/test.txt and images/; get it from the links at {_HOME} and unpack '
    'it there'
  )


def _open_release(name: str, manual: pathlib.Path) -> splits.Dataset:
  """Finds a set and holds it against the table."""
  root = _find(name, manual)
  dataset = lists.open_lists(root, name)
  expected = RELEASES[name]
  beyond = [
    file_name
    for split in (dataset.train, dataset.test)
    for file_name, label in zip(split.names, split.labels, strict=True)
    if label >= expected.classes
  ]
  if beyond:
    raise UserError(
      f'{root} has labels beyond the {expected.classes} classes of {name} '
      f'({", ".join(beyond[:10])}); unpack the release again'
    )
  found = Release(
    len(dataset.class_names),
    len(dataset.train.names),
    len(dataset.test.names),
    expected.folders,
  )
  if found != expected:
    raise UserError(
      f'{root} has {found.classes} classes, {found.train} images in '
      f'anno/train.txt and {found.test} in anno/test.txt where {name} has '
      f'{expected.classes}, {expected.train} and {expected.test}; unpack the '
      'release again, or read the folder as it is with '
      f'--config.data.source=folder and --config.data.root={root}'
    )
  return dataset


class _Ufg(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """The five sets differ in their tables alone."""

  VERSION = tfds.core.Version('1.0.0')
  # Where TFDS looks for checksums of downloads, of which there are none; the
  # search takes importlib_resources, which TFDS 4.9.10 does not declare
  # (https://github.com/tensorflow/datasets/issues/11212).
  code_path = None
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    f'Get the archive from the links at {_HOME} and unpack it here.'
  )

  @property
  def _key(self) -> str:
    config = self.builder_config
    return f'{self.name}/{config.name}' if config else self.name

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description='Ultra-fine-grained leaves: cultivars of one species.',
      homepage=_HOME,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(),
          'label': tfds.features.ClassLabel(
            num_classes=RELEASES[self._key].classes
          ),
          'file_name': tfds.features.Text(),
        }
      ),
      supervised_keys=('image', 'label'),
      # In the order of the lists, which the metadata below repeats.
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    dataset = _open_release(self._key, pathlib.Path(dl_manager.manual_dir))
    self.info.metadata.update(split_to_json(dataset))
    return {
      part: self._generate_examples(split)
      for part, split in splits.parts_of(dataset).items()
    }

  def _generate_examples(self, split: splits.Split):
    for i, (name, label) in enumerate(
      zip(split.names, split.labels, strict=True)
    ):
      # TFDS wants TensorFlow to encode pixels; a file's bytes it takes as such.
      image = io.BytesIO(split.read(i))
      yield i, {'image': image, 'label': int(label), 'file_name': name}


class Cotton80(_Ufg):
  """80 cotton cultivars, 3 + 3 images each."""


class SoyLocal(_Ufg):
  """200 soybean cultivars, 3 + 3 images each."""


class SoyGene(_Ufg):
  """1,110 soybean accessions, about 11 + 10 images each."""


class SoyGlobal(_Ufg):
  """1,938 soybean cultivars, 3 + 3 images each."""


class SoyAgeing(_Ufg):
  """198 soybean cultivars at five stages, 5 + 5 images each, a set a stage."""

  BUILDER_CONFIGS = [
    tfds.core.BuilderConfig(name=stage, description=f'growth stage {stage}')
    for stage in ('R1', 'R3', 'R4', 'R5', 'R6')
  ]
