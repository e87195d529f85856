"""The clip of a record from what a media file gave."""

from collections.abc import Sequence
from typing import Any

from vatt_tf.input_pipeline.records import schema
from vatt_tf.media import decode_settings, decoded_clip


def make_clip(
  decoded: decoded_clip.DecodedClip,
  settings: decode_settings.Settings,
  captions: Sequence[schema.Caption],
  **provenance: Any,
) -> schema.Clip:
  """Returns a decoded clip as a record holds it.

  Args:
    decoded: Frames and sound of the clip.
    settings: Settings of its decoding.
    captions: Captions, whose times count from the start of the clip.
    **provenance: More fields of `schema.Clip`, such as `data_path`.
  """
  return schema.Clip(
    frames=decoded.frames,
    timestamps=schema.frame_times(len(decoded.frames), settings.frame_rate),
    frame_rate=settings.frame_rate if decoded.frames else 0.0,
    height=decoded.height,
    width=decoded.width,
    waveform=decoded.audio,
    sample_rate=0.0 if decoded.audio is None else settings.audio_rate,
    captions=list(captions),
    start=decoded.start,
    end=decoded.end,
    **provenance,
  )
