"""The classes of the published sets of images and masks, in their order."""

CITYSCAPES = (
  'road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light',
  'traffic sign', 'vegetation', 'terrain', 'sky', 'person', 'rider', 'car',
  'truck', 'bus', 'train', 'motorcycle', 'bicycle',
)  # fmt: skip
# Of the 34 in labelIds.png, those with a class; the others are left out.
CITYSCAPES_IDS = (
  7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33,
)  # fmt: skip
CAMVID = (
  'sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence',
  'car', 'pedestrian', 'bicyclist',
)  # fmt: skip
# Class 0, then the authors' order: the 20 of PASCAL VOC first.
CONTEXT = (
  'background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car',
  'cat', 'chair', 'cow', 'table', 'dog', 'horse', 'motorbike', 'person',
  'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor', 'bag', 'bed', 'bench',
  'book', 'building', 'cabinet', 'ceiling', 'cloth', 'computer', 'cup', 'door',
  'fence', 'floor', 'flower', 'food', 'grass', 'ground', 'keyboard', 'light',
  'mountain', 'mouse', 'curtain', 'platform', 'sign', 'plate', 'road', 'rock',
  'shelves', 'sidewalk', 'sky', 'snow', 'bedclothes', 'track', 'tree', 'truck',
  'wall', 'water', 'window', 'wood',
)  # fmt: skip
