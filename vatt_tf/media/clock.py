"""Times in µs on the clock of a media file."""

SECOND = 1_000_000

# How much earlier than stated a file may end: times are rounded.
END_TOLERANCE = SECOND // 4


def format_seconds(time: int) -> str:
  """Returns µs as text for people, such as `3.5 s`."""
  return f'{time / SECOND:.3f}'.rstrip('0').rstrip('.') + ' s'
