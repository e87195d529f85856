"""From the official lists of a data set and its media to records."""

import os

from absl import logging

from vatt_tf.core import file_utils
from vatt_tf.media import (
  errors,
  ingest,
  manifest,
  official_lists,
  planning,
)


def _write_labels(output_dir: str, names: list[str], title: str) -> None:
  """Writes `labels.txt` in the official order, or checks the one there."""
  path = os.path.join(output_dir, ingest.LABELS_FILE)
  if not os.path.exists(path):
    file_utils.write_text(path, ''.join(f'{name}\n' for name in names))
  elif ingest.read_labels(path) != names:
    raise ValueError(
      f'{path} has other classes than the lists of {title}. Give another '
      '`output_dir`, or the lists that the records there were made with.'
    )


def _check_missing(
  lists: official_lists.OfficialLists,
  media_root: str,
  report: str,
  max_failed_share: float,
) -> None:
  """Raises before any work if too many of the listed clips are not there."""
  missing = [one for one in lists.segments if one.path in lists.missing]
  count, total = len(missing), len(lists.segments)
  if not count:
    return
  text = (
    f'{count} of {total} clips that {lists.source} lists are not in '
    f'{media_root} ({count / total:.1%})'
  )
  if count <= max_failed_share * total:
    logging.warning('%s: they become lines of %s.', text, report)
    return
  ingest.write_skip_report(
    report,
    [
      planning.skip_of(
        one,
        one.start,
        one.end,
        errors.MediaError('the file is not there'),
        True,
      )
      for one in missing
    ],
  )
  examples = '\n'.join(f'  {one.path}' for one in missing[:5])
  raise errors.MediaError(
    f'{text}, more than `max_failed_share`={max_failed_share:g} allows. '
    'Nothing was made yet. Complete the folder, or allow a larger share '
    f'(--max_failed_share). {report} names them all:\n{examples}'
  )


def ingest_dataset(
  dataset: str,
  annotations: str,
  media_root: str,
  output_dir: str,
  split: str = '',
  is_cut: bool = False,
  name: str = '',
  max_failed_share: float = 0.1,
  captions: str = planning.AUTO,
  clip_seconds: float | None = None,
  dataset_name: str = '',
  **options,
) -> ingest.Result:
  """Makes the records of a public data set.

  What the lists say is written as `NAME.manifest.csv` beside the records, and
  ingested. The classes are in the official order. Data sets with several
  splits of the same videos get one set of records, and lists of ids in
  `splits/`.

  Args:
    dataset: One of `official_lists.DATASETS`.
    annotations: The folder with its lists; '' if it is `media_root`.
    media_root: Folder of its media.
    output_dir: Folder of the shards.
    split: See `official_lists.read`.
    is_cut: See `official_lists.read`.
    name: What the shards' names begin with; by default the split, or `all`.
    max_failed_share: Of the listed clips. When more of them have no file, an
      error is raised at once; when more of them have no file or fail, after
      all others are written.
    captions: See `ingest.ingest`; by default those of the data set.
    clip_seconds: See `ingest.ingest`; by default what suits the data set.
    dataset_name: For `example/dataset_name`; by default `dataset`.
    **options: Of `ingest.ingest`.

  Returns:
    What was made.

  Raises:
    ValueError: As `official_lists.read` and `ingest.ingest` do, and if too many
      of the listed clips are not there.
    errors.TooManyFailedError: As `ingest.ingest` does.
  """
  if not media_root or not output_dir:
    raise ValueError(
      '`media_root` and `output_dir` must be given. Received: '
      f'media_root={media_root!r}, output_dir={output_dir!r}'
    )
  lists = official_lists.read(
    dataset, annotations or media_root, media_root, split, is_cut
  )
  name = name or split or 'all'
  file_utils.check_writable(output_dir, 'Give another `output_dir`.')
  _check_missing(
    lists,
    media_root,
    os.path.join(output_dir, f'{name}.skipped.csv'),
    max_failed_share,
  )
  if lists.label_names:
    title = official_lists.DATASETS[dataset].title
    _write_labels(output_dir, lists.label_names, title)
  manifest_path = os.path.join(output_dir, f'{name}.manifest.csv')
  manifest.write_manifest(manifest_path, lists.segments)
  if captions == planning.AUTO:
    captions = lists.captions or planning.AUTO
  return ingest.ingest(
    output_dir,
    manifest_path=manifest_path,
    media_root=media_root,
    name=name,
    max_failed_share=max_failed_share,
    captions=captions,
    clip_seconds=lists.clip_seconds if clip_seconds is None else clip_seconds,
    dataset_name=dataset_name or dataset,
    **options,
  )
