"""Finds the captions of media files: beside them, in a table, or in a track."""

from collections.abc import Iterable, Sequence
import os

from absl import logging

from vatt_tf.media import (
  caption_cues,
  caption_files,
  caption_tables,
  ingest_options,
  manifest,
  skip_lines,
)

# Values of `captions` that name no file.
AUTO = 'auto'
NONE = 'none'


class CaptionFinder:
  """Finds the captions of a segment: the first source that has some.

  The order: the manifest's own, the `captions` file or folder, a caption file
  beside the media file, a text track in it.

  Attributes:
    used: Paths of the caption files that belong to a segment.
    skips: Notes on what was left out of the file with all captions.

  Args:
    options: Options of the ingest.
    segments: Segments of the manifest or folder.
  """

  def __init__(
    self, options: ingest_options.Options, segments: Sequence[manifest.Segment]
  ):
    self._options = options
    self._names = {}
    self._table = None
    self._folder = None
    self.used = set()
    self.skips = []
    where = options.captions
    if where in (AUTO, NONE):
      return
    if os.path.isdir(where):
      self._folder = where
    elif not os.path.isfile(where):
      raise ValueError(
        f'`captions` must be {AUTO}, {NONE}, a folder of caption files, or a '
        'json or csv file with the captions of all videos. Received: '
        f'captions={where!r}, which does not exist'
      )
    elif os.path.splitext(where)[1].lower() not in ('.json', '.csv'):
      raise ValueError(
        '`captions` as a file must be .json or .csv and hold the captions of '
        'all videos; name the folder for .srt and .vtt files. Received: '
        f'captions={where!r}'
      )
    else:
      wanted = {caption_tables.video_key(segment.path) for segment in segments}
      name = os.path.basename(where)
      notes = caption_cues.Notes(name)
      self._table = caption_tables.read_table(
        where, wanted, options.caption_encoding, notes
      )
      self.skips = [
        skip_lines.Skip(
          name, '', '', f'{skip_lines.NOTE}{note.reason}', False, True
        )
        for note in notes.as_list()
      ]
      logging.info(
        '%s has captions for %d of %d files.',
        where,
        len(self._table),
        len(wanted),
      )

  def cues(self, segment: manifest.Segment) -> list[caption_cues.Cue] | None:
    """Returns the captions known so far; None if the media file has them."""
    if segment.captions:
      end = caption_cues.OPEN_END if segment.end is None else segment.end
      return [
        caption_cues.Cue(segment.start, end, text) for text in segment.captions
      ]
    if self._table is not None:
      return self._table.get(caption_tables.video_key(segment.path), [])
    if self._options.captions == NONE:
      return []
    return None

  def file(self, segment: manifest.Segment) -> str:
    """Returns the path of the caption file of a segment, or ''."""
    folder, name = os.path.split(
      os.path.join(self._options.media_root, segment.path)
    )
    if self._folder is not None:
      folder = self._folder
    if folder not in self._names:
      names = os.listdir(folder) if os.path.isdir(folder) else []
      self._names[folder] = _CaptionNames(names)
    caption_file = self._names[folder].find(
      name, self._options.settings.caption_language
    )
    if not caption_file:
      return ''
    path = os.path.join(folder, caption_file)
    self.used.add(os.path.normpath(path))
    return path

  @property
  def reads_streams(self) -> bool:
    """Whether a file without other captions may have a text track."""
    return self._options.captions == AUTO


class _CaptionNames:
  """The caption files of a folder, by the beginning of their names."""

  def __init__(self, names: Iterable[str]):
    self._by_stem = {}
    for name in names:
      base, extension = os.path.splitext(name)
      if extension.lower() in caption_files.EXTENSIONS:
        # With and without what may be a language.
        for stem in {base, os.path.splitext(base)[0]}:
          self._by_stem.setdefault(stem, []).append(name)

  def find(self, media_name: str, language: str) -> str:
    """Returns the name of the caption file of a media file, or ''."""
    stem = os.path.splitext(media_name)[0]
    names = self._by_stem.get(stem, ())
    return caption_files.find_beside(names, media_name, language)
