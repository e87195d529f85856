"""Options of a run of the embedding."""

import dataclasses

from vatt_tf.embedding import table
from vatt_tf.media import caption_sources

DEFAULT_BATCH_SIZE = 32
DEFAULT_CLIPS_PER_FILE = 1024


@dataclasses.dataclass(frozen=True)
class Options:
  """Input, output and sizes of an embedding.

  Attributes:
    saved_model: Folder of the model, or of a version of it.
    output: Folder of the table.
    media: Folder, file or pattern of media; or ''.
    manifest: Path of a csv; or ''.
    records: Pattern of shards; or ''.
    media_root: Folder that the paths of a manifest or of records are relative
      to; '' for that of the manifest.
    modalities: Modalities among `table.MODALITIES`; empty for all of the model.
    clip_seconds: Length of a window, or None for what the model takes.
    stride_seconds: Time from window to window, or None for their length.
    captions: Source of the captions of media files (see `ingest.ingest`).
    shorter_side: Pixels of a frame's shorter side.
    jpeg_quality: Quality from 1 to 100.
    audio_rate: Samples per second, or None for those of the model.
    batch_size: Number of clips that are computed together.
    clips_per_file: Approximate number of clips in a Parquet file.
    num_workers: Number of processes that decode, or None for one per core.
    max_failed_share: Share of the clips that may fail.
    overwrite: Whether to remove an existing table.
  """

  saved_model: str
  output: str
  media: str = ''
  manifest: str = ''
  records: str = ''
  media_root: str = ''
  modalities: tuple[str, ...] = ()
  clip_seconds: float | None = None
  stride_seconds: float | None = None
  captions: str = caption_sources.AUTO
  shorter_side: int = 256
  jpeg_quality: int = 90
  audio_rate: int | None = None
  batch_size: int = DEFAULT_BATCH_SIZE
  clips_per_file: int = DEFAULT_CLIPS_PER_FILE
  num_workers: int | None = None
  max_failed_share: float = 0.1
  overwrite: bool = False

  def check(self) -> None:
    """Raises `ValueError` if an option is wrong."""
    given = [
      name for name in ('media', 'manifest', 'records') if getattr(self, name)
    ]
    if len(given) != 1:
      raise ValueError(
        'One of `media`, `manifest` and `records` must be given. Received: '
        f'{", ".join(given) or "none"}'
      )
    if self.media and self.media_root:
      raise ValueError(
        '`media_root` goes with `manifest` or `records`: the paths of `media` '
        f'are relative to its own folder. Received: media={self.media!r}, '
        f'media_root={self.media_root!r}'
      )
    for name, low in (
      ('batch_size', 1),
      ('clips_per_file', 1),
      ('num_workers', 0),
    ):
      value = getattr(self, name)
      if value is not None and value < low:
        raise ValueError(
          f'`{name}` must be at least {low}. Received: {name}={value}'
        )
    if not 0 <= self.max_failed_share <= 1:
      raise ValueError(
        '`max_failed_share` must be in [0, 1]. Received: '
        f'max_failed_share={self.max_failed_share}'
      )
    for modality in self.modalities:
      if modality not in table.MODALITIES:
        raise ValueError(
          f'`modalities` must be among {", ".join(table.MODALITIES)}. '
          f'Received: modalities={",".join(self.modalities)}'
        )
