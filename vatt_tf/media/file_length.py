"""How long a media file is, where header and packets may disagree."""

import dataclasses

from vatt_tf.media import clock, errors, timeline

# A header may say that a file is this much longer than it is, µs and share.
_MAX_ROUNDING = clock.SECOND
_MAX_ROUNDING_SHARE = 0.05

# A file that lasts longer than the first has more bytes than the second.
_MAX_EMPTY_LENGTH = 600 * clock.SECOND
_MIN_BYTES_PER_SECOND = 8


@dataclasses.dataclass(frozen=True)
class Length:
  """Length of a file.

  Attributes:
    end: Time at which its last stream ends, in µs.
    kind: Kind of that stream: `video`, or `audio` where the sound continues
      after the picture, or is alone.
    claimed: Length that its header states, in µs, if that is wrong; else None.
    is_cut_off: Whether it ends earlier because a part of the file is missing or
      damaged.
    notes: Notes on what of the file is left out.
  """

  end: int
  kind: str
  claimed: int | None = None
  is_cut_off: bool = False
  notes: tuple[errors.Note, ...] = ()


def last_end(video: int | None, audio: int | None) -> tuple[int, str] | None:
  """Returns where a file ends, in µs, and the kind of stream that ends there.

  Sound decides only where it continues for longer than what encoders add to it.

  Args:
    video: Time at which the picture ends, in µs, or None.
    audio: Time at which the sound ends, in µs, or None.
  """
  if audio is not None and (
    video is None or audio > video + clock.END_TOLERANCE
  ):
    return audio, timeline.AUDIO
  return None if video is None else (video, timeline.VIDEO)


def choose_end(
  measured: int | None, stated: int | None, is_estimate: bool
) -> tuple[int | None, int | None]:
  """Returns the end of a stream, and what its header states if that is wrong.

  Args:
    measured: End of its packets in µs, or None.
    stated: End in µs that the container states, or None.
    is_estimate: Whether `stated` is FFmpeg's guess.
  """
  if measured is None or stated is None or stated <= 0:
    return measured, None
  excess = stated - measured
  if excess > max(_MAX_ROUNDING, _MAX_ROUNDING_SHARE * stated):
    return measured, None if is_estimate else stated
  if is_estimate or excess < -clock.END_TOLERANCE:
    return measured, None
  return stated, None


def check_plausible(end: int, size: int) -> None:
  """Raises `MediaError` for a length that the bytes of a file cannot hold.

  Time stamps may follow from fields of a header, such as the frame rate.

  Args:
    end: End of the file in µs.
    size: Bytes of the file.
  """
  if end > max(_MAX_EMPTY_LENGTH, size * clock.SECOND // _MIN_BYTES_PER_SECOND):
    raise errors.MediaError(
      f'it would last until {clock.format_seconds(end)} with its {size:,} '
      'bytes: its header or its time stamps are damaged'
    )
