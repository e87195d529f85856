"""Public data sets by their names, and the reader of their lists.

The owner of a data set publishes lists (csv, json or text): which videos, which
part of each, its class or caption, and the split it belongs to. The media come
from elsewhere, in folders that differ from one copy to the next. `read` takes
the lists of one data set, finds each file in the media folder by its name,
wherever it lies, and returns the segments to ingest:

    lists = registry.read('ucf101', annotations, media_root)
    manifest.write_manifest('ucf101.csv', lists.segments)

A listed file that is missing keeps its row, so that it is named and counted.
docs/datasets describes each data set.
"""

from collections.abc import Iterable
import dataclasses
import os

from vatt_tf.core import plain_text
from vatt_tf.media import errors, manifest
from vatt_tf.media.datasets import (
  audioset,
  esc50,
  hmdb51,
  howto100m,
  imagenet,
  kinetics,
  list_files,
  media_folder,
  moments_in_time,
  msrvtt,
  official_lists,
  ucf101,
  youcook2,
)


def _join_repeated(
  segments: Iterable[manifest.Segment],
) -> list[manifest.Segment]:
  """Joins the labels, captions and splits of what is listed several times."""
  joined = {}
  for segment in segments:
    segment = dataclasses.replace(
      segment,
      labels=tuple(dict.fromkeys(map(plain_text.clean_name, segment.labels))),
      captions=tuple(filter(None, map(plain_text.clean, segment.captions))),
    )
    key = (segment.path, segment.start, segment.end)
    if key in joined:
      first = joined[key]
      segment = dataclasses.replace(
        first,
        labels=tuple(dict.fromkeys(first.labels + segment.labels)),
        captions=tuple(dict.fromkeys(first.captions + segment.captions)),
        splits=tuple(dict.fromkeys(first.splits + segment.splits)),
      )
    joined[key] = segment
  return list(joined.values())


DATASETS = {
  'howto100m': howto100m.DATASET,
  'audioset': audioset.DATASET,
  'kinetics400': kinetics.DATASETS[400],
  'kinetics600': kinetics.DATASETS[600],
  'kinetics700': kinetics.DATASETS[700],
  'moments_in_time': moments_in_time.DATASET,
  'ucf101': ucf101.DATASET,
  'hmdb51': hmdb51.DATASET,
  'esc50': esc50.ESC50,
  'esc10': esc50.ESC10,
  'youcook2': youcook2.DATASET,
  'msrvtt': msrvtt.DATASET,
  'imagenet': imagenet.DATASET,
}


def read(
  dataset: str,
  annotations: str,
  media_root: str,
  split: str = '',
  is_cut: bool = False,
) -> official_lists.OfficialLists:
  """Reads the lists of a data set and finds its files.

  Args:
    dataset: One of `DATASETS`.
    annotations: Folder with its lists, as its owner publishes them.
    media_root: Folder of its media; names decide, folders hardly matter.
    split: One of the data set's splits; '' for all of them in one set of
      records, with lists of ids, where the data set has such lists.
    is_cut: Whether files that are named by the id of a video alone hold no more
      than the listed part (AudioSet, Kinetics); otherwise they are cut at the
      listed times.

  Returns:
    The segments of the lists, their classes, and which files are missing.

  Raises:
    ValueError: An argument is wrong.
    errors.MediaError: A list is missing, has another form, or belongs to
      another data set. It is a `ValueError` too.
  """
  if dataset not in DATASETS:
    raise ValueError(
      f'`dataset` must be one of {", ".join(DATASETS)}. Received: '
      f'dataset={dataset!r}'
    )
  info = DATASETS[dataset]
  if split not in info.splits and (split or not info.has_lists):
    whole = 'left out, for one set of records with lists of ids'
    choices = [*info.splits, *([whole] if info.has_lists else [])]
    raise ValueError(
      f'`split` of {info.title} must be {" or ".join(choices)}. Received: '
      f'split={split!r}'
    )
  if is_cut and not info.can_be_cut:
    raise ValueError(
      f'`is_cut` is not for {info.title}, whose files are named in one way '
      'only. Received: is_cut=True'
    )
  for name, folder in (
    ('annotations', annotations),
    ('media_root', media_root),
  ):
    if not os.path.isdir(folder):
      raise ValueError(
        f'`{name}` must be a folder. Received: {name}={folder!r}'
      )
  media = media_folder.MediaFolder(media_root, info.extension, is_cut)
  lists = info.reader(list_files.ListFiles(annotations), media, split)
  lists.segments = _join_repeated(lists.segments)
  lists.label_names = list(map(plain_text.clean_name, lists.label_names))
  if not lists.segments:
    raise errors.MediaError(
      f'{lists.source} lists nothing for {info.title}. Is it the list of '
      'another data set?'
    )
  if len(lists.label_names) > info.num_classes:
    raise errors.MediaError(
      f'{lists.source} has {len(lists.label_names)} classes, such as '
      f'{lists.label_names[0]!r}, and {info.title} has {info.num_classes}. Is '
      'it the list of another data set?'
    )
  if all(segment.path in lists.missing for segment in lists.segments):
    has = f'such as {media.first}' if media.first else 'none at all'
    raise errors.MediaError(
      f'None of the {len(lists.segments)} clips that {lists.source} lists is '
      f'in {media_root}: it lists files such as {lists.segments[0].path}, and '
      f'the folder has {media.num_files} media files, {has}. Is it the list of '
      'another data set, or the folder of another one?'
    )
  return lists
