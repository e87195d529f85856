"""From the official lists of a data set and its media to records."""

import os

from absl import logging

from vatt_tf.core import file_utils
from vatt_tf.media import (
  caption_sources,
  errors,
  ingest,
  ingest_report,
  label_files,
  manifest,
  skip_lines,
)
from vatt_tf.media.datasets import official_lists, registry


def _write_labels(output_dir: str, names: list[str], title: str) -> None:
  """Writes `labels.txt` in the official order, or checks an existing one."""
  path = os.path.join(output_dir, label_files.LABELS_FILE)
  if not os.path.exists(path):
    file_utils.write_text(path, ''.join(f'{name}\n' for name in names))
  elif label_files.read_labels(path) != names:
    raise ValueError(
      f'{path} has other classes than the lists of {title}. Give another '
      '`output_dir`, or the lists of its records.'
    )


def _check_missing(
  lists: official_lists.OfficialLists,
  media_root: str,
  report: str,
  max_failed_share: float,
) -> None:
  """Raises before any work if too many of the listed files are missing."""
  missing = [
    segment for segment in lists.segments if segment.path in lists.missing
  ]
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
  ingest_report.write_skip_report(
    report,
    [
      skip_lines.skip_of(
        segment,
        segment.start,
        segment.end,
        errors.MediaError('the file does not exist'),
        True,
      )
      for segment in missing
    ],
  )
  examples = '\n'.join(f'  {segment.path}' for segment in missing[:5])
  raise errors.MediaError(
    f'{text}, more than `max_failed_share`={max_failed_share:g} allows. '
    'Nothing has been written. Complete the folder, or allow a larger share '
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
  captions: str = caption_sources.AUTO,
  clip_seconds: float | None = None,
  dataset_name: str = '',
  **options: object,
) -> ingest_report.Result:
  """Writes the records of a public data set.

  The lists become `NAME.manifest.csv` beside the records, which is ingested.
  The classes are in the official order. Data sets with several splits of the
  same videos get one set of records, and lists of ids in `splits/`.

  Args:
    dataset: Name of the data set, one of `registry.DATASETS`.
    annotations: Folder with its lists; '' if that is `media_root`.
    media_root: Folder with its media.
    output_dir: Folder of the shards.
    split: See `registry.read`.
    is_cut: See `registry.read`.
    name: Beginning of the shards' names; by default the split, or `all`.
    max_failed_share: Share of the listed clips that may fail. When more of them
      have no file, an error is raised at once; when more of them have no file
      or fail, after all others are written.
    captions: See `ingest.ingest`; by default those of the data set.
    clip_seconds: See `ingest.ingest`; by default that of the data set.
    dataset_name: Value of `example/dataset_name`; by default `dataset`.
    **options: Further arguments of `ingest.ingest`.

  Returns:
    Counts and paths of the records.

  Raises:
    ValueError: See `registry.read` and `ingest.ingest`; or too many of the
      listed files are missing.
    errors.TooManyFailedError: See `ingest.ingest`.
  """
  if not media_root or not output_dir:
    raise ValueError(
      '`media_root` and `output_dir` must be given. Received: '
      f'media_root={media_root!r}, output_dir={output_dir!r}'
    )
  lists = registry.read(
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
    title = registry.DATASETS[dataset].title
    _write_labels(output_dir, lists.label_names, title)
  manifest_path = os.path.join(output_dir, f'{name}.manifest.csv')
  manifest.write_manifest(manifest_path, lists.segments)
  if captions == caption_sources.AUTO:
    captions = lists.captions or caption_sources.AUTO
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
