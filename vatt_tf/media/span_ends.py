"""Resolves the ends of spans, and checks that a file reaches them."""

from collections.abc import Sequence

from vatt_tf.media import (
  clock,
  decoded_clip,
  errors,
  file_length,
  media_file,
  packet_reader,
)


def resolve_spans(
  media: media_file.MediaFile, spans: Sequence[decoded_clip.Span]
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


def is_exact(span: decoded_clip.Span) -> bool:
  """Returns whether the end of a span was given, not that of the file."""
  return span.is_exact and span.end is not None


def find_read_end(
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


def check_whole(
  media: media_file.MediaFile,
  span: decoded_clip.Span,
  start: int,
  end: int,
  readings: Sequence[packet_reader.Reading],
) -> None:
  """Raises `MediaError` if a file breaks off before its stated end.

  Args:
    media: Open file.
    span: Span as requested.
    start: Start of the span in µs.
    end: End of the span in µs.
    readings: Readings of the picture and the sound.
  """
  if is_exact(span):
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


def check_end(
  span: decoded_clip.Span,
  start: int,
  end: int,
  end_of_file: tuple[int, str] | None,
) -> int:
  """Returns where a span ends, now that the file was read.

  Args:
    span: Span as requested.
    start: Start of the span in µs.
    end: End of the span in µs.
    end_of_file: End of the file and the kind of stream that ends there, or None
      if it was not reached.

  Raises:
    errors.MediaError: The file ends before the span.
  """
  if end_of_file is None:
    return end
  last, kind = end_of_file
  if start >= last:
    raise _beyond(start, last, kind)
  if is_exact(span):
    if last < end - clock.END_TOLERANCE:
      raise errors.MediaError(
        f'the clip ({clock.format_seconds(start)} to '
        f'{clock.format_seconds(end)}) is longer than its {kind}, which ends '
        f'at {clock.format_seconds(last)}'
      )
    return end
  return min(end, last)
