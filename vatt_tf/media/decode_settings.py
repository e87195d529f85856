"""What is taken from media files, and in which form."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
  """Streams that are taken from a file, and the form of their content.

  Attributes:
    frame_rate: Frames per second.
    shorter_side: Pixels of the shorter side of a frame. Smaller videos keep
      their size unless `enlarge`.
    enlarge: Whether to scale smaller videos up.
    jpeg_quality: Quality from 1 to 100.
    audio_rate: Samples per second.
    use_video: Whether to read frames.
    use_audio: Whether to read sound.
    video_stream: Number of the video stream, from 0; None for the first that is
      marked as default, or else the first.
    audio_stream: Number of the audio stream, likewise.
    caption_stream: Number of the text caption stream, likewise.
    caption_language: Preferred language of a caption stream, such as `en`.
    num_threads: Threads of the video decoder; 0 leaves the number to FFmpeg.
  """

  frame_rate: float = 10.0
  shorter_side: int = 256
  enlarge: bool = False
  jpeg_quality: int = 90
  audio_rate: int = 48000
  use_video: bool = True
  use_audio: bool = True
  video_stream: int | None = None
  audio_stream: int | None = None
  caption_stream: int | None = None
  caption_language: str = ''
  num_threads: int = 1
