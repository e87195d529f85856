"""Decoding of media files with PyAV: frames, sound and captions of time spans.

This module and those that it imports do without TensorFlow, so that a process
which only decodes starts in a fraction of a second.

All times are µs on the clock of the file, which is what a player shows: the
time stamps of its container, less the first of them where the container starts
more than half a second from zero (transport streams, cut recordings).
"""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np

from vatt_tf.media import (
  caption_cues,
  clock,
  decode_settings,
  errors,
  file_length,
  media_file,
  packet_reader,
  video_frames,
)
from vatt_tf.media import sound as sound_lib

# µs before a span from where reading is tried.
_PREROLLS = (sound_lib.PREROLL, 10 * clock.SECOND)
# A caption that is shown when a span starts may have come up this much earlier.
_CAPTION_PREROLL = 60 * clock.SECOND

# Of the time of a span.
_MIN_COVERED_SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class Span:
  """A part of a file.

  Attributes:
    start: Start in µs.
    end: End in µs, or None for the end of the file.
    is_exact: Whether a file that ends before `end` is an error; otherwise the
      span ends with the file.
  """

  start: int = 0
  end: int | None = None
  is_exact: bool = True


@dataclasses.dataclass
class DecodedClip:
  """Decoded content of a span of a file.

  Attributes:
    start: Start in the file, in µs.
    end: End in the file, in µs.
    frames: JPEG images; none if there is no video.
    height: Height of the frames in pixels.
    width: Width of the frames in pixels.
    audio: (S,) float32 in [-1, 1], the first sample at `start`, or None.
    cues: Captions in order of time, in µs on the clock of the file.
    notes: Notes on what was left out or changed.
    is_last: Whether it is known to end with the file.
  """

  start: int
  end: int
  frames: list[bytes] = dataclasses.field(default_factory=list)
  height: int = 0
  width: int = 0
  audio: np.ndarray | None = None
  cues: list[caption_cues.Cue] = dataclasses.field(default_factory=list)
  notes: list[errors.Note] = dataclasses.field(default_factory=list)
  is_last: bool = False


def read_captions(
  media: media_file.MediaFile, start: int, end: int
) -> list[caption_cues.Cue]:
  """Returns the captions of the text stream of a file that a span shows.

  Args:
    media: Open file.
    start: Start of the span in µs.
    end: End of the span in µs.

  Returns:
    Cues in order of time; none if the file has no text stream.
  """
  if media.text is None:
    return []
  first = max(0, start - _CAPTION_PREROLL)
  cues = []
  # The main stream is read too, since captions are too sparse to show that the
  # end of the span has passed.
  for packet in media.packets(first, media.main_kind, 'text'):
    stream = packet.stream
    stamp = packet.pts if packet.pts is not None else packet.dts
    if stamp is None:
      continue
    time = media.time(stamp, stream)
    if stream.type != 'subtitle':
      if packet.dts is not None and media.time(packet.dts, stream) > end:
        break
      continue
    last = caption_cues.OPEN_END
    if packet.duration:
      last = time + round(packet.duration * stream.time_base * clock.SECOND)
    for subtitle in packet_reader.decode_packet(packet) or []:
      cues.append((time, last, _subtitle_lines(subtitle)))
  cues = caption_cues.unroll(caption_cues.close_ends(cues))
  return caption_cues.in_span(cues, start, end)


def _subtitle_lines(subtitle) -> list[str]:
  """Returns the lines of a decoded caption, a set of rectangles or one."""
  parts = subtitle if hasattr(subtitle, 'rects') else [subtitle]
  lines = []
  for part in parts:
    raw = getattr(part, 'dialogue', b'') or getattr(part, 'text', b'')
    text = raw.decode('utf-8', errors='replace')
    lines += text.replace('\\N', '\n').split('\n')
  return lines


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


def _known_spans(
  media: media_file.MediaFile, spans: Sequence[Span]
) -> list[tuple[int, int] | errors.MediaError]:
  """Returns start and end of each span, or the error if it is unreadable."""
  length = None
  if any(not span.is_exact or span.end is None for span in spans):
    length = media.length()
  known = []
  for span in spans:
    if length is None:
      stated = media.stated_end()
      # The container may be wrong: its claim alone is no reason to refuse.
      if stated is not None and span.start >= stated + clock.SECOND:
        length = media.length()
    end = length.end if span.end is None else span.end
    if length is not None and span.start >= length.end + clock.SECOND:
      known.append(_beyond(span.start, length.end, length.kind))
    elif end <= span.start:
      known.append(_beyond(span.start, end, length.kind if length else 'file'))
    else:
      known.append((span.start, end))
  return known


