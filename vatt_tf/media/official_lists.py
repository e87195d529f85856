"""Readers of the lists that public data sets come with.

The owner of a data set publishes lists (csv, json or text): which videos, which
part of each, its class or caption, and the split it belongs to. The media come
from elsewhere, in folders that differ from one copy to the next. A reader here
takes the lists of one data set, finds each file in the media folder by its
name, wherever it lies, and gives the segments to ingest:

    lists = official_lists.read('ucf101', annotations, media_root)
    manifest.write_manifest('ucf101.csv', lists.segments)

What is listed and not there keeps its row, so that it is named and counted.
docs/datasets describes each data set.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
import contextlib
import csv
import dataclasses
import glob
import io
import json
import os
import re

from vatt_tf.core import plain_text
from vatt_tf.media import errors, folders, manifest, text_files

_SECOND = 1_000_000

_SOUND_EXTENSIONS = frozenset(
  '.aac .aif .aiff .flac .m4a .mp3 .oga .ogg .opus .wav .wma'.split()
)


@dataclasses.dataclass
class OfficialLists:
  """What the lists of a data set say, and which of its files are there.

  Attributes:
    segments: All that is listed, in the order of the lists.
    label_names: The classes in the order of `labels.txt`; none without classes.
    missing: Paths of the segments whose files are not in the media folder.
    source: The list that `segments` are from, for messages.
    captions: File or folder with the captions of all videos, or ''.
    clip_seconds: Length of the clips that long videos are cut into, or None.
  """

  segments: list[manifest.Segment]
  label_names: list[str]
  missing: set[str]
  source: str
  captions: str = ''
  clip_seconds: float | None = None


class _Media:
  """The media files of a folder, found by name.

  Attributes:
    missing: What was asked for and is not there, as paths.
    num_files: Media files of the folder.
    first: Path of one of them, for messages.
    is_cut: Whether a file that is named by the id of its video alone holds no
      more than the listed part.
  """

  def __init__(self, root: str, extension: str, is_cut: bool):
    self._extension = extension
    self._by_stem = {}
    self.missing = set()
    self.is_cut = is_cut
    self.num_files = 0
    self.first = ''
    kinds = manifest.MEDIA_EXTENSIONS
    if extension in manifest.PICTURE_EXTENSIONS:
      kinds = manifest.PICTURE_EXTENSIONS
    for folder, names in folders.walk(root):
      for name in names:
        stem, extension = os.path.splitext(name)
        if extension.lower() in kinds:
          path = os.path.relpath(os.path.join(folder, name), root)
          self._by_stem.setdefault(stem, []).append(path)
          self.num_files += 1
          self.first = self.first or path

  def _find(self, name: str) -> str:
    """The path of a file; '' if there is none."""
    wanted = name.split('/')
    paths = [
      path
      for path in self._by_stem.get(wanted[-1], ())
      if os.path.splitext(path)[0].split(os.sep)[-len(wanted) :] == wanted
    ]
    if len(paths) > 1:
      raise errors.MediaError(
        f'The media folder has several files named {name}: {paths[0]} and '
        f'{paths[1]}. Keep one, or give the folder of one split as media_root.'
      )
    return paths[0] if paths else ''

  def segment(
    self,
    name: str,
    times: tuple[float, float] | None = None,
    cut_names: Sequence[str] = (),
    **parts,
  ) -> manifest.Segment:
    """The segment of a listed clip.

    Args:
      name: Of its file, without extension: that of the whole video where
        `times` are given; with a folder where names alone are ambiguous.
      times: Start and end in seconds of the listed part; None for all of it.
      cut_names: What a file is called that holds this part alone.
      **parts: Labels, captions and splits.
    """
    path = ''
    for cut_name in cut_names:
      path = path or self._find(cut_name)
    start, end = 0, None
    if not path:
      path = self._find(name)
      if times and not (path and self.is_cut):
        start, end = (round(time * _SECOND) for time in times)
    if not path:
      path = name + self._extension
      self.missing.add(path)
    kind = 'video_path'
    if os.path.splitext(path)[1].lower() in _SOUND_EXTENSIONS:
      kind = 'audio_path'
    return manifest.Segment(**{kind: path}, start=start, end=end, **parts)


class _Files:
  """The files of a folder of lists, or of a folder in it."""

  def __init__(self, folder: str):
    self.folder = folder

  def find(self, *names: str) -> str:
    """Path of the first of some files that is there, or ''."""
    root = glob.escape(self.folder)
    for name in names:
      for levels in ((name,), ('*', name), ('*', '*', name)):
        found = sorted(glob.glob(os.path.join(root, *levels)))
        if found:
          return found[0]
    return ''

  def need(self, *names: str) -> str:
    """The same; raises `errors.MediaError` if there is none."""
    path = self.find(*names)
    if not path:
      there = sorted(os.listdir(self.folder))
      raise errors.MediaError(
        f'`annotations` must be the folder with the lists of the data set: '
        f'expected {" or ".join(names)} in it. Received: '
        f'annotations={self.folder!r}, which has '
        f'{", ".join(there[:8]) or "no file"}{", ..." if there[8:] else ""}'
      )
    return path


def _wrong(path: str, line: int, expected: str, received) -> errors.MediaError:
  return errors.MediaError(
    f'{os.path.basename(path)}, line {line}: expected {expected}. Is it the '
    f'list of another data set? Received: {received!r}'
  )


def _lines(path: str) -> Iterator[tuple[int, str]]:
  """The lines of a text file that are not empty, with their numbers."""
  for number, line in enumerate(text_files.read_text(path).split('\n'), 1):
    if line.strip():
      yield number, line.strip()


def _rows(path: str, needed: Sequence[str]) -> Iterator[tuple[int, dict]]:
  """The rows of a csv file with a header, with their line numbers."""
  text = text_files.read_text(path)
  reader = csv.DictReader(io.StringIO(text, newline=''))
  reader.fieldnames = [one.strip() for one in reader.fieldnames or []]
  if not set(needed) <= set(reader.fieldnames):
    raise _wrong(
      path,
      1,
      f'a header with the columns {", ".join(needed)}',
      ','.join(reader.fieldnames),
    )
  for row in reader:
    if any(row[name] is None for name in needed):
      raise _wrong(path, reader.line_num, 'as many cells as columns', row)
    yield reader.line_num, row


def _number(text, path: str, line: int) -> float:
  try:
    return float(text)
  except ValueError as e:
    raise _wrong(path, line, 'a number of seconds', text) from e


def _json(path: str) -> dict:
  try:
    value = json.loads(text_files.read_text(path))
  except json.JSONDecodeError as e:
    raise errors.MediaError(
      f'{os.path.basename(path)}, line {e.lineno}, is not json: {e.msg}.'
    ) from e
  if not isinstance(value, dict):
    raise _wrong(path, 1, 'a json object', str(value)[:40])
  return value


@contextlib.contextmanager
def _layout_of(path: str, where: str) -> Iterator[None]:
  """Turns what is missing in a json file into an error that names it."""
  try:
    yield
  except (KeyError, TypeError) as e:
    raise errors.MediaError(
      f'{os.path.basename(path)}, {where}: not the layout that docs/datasets '
      f'describes ({type(e).__name__}: {e}). Is it the list of another data '
      'set?'
    ) from e


def _caption(value) -> str:
  """A caption of a list in the form in which it is kept; '' for none."""
  if value is None or value != value:  # NaN
    return ''
  if not isinstance(value, str):
    raise TypeError(f'a caption must be a text, received {value!r}')
  return plain_text.clean(value)


def _joined(segments: Iterable[manifest.Segment]) -> list[manifest.Segment]:
  """Joins the labels, captions and splits of what is listed several times."""
  joined = {}
  for one in segments:
    one = dataclasses.replace(
      one,
      labels=tuple(dict.fromkeys(map(plain_text.clean_name, one.labels))),
      captions=tuple(filter(None, map(plain_text.clean, one.captions))),
    )
    key = (one.path, one.start, one.end)
    if key in joined:
      first = joined[key]
      one = dataclasses.replace(
        first,
        labels=tuple(dict.fromkeys(first.labels + one.labels)),
        captions=tuple(dict.fromkeys(first.captions + one.captions)),
        splits=tuple(dict.fromkeys(first.splits + one.splits)),
      )
    joined[key] = one
  return list(joined.values())


# The readers: (files, media, split) -> segments, class names, list, more.


def _howto100m(files: _Files, media: _Media, split: str) -> OfficialLists:
  """HowTo100M_v1.csv, and caption.json or raw captions beside it."""
  path = files.need('HowTo100M_v1.csv')
  segments = [
    media.segment(row['video_id']) for _, row in _rows(path, ['video_id'])
  ]
  captions = files.find('caption.json', 'raw_caption.json', 'raw_caption')
  return OfficialLists(
    segments, [], media.missing, path, captions=captions, clip_seconds=10.0
  )


def _audioset(files: _Files, media: _Media, split: str) -> OfficialLists:
  """The csv of a split, with `#` lines, and class_labels_indices.csv."""
  names = {}
  classes_path = files.need('class_labels_indices.csv')
  columns = ['index', 'mid', 'display_name']
  for line, row in _rows(classes_path, columns):
    if row['index'] != str(len(names)):
      raise _wrong(classes_path, line, f'index {len(names)}', row['index'])
    names[row['mid']] = row['display_name']
  path = files.need(
    {
      'balanced_train': 'balanced_train_segments.csv',
      'unbalanced_train': 'unbalanced_train_segments.csv',
      'evaluation': 'eval_segments.csv',
    }[split]
  )
  segments = []
  text = io.StringIO(text_files.read_text(path), newline='')
  reader = csv.reader(text, skipinitialspace=True)
  for row in reader:
    if not row or row[0].startswith('#'):
      continue
    line = reader.line_num
    labels = row[3].split(',') if len(row) == 4 else []
    unknown = [label for label in labels if label not in names]
    if not labels or unknown:
      expected = (
        'YTID, start_seconds, end_seconds, "classes of '
        f'{os.path.basename(classes_path)}"'
      )
      raise _wrong(path, line, expected, ', '.join(row))
    start, end = (_number(cell, path, line) for cell in row[1:3])
    milliseconds = f'{row[0]}_{round(start * 1000)}_{round(end * 1000)}'
    segments.append(
      media.segment(
        row[0],
        (start, end),
        (milliseconds, _clip_name(row[0], start, end), f'Y{row[0]}'),
        labels=tuple(names[label] for label in labels),
      )
    )
  return OfficialLists(segments, list(names.values()), media.missing, path)


def _clip_name(video: str, start: float, end: float) -> str:
  """What downloaders of Kinetics call a clip: `id_000010_000020`."""
  return f'{video}_{int(start):06d}_{int(end):06d}'


def _kinetics(files: _Files, media: _Media, split: str) -> OfficialLists:
  """train.csv, val.csv (validate.csv) or test.csv; the classes of train.csv."""
  path = files.need(
    *{
      'train': ['train.csv'],
      'validation': ['validate.csv', 'val.csv', 'validation.csv'],
      'test': ['test.csv'],
    }[split]
  )
  # The test list of Kinetics-400 was first published without classes.
  columns = ['youtube_id', 'time_start', 'time_end']
  segments = []
  for line, row in _rows(path, columns):
    video = row['youtube_id']
    start = _number(row['time_start'], path, line)
    end = _number(row['time_end'], path, line)
    label = ' '.join((row.get('label') or '').split())
    segments.append(
      media.segment(
        video,
        (start, end),
        (_clip_name(video, start, end),),
        labels=(label,) if label else (),
      )
    )
  names = {label for one in segments for label in one.labels}
  train_path = files.find('train.csv')
  if train_path and train_path != path:
    names |= {
      ' '.join(row['label'].split()) for _, row in _rows(train_path, ['label'])
    }
  return OfficialLists(segments, sorted(names), media.missing, path)


def _moments_in_time(files: _Files, media: _Media, split: str) -> OfficialLists:
  """trainingSet.csv or validationSet.csv, and moments_categories.txt."""
  classes_path = files.need('moments_categories.txt')
  names = {}
  for line, text in _lines(classes_path):
    name, _, index = text.rpartition(',')
    if not name or not index.strip().isdigit():
      raise _wrong(classes_path, line, '`category,index`', text)
    names[name.strip()] = int(index)
  names = sorted(names, key=names.get)
  path = files.need(
    'trainingSet.csv' if split == 'train' else 'validationSet.csv'
  )
  segments = []
  reader = csv.reader(io.StringIO(text_files.read_text(path), newline=''))
  for row in reader:
    if not row:
      continue
    if len(row) < 2 or row[1] not in names:
      expected = f'`file,category` with one of {os.path.basename(classes_path)}'
      raise _wrong(path, reader.line_num, expected, ','.join(row))
    stem = os.path.splitext(row[0])[0]
    if '/' not in stem:
      stem = f'{row[1]}/{stem}'
    segments.append(media.segment(stem, labels=(row[1],)))
  return OfficialLists(segments, names, media.missing, path)


def _numbered(files: _Files, form: str, count: int) -> list[tuple[int, str]]:
  """The lists of the splits 1, 2, ... that are there; the first one must be."""
  files.need(form.format(1))
  paths = [(i, files.find(form.format(i))) for i in range(1, count + 1)]
  return [(i, path) for i, path in paths if path]


def _ucf101(files: _Files, media: _Media, split: str) -> OfficialLists:
  """classInd.txt, trainlist01.txt, testlist01.txt and so on."""
  classes_path = files.need('classInd.txt')
  names = []
  for line, text in _lines(classes_path):
    index, _, name = text.partition(' ')
    if index != str(len(names) + 1) or not name:
      raise _wrong(classes_path, line, f'`{len(names) + 1} ClassName`', text)
    names.append(name.strip())
  segments = []
  for part in ('train', 'test'):
    for number, path in _numbered(files, part + 'list{:02d}.txt', 3):
      for line, text in _lines(path):
        label, _, name = text.split()[0].partition('/')
        if label not in names or not name:
          expected = (
            f'`Class/video.avi` with a class of '
            f'{os.path.basename(classes_path)}'
          )
          raise _wrong(path, line, expected, text)
        segments.append(
          media.segment(
            os.path.splitext(name)[0],
            labels=(label,),
            splits=(f'{part}_{number}',),
          )
        )
  return OfficialLists(segments, names, media.missing, classes_path)


def _hmdb51(files: _Files, media: _Media, split: str) -> OfficialLists:
  """CLASS_test_split1.txt and so on: 1 is training, 2 test, 0 neither."""
  form = '*_test_split{}.txt'
  first = files.need(form.format(1))
  folder = glob.escape(os.path.dirname(first))
  segments, names = [], set()
  for number in (1, 2, 3):
    for path in sorted(glob.glob(os.path.join(folder, form.format(number)))):
      label = os.path.basename(path).rsplit('_test_split', 1)[0]
      names.add(label)
      for line, text in _lines(path):
        name, _, kind = text.rpartition(' ')
        if not name or kind not in ('0', '1', '2'):
          raise _wrong(path, line, '`video.avi` and 0, 1 or 2', text)
        stem = os.path.splitext(name.strip())[0]
        part = {'0': '', '1': 'train', '2': 'test'}[kind]
        # The same name may be in several classes.
        segments.append(
          media.segment(
            f'{label}/{stem}',
            labels=(label,),
            splits=(f'{part}_{number}',) if part else (),
          )
        )
  return OfficialLists(segments, sorted(names), media.missing, first)


def _esc50(files: _Files, media: _Media, split: str) -> OfficialLists:
  return _esc(files, media, split, is_10=False)


def _esc10(files: _Files, media: _Media, split: str) -> OfficialLists:
  return _esc(files, media, split, is_10=True)


def _esc(
  files: _Files, media: _Media, split: str, is_10: bool
) -> OfficialLists:
  """esc50.csv: the folds of a cross-validation, and what belongs to ESC-10."""
  path = files.need('esc50.csv')
  columns = ['filename', 'fold', 'target', 'category', 'esc10']
  rows = [
    row
    for _, row in _rows(path, columns)
    if not is_10 or row['esc10'].strip().lower() == 'true'
  ]
  folds = {row['fold'] for row in rows}
  segments = [
    media.segment(
      os.path.splitext(row['filename'])[0],
      labels=(row['category'],),
      # The records of one fold are no more than a part of each list.
      splits=() if split else manifest.fold_splits([row['fold']], folds),
    )
    for row in rows
    if split in ('', f'fold{row["fold"]}')
  ]
  order = {row['category']: int(row['target']) for row in rows}
  names = sorted(order, key=order.get)
  return OfficialLists(segments, names, media.missing, path)


def _youcook2(files: _Files, media: _Media, split: str) -> OfficialLists:
  """youcookii_annotations_trainval.json; for validation also MIL-NCE's csv."""
  json_name = 'youcookii_annotations_trainval.json'
  csv_name = 'validation_youcook.csv'
  is_validation = split == 'validation'
  path = files.need(json_name, *([csv_name] if is_validation else []))
  segments = []

  def add(video, start, end, text):
    # Some files state the end before the start.
    times = min(start, end), max(start, end)
    captions = (_caption(text),)
    segments.append(media.segment(video, times, captions=captions))

  if os.path.basename(path) == csv_name:
    for line, row in _rows(path, ['video_id', 'start', 'end', 'text']):
      start, end = (_number(row[key], path, line) for key in ('start', 'end'))
      add(row['video_id'], start, end, row['text'])
  else:
    subset = {'train': 'training', 'validation': 'validation'}[split]
    with _layout_of(path, 'database'):
      database = dict(_json(path)['database'])
    for video, entry in database.items():
      with _layout_of(path, video):
        if entry['subset'] == subset:
          for one in entry['annotations']:
            add(video, *one['segment'], one['sentence'])
  return OfficialLists(segments, [], media.missing, path)


