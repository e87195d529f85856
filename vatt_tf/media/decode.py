"""Decoding of media files with PyAV: frames, sound and captions of time spans.

This module and those that it imports do without TensorFlow, so that a process
which only decodes starts in a fraction of a second.

All times are µs on the clock of the file, which is what a player shows: the
time stamps of its container, less the first of them where the container starts
more than half a second from zero (transport streams, cut recordings).
"""

from collections.abc import Callable, Sequence
import dataclasses

from vatt_tf.media import (
  caption_cues,
  caption_track,
  clock,
  decode_settings,
  decoded_clip,
  errors,
  media_file,
  packet_reader,
  span_ends,
  video_frames,
)
from vatt_tf.media import sound as sound_lib

# Times before a span, in µs, from which reading is tried.
_PREROLLS = (sound_lib.PREROLL, 10 * clock.SECOND)

# Minimum share of a span that must have a picture, and sound likewise.
_MIN_COVERED_SHARE = 0.5


def find_end(
  path: str, audio_path: str, settings: decode_settings.Settings
) -> int:
  """Returns the time in µs at which a file ends.

  Args:
    path: Path of the file with the video, or ''.
    audio_path: Path of the file with the sound, if that is another one; or ''.
    settings: Settings that choose the streams.

  Raises:
    errors.MediaError: The file cannot be read.
  """
  settings = _media_settings(path, audio_path, settings)
  with media_file.MediaFile(path or audio_path, settings) as media:
    return media.length().end


def _media_settings(
  path: str, audio_path: str, settings: decode_settings.Settings
) -> decode_settings.Settings:
  """Returns the settings of the main file, without what another file has."""
  if not path:
    return dataclasses.replace(settings, use_video=False)
  if audio_path and settings.use_video:
    return dataclasses.replace(settings, use_audio=False)
  return settings


def decode_spans(
  path: str,
  audio_path: str,
  spans: Sequence[decoded_clip.Span],
  settings: decode_settings.Settings,
  use_caption_stream: bool = False,
  caption_margin: int = 0,
) -> list[decoded_clip.DecodedClip | errors.MediaError]:
  """Decodes several spans of a file, in one pass over each stream.

  Memory grows with the length from the first start to the last end.

  Args:
    path: Path of the file with the video, or with video and sound; '' for sound
      alone.
    audio_path: Path of the file with the sound if that is another one, so that
      the sound of `path` is not used; or ''.
    spans: Parts of the file.
    settings: Streams that are taken, and the form of their content.
    use_caption_stream: Whether to read captions from the file.
    caption_margin: Time around a span, in µs, whose captions count as its own.

  Returns:
    The clip of each span, or its error. A clip has frames if half of it or more
    has video, and sound likewise; silence fills gaps, and after the video its
    last frame is held.
  """
  cue_margin = caption_margin if use_caption_stream else None
  try:
    has_sound_file = bool(path and audio_path and settings.use_audio)
    media_settings = _media_settings(path, audio_path, settings)
    with media_file.MediaFile(path or audio_path, media_settings) as media:
      if not has_sound_file:
        return _decode(media, media, spans, settings, cue_margin)
      try:
        sound_settings = dataclasses.replace(settings, use_video=False)
        sound = media_file.MediaFile(audio_path, sound_settings)
      except errors.MediaError as e:
        raise errors.MediaError(f'audio file {audio_path}: {e}') from e
      with sound:
        return _decode(media, sound, spans, settings, cue_margin)
  except errors.MediaError as e:
    return [e] * len(spans)


def _decode(
  media: media_file.MediaFile,
  sound: media_file.MediaFile,
  spans: Sequence[decoded_clip.Span],
  settings: decode_settings.Settings,
  cue_margin: int | None,
) -> list[decoded_clip.DecodedClip | errors.MediaError]:
  """Does `decode_spans` for open files."""
  results = span_ends.resolve_spans(media, spans)
  wanted = [
    i for i, span in enumerate(results) if not isinstance(span, Exception)
  ]
  if not wanted:
    return results
  known = [results[i] for i in wanted]
  first = min(start for start, _ in known)
  last = max(end for _, end in known)
  frame_reader, sound_reader = _read(media, sound, known, settings)
  none = packet_reader.Reading()
  video = none if frame_reader is None else frame_reader.reading
  audio = none if sound_reader is None else sound_reader.reading
  track = None if sound_reader is None else sound_reader.track
  # Sound of another file does not tell how long this one is.
  end_of_file = span_ends.find_read_end(
    video, audio if sound is media else none
  )
  cues = []
  if cue_margin is not None:
    cues = caption_track.read_captions(
      media, first - cue_margin, last + cue_margin
    )
  for number, i in enumerate(wanted):
    start, end = known[number]
    try:
      span_ends.check_whole(media, spans[i], start, end, [video, audio])
      end = span_ends.check_end(spans[i], start, end, end_of_file)
      own = caption_cues.in_span(cues, start, end, cue_margin or 0)
      clip = decoded_clip.DecodedClip(start, end, cues=own)
      if not span_ends.is_exact(spans[i]):
        clip.is_last = end >= media.length().end - clock.END_TOLERANCE
      clip.notes += _notes_of(media, clip, spans[i])
      covered = 0
      if frame_reader is not None:
        covered = _add_frames(clip, media, frame_reader, number, settings)
      if track is not None:
        audio.check_damage(start, end, 'audio')
        # Sound after a picture: neither covers half of it, but both do.
        least = _MIN_COVERED_SHARE * (end - start)
        least -= 0 if clip.frames else covered
        _add_sound(clip, track, least)
      if not clip.frames and clip.audio is None:
        raise errors.MediaError(
          'it has no video and no audio between '
          f'{clock.format_seconds(start)} and {clock.format_seconds(end)}'
        )
      results[i] = clip
    except errors.MediaError as e:
      results[i] = e
  return results