def _beyond(start: int, end: int, kind: str) -> errors.MediaError:
  return errors.MediaError(
    f'the clip starts at {clock.format_seconds(start)}, but its {kind} ends at '
    f'{clock.format_seconds(end)}'
  )


def decode_spans(
  path: str,
  audio_path: str,
  spans: Sequence[Span],
  settings: decode_settings.Settings,
  use_caption_stream: bool = False,
  caption_margin: int = 0,
) -> list[DecodedClip | errors.MediaError]:
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
  spans: Sequence[Span],
  settings: decode_settings.Settings,
  cue_margin: int | None,
) -> list[DecodedClip | errors.MediaError]:
  """Does `decode_spans` for open files."""
  results = _known_spans(media, spans)
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
  end_of_file = _read_end(video, audio if sound is media else none)
  cues = []
  if cue_margin is not None:
    cues = read_captions(media, first - cue_margin, last + cue_margin)
  for number, i in enumerate(wanted):
    start, end = known[number]
    try:
      _check_whole(media, spans[i], start, end, [video, audio])
      end = _check_end(spans[i], start, end, end_of_file)
      own = caption_cues.in_span(cues, start, end, cue_margin or 0)
      clip = DecodedClip(start, end, cues=own)
      if not _is_exact(spans[i]):
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
  clip: DecodedClip,
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
  return covered


def _add_sound(
  clip: DecodedClip, track: sound_lib.SoundTrack, least: float
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
  media: media_file.MediaFile, clip: DecodedClip, span: Span
) -> list[errors.Note]:
  """Returns the notes on a file that belong to a clip."""
  notes = ()
  if not _is_exact(span):
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


def _is_exact(span: Span) -> bool:
  """Returns whether the end of a span was given, not that of the file."""
  return span.is_exact and span.end is not None


def _read_end(
  video: packet_reader.Reading, audio: packet_reader.Reading
) -> tuple[int, str] | None:
  """Returns the end of a file and its stream; None if it was not reached."""
  readings = [
    reading for reading in (video, audio) if reading.first is not None
  ]
  if not readings or any(reading.end is None for reading in readings):
    return None
  return file_length.last_end(
    *(
      None if reading.first is None else reading.end
      for reading in (video, audio)
    )
  )


def _check_whole(
  media: media_file.MediaFile,
  span: Span,
  start: int,
  end: int,
  readings: Sequence[packet_reader.Reading],
) -> None:
  """Raises `MediaError` if a file breaks off before its stated end."""
  if _is_exact(span):
    return
  length = media.length()
  if length.is_cut_off and end >= length.end - clock.END_TOLERANCE:
    raise _cut_off(length.claimed, length.end)
  ends = [reading.end for reading in readings if reading.first is not None]
  # The end of a file may be that of its captions.
  if media.has_captions:
    return
  if not ends or any(time is None for time in ends) or start >= max(ends):
    return
  if max(ends) < end - max(clock.SECOND, end // 20):
    raise _cut_off(end, max(ends))


def _cut_off(stated: int, end: int) -> errors.MediaError:
  return errors.MediaError(
    f'it should last until {clock.format_seconds(stated)} or longer, but can '
    f'only be read until {clock.format_seconds(end)}: it is cut off or damaged'
  )


def _check_end(
  span: Span, start: int, end: int, end_of_file: tuple[int, str] | None
) -> int:
  """Returns where a span ends, now that the file was read.

  Raises:
    errors.MediaError: The file ends before the span.
  """
  if end_of_file is None:
    return end
  last, kind = end_of_file
  if start >= last:
    raise _beyond(start, last, kind)
  if _is_exact(span):
    if last < end - clock.END_TOLERANCE:
      raise errors.MediaError(
        f'the clip ({clock.format_seconds(start)} to '
        f'{clock.format_seconds(end)}) is longer than its {kind}, which ends '
        f'at {clock.format_seconds(last)}'
      )
    return end
  return min(end, last)