_MSRVTT_TEST_1K = ('MSRVTT_JSFUSION_test.csv', 'msrvtt_test.csv')


def _msrvtt(files: _Files, media: _Media, split: str) -> OfficialLists:
  """The videodatainfo json files, and the csv of the 1k-A test."""
  test_1k = {}
  if split in ('test_1k', 'train_9k'):
    path = files.need(*_MSRVTT_TEST_1K)
    for _, row in _rows(path, ['video_id', 'sentence']):
      test_1k.setdefault(row['video_id'], []).append(row['sentence'])
  if split == 'test_1k':
    captions = test_1k
  else:
    names = ['train_val_videodatainfo.json', 'test_videodatainfo.json']
    if split in ('train', 'validation'):
      names = names[:1]
    elif split == 'test':
      names = names[1:]
    whole = files.find('MSRVTT_data.json')
    paths = [whole] if whole else [files.need(name) for name in names]
    path = paths[0]
    captions = _msrvtt_captions(paths, split, test_1k)
  segments = [
    media.segment(video, captions=tuple(texts))
    for video, texts in captions.items()
  ]
  return OfficialLists(segments, [], media.missing, path)


def _msrvtt_captions(
  paths: Sequence[str], split: str, test_1k: Container[str]
) -> dict[str, list[str]]:
  """The captions of each video of a split."""
  wanted = {'train': 'train', 'validation': 'validate', 'test': 'test'}
  captions = {}
  for path in paths:
    value = _json(path)
    with _layout_of(path, 'videos, sentences'):
      for video in value['videos']:
        # The 9,000 are all but those of the 1k-A test.
        is_wanted = (
          video['video_id'] not in test_1k
          if split == 'train_9k'
          else video['split'] == wanted[split]
        )
        if is_wanted:
          captions[video['video_id']] = []
      for sentence in value['sentences']:
        if sentence['video_id'] in captions:
          captions[sentence['video_id']].append(_caption(sentence['caption']))
  return captions


