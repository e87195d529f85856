"""The lists of MSR-VTT."""

from collections.abc import Container, Sequence

from vatt_tf.media.datasets import list_files, media_folder, official_lists

_TEST_1K = ('MSRVTT_JSFUSION_test.csv', 'msrvtt_test.csv')


def _read(
  files: list_files.ListFiles, media: media_folder.MediaFolder, split: str
) -> official_lists.OfficialLists:
  """Reads the videodatainfo json files, and the csv of the 1k-A test."""
  test_1k = {}
  if split in ('test_1k', 'train_9k'):
    path = files.need(*_TEST_1K)
    for _, row in list_files.csv_rows(path, ['video_id', 'sentence']):
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
    captions = _read_captions(paths, split, test_1k)
  segments = [
    media.segment(video, captions=tuple(texts))
    for video, texts in captions.items()
  ]
  return official_lists.OfficialLists(segments, [], media.missing, path)


def _read_captions(
  paths: Sequence[str], split: str, test_1k: Container[str]
) -> dict[str, list[str]]:
  """Returns the captions of each video of a split."""
  wanted = {'train': 'train', 'validation': 'validate', 'test': 'test'}
  captions = {}
  for path in paths:
    value = list_files.read_json(path)
    with list_files.check_layout(path, 'videos, sentences'):
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
          captions[sentence['video_id']].append(
            list_files.clean_caption(sentence['caption'])
          )
  return captions


DATASET = official_lists.Dataset(
  'MSR-VTT', _read, ('train', 'validation', 'test', 'train_9k', 'test_1k')
)
