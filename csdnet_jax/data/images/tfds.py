"""Any classification set that TFDS has prepared, by name.

It is read from its files alone, without the code or the TensorFlow that
prepared it; the pictures come as their encoded bytes, for our own decoder.
"""

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from csdnet_jax.data.images import splits
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError

FROM_DISK = 'array_record reads its files from disks alone, so copy them there'


def load(name: str, *, data_dir: str = '') -> splits.Dataset:
  """Opens a prepared set that has the features 'image' and 'label'.

  Args:
    name: as TFDS has it, such as 'cars196', 'name/config' or 'name:2.0.0'.
    data_dir: where TFDS keeps its data; '' for its default.

  Returns:
    The data set, its images named '<split>/<index>'. The split 'validation' is
    the test part where there is no 'test', and the validation part otherwise.

  Raises:
    UserError: the set is not there, is in files of another format, is not one
      of classification, or lacks a part.
  """
  if not name:
    raise UserError(
      'config.data.name is empty; set it to the name of a TFDS set, such as '
      'cars196.'
    )
  root = data_dir and paths.of_disk(data_dir, 'config.data.root', FROM_DISK)
  builder = _find(name, root)
  features = dict(builder.info.features.items())
  label = features.get('label')
  if not isinstance(features.get('image'), tfds.features.Image) or not (
    isinstance(label, tfds.features.ClassLabel)
  ):
    raise UserError(
      f'{builder.data_path} holds {", ".join(features)}; a classification set '
      "has an 'image' and a class 'label'."
    )
  parts = {'train': 'train', 'val': 'validation', 'test': 'test'}
  there = builder.info.splits
  if 'test' not in there:
    parts = {'train': 'train', 'test': 'validation'}
  found = {
    part: _stored(builder, split)
    for part, split in parts.items()
    if split in there
  }
  if not {'train', 'test'} <= found.keys():
    raise UserError(
      f"{builder.data_path} has the splits {', '.join(there)}; 'train' and "
      "'test' or 'validation' are needed."
    )
  return splits.Dataset(name, tuple(label.names), **{'val': None} | found)


def _find(name, data_dir):
  try:
    builder = read_only_builder.builder_from_files(name, data_dir=data_dir)
  except tfds.core.DatasetNotFoundError as error:
    where = f' --data_dir={data_dir}' if data_dir else ''
    raise UserError(
      f'TFDS has no prepared {name} in '
      f'{data_dir or tfds.core.constants.DATA_DIR}; prepare it once, where '
      f'TensorFlow is installed, with: tfds build {name} '
      f'--file_format=array_record{where}'
    ) from error
  info = builder.info
  formats = {info.file_format.value, *info.as_proto.alternative_file_formats}
  if 'array_record' not in formats:
    raise UserError(
      f'{builder.data_path} has its records as {", ".join(sorted(formats))}; '
      'add them as array_record, where TensorFlow is installed, with: tfds '
      f'convert_format --dataset_version_dir={builder.data_path} '
      '--out_file_format=array_record'
    )
  return builder


def _stored(builder, split: str) -> splits.Split:
  images = [
    key
    for key, feature in builder.info.features.items()
    if isinstance(feature, tfds.features.Image)
  ]
  records = builder.as_data_source(
    split,
    decoders=dict.fromkeys(images, tfds.decode.SkipDecoding()),
    file_format='array_record',
  )
  labels = np.array([record['label'] for record in records], np.int32)
  if (labels < 0).any():
    raise UserError(
      f'{(labels < 0).sum()} images of the part {split} of {builder.info.name} '
      'have no label; the set cannot be evaluated, choose another.'
    )
  return splits.Split(
    tuple(f'{split}/{i}' for i in range(len(records))),
    labels,
    lambda i: records[i]['image'],
  )