def _imagenet(files: _Files, media: _Media, split: str) -> OfficialLists:
  """Folders by wnid; for validation also a flat one with its csv."""
  names = sorted(
    one for one in os.listdir(files.folder) if re.fullmatch(r'n\d{8}', one)
  )
  path = files.folder
  segments = []
  if names:
    for name in names:
      for picture in sorted(os.listdir(os.path.join(path, name))):
        stem, extension = os.path.splitext(picture)
        if extension.lower() in manifest.PICTURE_EXTENSIONS:
          segments.append(media.segment(f'{name}/{stem}', labels=(name,)))
  else:
    path = files.need('LOC_val_solution.csv')
    for _, row in _rows(path, ['ImageId', 'PredictionString']):
      label = row['PredictionString'].split()[0]
      segments.append(media.segment(row['ImageId'], labels=(label,)))
    names = sorted({one.labels[0] for one in segments})
  return OfficialLists(segments, names, media.missing, path)


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A data set whose lists can be read.

  Attributes:
    title: Its name for people.
    reader: Of its lists.
    splits: What may have records of its own.
    has_lists: Whether, without a split, one set of records has lists of ids
      for all splits.
    num_classes: Of the largest edition; 0 without classes.
    extension: Of the media files, where one is missing.
    can_be_cut: Whether a file that is named by the id of a video alone may be
      the one part of it that is listed.
  """

  title: str
  reader: Callable[[_Files, _Media, str], OfficialLists]
  splits: tuple[str, ...] = ()
  num_classes: int = 0
  has_lists: bool = False
  extension: str = '.mp4'
  can_be_cut: bool = False


_FOLDS = ('fold1', 'fold2', 'fold3', 'fold4', 'fold5')
_THREE_SPLITS = ('train', 'validation', 'test')

DATASETS = {
  'howto100m': Dataset('HowTo100M', _howto100m, ('train',)),
  'audioset': Dataset(
    'AudioSet',
    _audioset,
    ('balanced_train', 'unbalanced_train', 'evaluation'),
    527,
    can_be_cut=True,
  ),
  'kinetics400': Dataset(
    'Kinetics-400', _kinetics, _THREE_SPLITS, 400, can_be_cut=True
  ),
  'kinetics600': Dataset(
    'Kinetics-600', _kinetics, _THREE_SPLITS, 600, can_be_cut=True
  ),
  'kinetics700': Dataset(
    'Kinetics-700', _kinetics, _THREE_SPLITS, 700, can_be_cut=True
  ),
  'moments_in_time': Dataset(
    'Moments in Time', _moments_in_time, ('train', 'validation'), 339
  ),
  'ucf101': Dataset('UCF101', _ucf101, (), 101, True, '.avi'),
  'hmdb51': Dataset('HMDB51', _hmdb51, (), 51, True, '.avi'),
  'esc50': Dataset('ESC-50', _esc50, _FOLDS, 50, True, '.wav'),
  'esc10': Dataset('ESC-10', _esc10, _FOLDS, 10, True, '.wav'),
  'youcook2': Dataset('YouCook2', _youcook2, ('train', 'validation')),
  'msrvtt': Dataset(
    'MSR-VTT',
    _msrvtt,
    (*_THREE_SPLITS, 'train_9k', 'test_1k'),
  ),
  'imagenet': Dataset(
    'ImageNet',
    _imagenet,
    ('train', 'validation'),
    1000,
    extension='.jpeg',
  ),
}


def read(
  dataset: str,
  annotations: str,
  media_root: str,
  split: str = '',
  is_cut: bool = False,
) -> OfficialLists:
  """Reads the lists of a data set and finds its files.

  Args:
    dataset: One of `DATASETS`.
    annotations: The folder with its lists, as its owner publishes them.
    media_root: Folder of its media; names decide, folders hardly matter.
    split: One of the data set's splits; '' for all of them in one set of
      records, with lists of ids, where the data set has such lists.
    is_cut: Whether files that are named by the id of a video alone hold no
      more than the listed part (AudioSet, Kinetics); otherwise they are cut at
      the listed times.

  Returns:
    What the lists say.

  Raises:
    ValueError: An argument is wrong. `errors.MediaError`, which is one too: a
      list is not there or in another form, or belongs to another data set.
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
  media = _Media(media_root, info.extension, is_cut)
  lists = info.reader(_Files(annotations), media, split)
  lists.segments = _joined(lists.segments)
  lists.label_names = [plain_text.clean_name(one) for one in lists.label_names]
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
  if all(one.path in lists.missing for one in lists.segments):
    has = f'such as {media.first}' if media.first else 'none at all'
    raise errors.MediaError(
      f'None of the {len(lists.segments)} clips that {lists.source} lists is '
      f'in {media_root}: it lists files such as {lists.segments[0].path}, and '
      f'the folder has {media.num_files} media files, {has}. Is it the list of '
      'another data set, or the folder of another one?'
    )
  return lists
