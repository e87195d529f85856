"""Captions of the text stream of a media file."""

from vatt_tf.media import caption_cues, clock, media_file, packet_reader

# A caption that is shown when a span starts may have come up this much earlier.
_CAPTION_PREROLL = 60 * clock.SECOND


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
