"""Chooses the streams of a media file that are read."""

from collections.abc import Sequence
from typing import NamedTuple

import av.audio.stream
import av.container
import av.stream
import av.subtitles.stream
import av.video.stream

from vatt_tf.media import decode_settings, errors

# Decoders of captions that are pictures.
_PICTURE_CAPTIONS = ('dvdsub', 'pgssub', 'dvbsub', 'xsub')

# Languages whose three-letter codes do not begin with their two-letter code.
_LANGUAGE_CODES = {
  'cs': ('cze', 'ces'),
  'de': ('ger', 'deu'),
  'es': ('spa',),
  'is': ('ice', 'isl'),
  'ja': ('jpn',),
  'nl': ('dut', 'nld'),
  'pl': ('pol',),
  'pt': ('por',),
  'sv': ('swe',),
  'tr': ('tur',),
  'zh': ('chi', 'zho'),
}


class Streams(NamedTuple):
  """The chosen streams of a container.

  Attributes:
    video: Video stream, or None.
    audio: Audio stream, or None.
    text: Stream of text captions, or None.
    is_all: Whether the container has no other video and audio.
  """

  video: av.video.stream.VideoStream | None
  audio: av.audio.stream.AudioStream | None
  text: av.subtitles.stream.SubtitleStream | None
  is_all: bool


def choose(
  container: av.container.InputContainer, settings: decode_settings.Settings
) -> Streams:
  """Returns the streams of a container that the settings ask for.

  Raises:
    errors.MediaError: The container lacks them, or FFmpeg has no decoder.
  """
  # The cover picture of a song is a video stream of one frame.
  cover = av.stream.Disposition.attached_pic
  videos = [
    stream
    for stream in container.streams.video
    if not stream.disposition & cover
  ]
  audios = list(container.streams.audio)
  if not (videos or audios):
    raise errors.MediaError(
      f'it holds no video and no audio (format {container.format.name})'
    )
  video = audio = None
  if settings.use_video:
    video = _pick_stream(videos, settings.video_stream, 'video')
  if settings.use_audio:
    audio = _pick_stream(audios, settings.audio_stream, 'audio')
  chosen = [stream for stream in (video, audio) if stream is not None]
  if not chosen:
    has, lacks = ('audio', 'video') if audios else ('video', 'audio')
    raise errors.MediaError(f'it has {has} but no {lacks}')
  for stream in chosen:
    if stream.codec_context is None:
      raise errors.MediaError(f'FFmpeg has no decoder for its {stream.type}')
  return Streams(
    video,
    audio,
    _choose_captions(container, settings),
    is_all=len(videos) + len(audios) == len(chosen),
  )


def _choose_captions(
  container: av.container.InputContainer, settings: decode_settings.Settings
) -> av.subtitles.stream.SubtitleStream | None:
  texts = [
    stream
    for stream in container.streams.subtitles
    if stream.codec_context is not None
    and stream.codec_context.name not in _PICTURE_CAPTIONS
  ]
  language = settings.caption_language
  if language and settings.caption_stream is None:
    texts = [
      stream for stream in texts if _is_language(stream.language, language)
    ] or texts
  return _pick_stream(texts, settings.caption_stream, 'caption')


def _pick_stream(
  streams: Sequence[av.stream.Stream], chosen: int | None, kind: str
) -> av.stream.Stream | None:
  """Returns the chosen stream, else a default one, else the first; or None."""
  if chosen is not None:
    if chosen >= len(streams):
      raise errors.MediaError(
        f'it has {len(streams)} {kind} streams, so none is number {chosen} '
        '(they count from 0)'
      )
    return streams[chosen]
  default = av.stream.Disposition.default
  marked = [stream for stream in streams if stream.disposition & default]
  return (marked or list(streams) or [None])[0]


def _is_language(code: str | None, wanted: str) -> bool:
  """Returns whether a code such as `eng` is `en`, `eng` or `en-US`."""
  code, wanted = (code or '').lower(), wanted.lower().split('-')[0]
  codes = _LANGUAGE_CODES.get(wanted, ())
  return bool(code) and (code.startswith(wanted) or code in codes)