def _add_frames(
  clip: decoded_clip.DecodedClip,
  media: media_file.MediaFile,
  reader: video_frames.FrameReader,
  number: int,
  settings: decode_settings.Settings,
) -> int:
  """Gives a clip the frames of span `number`, or a note why it has none.

  Returns:
    The time of the clip that has a picture, in µs.
  """
  start, end = clip.start, clip.end
  covered = _covered(reader.reading, start, end)
  if covered and covered < _MIN_COVERED_SHARE * (end - start):
    clip.notes.append(_left_out('picture', covered, start, end))
  elif covered and _is_unseen(media, start, end):
    clip.notes.append(
      errors.Note(
        'its picture is left out: a part of the clip is of another recording, '
        'which has none',
        start=start,
        end=end,
      )
    )
  elif covered:
    reader.reading.check_damage(start, end, 'video')
    count = video_frames.num_frames(start, end, settings.frame_rate)
    clip.frames = reader.frames[number][:count]
    if clip.frames:
      clip.width, clip.height = reader.sizes[number]
      clip.shown = reader.shown[number][:count]
      clip.source_interval = reader.interval
      clip.source_size = reader.source_sizes[number]
  return covered


def _add_sound(
  clip: decoded_clip.DecodedClip, track: sound_lib.SoundTrack, least: float
) -> None:
  """Gives a clip its sound if at least `least` µs have some, or a note."""
  clip.audio = track.cut(clip.start, clip.end, least)
  covered = track.covered(clip.start, clip.end)
  if clip.audio is None and covered:
    clip.notes.append(_left_out('sound', covered, clip.start, clip.end))


def _read(
  media: media_file.MediaFile,
  sound: media_file.MediaFile,
  spans: Sequence[tuple[int, int]],
  settings: decode_settings.Settings,
) -> tuple[video_frames.FrameReader | None, sound_lib.SoundReader | None]:
  """Reads the frames and the sound of spans (start and end in µs)."""
  start = min(first for first, _ in spans)
  end = max(last for _, last in spans)
  if (end - start) * settings.audio_rate * 4 > (
    sound_lib.MAX_CLIP_BYTES * clock.SECOND
  ):
    raise errors.MediaError(
      f'{clock.format_seconds(end - start)} of sound are more than '
      f'{sound_lib.MAX_CLIP_BYTES >> 20} MB, too much for one record: cut it '
      'with --clip_seconds'
    )

  def read_frames(first):
    return video_frames.FrameReader(media, spans, first, settings)

  def read_sound(first):
    return sound_lib.SoundReader(sound, start, end, first, settings)

  of_media, of_sound = {}, {}
  if media.has('video'):
    of_media['video'] = read_frames
  if sound.has('audio'):
    (of_media if media is sound else of_sound)['audio'] = read_sound
  readers = _pass_over(media, start, of_media)
  readers |= _pass_over(sound, start, of_sound)
  return readers.get('video'), readers.get('audio')


def _pass_over(
  media: media_file.MediaFile,
  start: int,
  make_readers: dict[str, Callable[[int], packet_reader.Reader]],
) -> dict[str, packet_reader.Reader]:
  """Reads a file from before `start`, µs, until every reader has its part.

  Indices of files may be wrong, and then a seek lands too late: it is tried
  from an earlier place, at last from the beginning.
  """
  if not make_readers:
    return {}
  places = [start - preroll for preroll in _PREROLLS if start > preroll] + [0]
  for first in places:
    readers = {kind: make(first) for kind, make in make_readers.items()}
    active = list(readers.values())
    packets = media.packets(first, *readers)
    for packet in packets:
      reader = readers[media.kind_of(packet)]
      if not reader.is_done:
        reader.feed(packet)
      if reader.is_late or all(other.is_done for other in active):
        packets.close()
        break
    for reader in active:
      if not reader.is_done and not any(other.is_late for other in active):
        reader.finish()
    if not any(reader.is_late for reader in active):
      break
  return readers


def _covered(video: packet_reader.Reading, start: int, end: int) -> int:
  """Returns the time of a span that has a picture, in µs."""
  if video.first is None:
    return 0
  last = end if video.end is None else min(end, video.end)
  return max(0, last - max(start, video.first))


def _left_out(what: str, covered: int, start: int, end: int) -> errors.Note:
  return errors.Note(
    f'its {what} is left out: it covers {clock.format_seconds(covered)} of the '
    'clip, less than half',
    start=start,
    end=end,
  )


def _notes_of(
  media: media_file.MediaFile,
  clip: decoded_clip.DecodedClip,
  span: decoded_clip.Span,
) -> list[errors.Note]:
  """Returns the notes on a file that belong to a clip."""
  notes = ()
  if not span_ends.is_exact(span):
    notes = media.length().notes
  elif media.may_restart:
    notes = media.read_timeline().notes
  return [
    note
    for note in notes
    if clip.is_last
    and (note.start is None or note.start >= clip.end)
    or note.start is not None
    and clip.start <= note.start < clip.end
  ]


def _is_unseen(media: media_file.MediaFile, start: int, end: int) -> bool:
  """Returns whether a clip reaches into a recording without a picture."""
  unseen = media.read_timeline().unseen if media.may_restart else ()
  return any(
    min(end, last) - max(start, first) > clock.END_TOLERANCE
    for first, last in unseen
  )
