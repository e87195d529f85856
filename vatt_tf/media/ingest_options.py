"""Options that the records of an ingest depend on."""

import dataclasses
import re

from vatt_tf.media import decode_settings, text_files


@dataclasses.dataclass(frozen=True)
class Options:
  """Every argument of `ingest` that the records depend on.

  Attributes:
    manifest: Path of the manifest; '' for a folder.
    media_root: Folder of the media files.
    name: Beginning of the shards' names.
    num_shards: Number of shards, or None for the default.
    settings: Settings of the decoding.
    captions: See `ingest.ingest`.
    caption_encoding: See `ingest.ingest`.
    caption_margin_seconds: See `ingest.ingest`.
    boxes: See `ingest.ingest`.
    clip_seconds: See `ingest.ingest`.
    clip_overlap_seconds: See `ingest.ingest`.
    min_clip_seconds: See `ingest.ingest`.
    first_seconds: See `ingest.ingest`.
    labels: Path of a `labels.txt`, or ''.
    dataset_name: Value of `example/dataset_name`.
    shuffle: Whether clips are shuffled.
    manifest_encoding: Encoding of the manifest; '' for UTF-8.
    ignore_columns: Columns of the manifest to leave out.
  """

  manifest: str
  media_root: str
  name: str
  num_shards: int | None
  settings: decode_settings.Settings
  captions: str
  caption_encoding: str
  caption_margin_seconds: float
  boxes: str
  clip_seconds: float | None
  clip_overlap_seconds: float
  min_clip_seconds: float | None
  first_seconds: float | None
  labels: str
  dataset_name: str
  shuffle: bool
  manifest_encoding: str
  ignore_columns: tuple[str, ...]

  def check(self) -> None:
    """Raises `ValueError` if an argument is out of its range."""
    settings = self.settings
    if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_.-]*', self.name):
      raise ValueError(
        '`name` must begin with a letter or digit and hold only letters, '
        f'digits, `_`, `.` and `-`. Received: name={self.name!r}'
      )
    for name, value, low, high in (
      ('num_shards', self.num_shards, 1, 99999),
      ('frame_rate', settings.frame_rate, 0.001, 1000),
      ('shorter_side', settings.shorter_side, 1, 16384),
      ('jpeg_quality', settings.jpeg_quality, 1, 100),
      ('audio_rate', settings.audio_rate, 1000, 768000),
      ('video_stream', settings.video_stream, 0, 1000),
      ('audio_stream', settings.audio_stream, 0, 1000),
      ('caption_stream', settings.caption_stream, 0, 1000),
      ('caption_margin_seconds', self.caption_margin_seconds, 0, 1e6),
      ('clip_seconds', self.clip_seconds, 0, 1e6),
      ('clip_overlap_seconds', self.clip_overlap_seconds, 0, 1e6),
      ('min_clip_seconds', self.min_clip_seconds, 0, 1e6),
      ('first_seconds', self.first_seconds, 0.001, 1e6),
    ):
      if value is not None and not low <= value <= high:
        raise ValueError(
          f'`{name}` must be in [{low:g}, {high:g}]. Received: {name}={value}'
        )
    if self.clip_seconds and self.clip_overlap_seconds >= self.clip_seconds:
      raise ValueError(
        '`clip_overlap_seconds` must be less than `clip_seconds`. Received: '
        f'clip_overlap_seconds={self.clip_overlap_seconds}, '
        f'clip_seconds={self.clip_seconds}'
      )
    if self.clip_overlap_seconds and not self.clip_seconds:
      raise ValueError(
        '`clip_overlap_seconds` needs `clip_seconds`. Received: '
        f'clip_overlap_seconds={self.clip_overlap_seconds}, '
        f'clip_seconds={self.clip_seconds}'
      )
    if not (settings.use_video or settings.use_audio):
      raise ValueError(
        '`use_video` or `use_audio` must be true. Received: '
        'use_video=False, use_audio=False'
      )
    text_files.check_encoding(self.caption_encoding, 'caption_encoding')
    text_files.check_encoding(self.manifest_encoding, 'manifest_encoding')
