"""Finds the media files of a folder by the names in lists."""

from collections.abc import Sequence
import os

from vatt_tf.media import clock, errors, folders, manifest

_SOUND_EXTENSIONS = frozenset(
  '.aac .aif .aiff .flac .m4a .mp3 .oga .ogg .opus .wav .wma'.split()
)


class MediaFolder:
  """Finds the media files of a folder by name.

  Attributes:
    missing: Paths of the listed files that do not exist.
    is_cut: Whether a file that is named by the id of its video alone holds no
      more than the listed part.
    num_files: Number of media files in the folder.
    first: Path of the first of them, for messages; '' for none.

  Args:
    root: Path of the folder.
    extension: Extension that a missing file is given; one of pictures makes it
      a folder of pictures.
    is_cut: See the attribute.
  """

  def __init__(self, root: str, extension: str, is_cut: bool):
    self._extension = extension
    self._by_stem = {}
    self.missing = set()
    self.is_cut = is_cut
    self.num_files = 0
    self.first = ''
    kinds = manifest.MEDIA_EXTENSIONS
    if extension in manifest.PICTURE_EXTENSIONS:
      kinds = manifest.PICTURE_EXTENSIONS
    for folder, names in folders.walk(root):
      for name in names:
        stem, extension = os.path.splitext(name)
        if extension.lower() in kinds:
          path = os.path.relpath(os.path.join(folder, name), root)
          self._by_stem.setdefault(stem, []).append(path)
          self.num_files += 1
          self.first = self.first or path

  def _find(self, name: str) -> str:
    """Returns the path of a file; '' if it does not exist."""
    wanted = name.split('/')
    paths = [
      path
      for path in self._by_stem.get(wanted[-1], ())
      if os.path.splitext(path)[0].split(os.sep)[-len(wanted) :] == wanted
    ]
    if len(paths) > 1:
      raise errors.MediaError(
        f'The media folder has several files named {name}: {paths[0]} and '
        f'{paths[1]}. Keep one, or give the folder of one split as media_root.'
      )
    return paths[0] if paths else ''

  def segment(
    self,
    name: str,
    times: tuple[float, float] | None = None,
    cut_names: Sequence[str] = (),
    **parts: tuple[str, ...],
  ) -> manifest.Segment:
    """Returns the segment of a listed clip.

    Args:
      name: Name of its file, without extension: that of the whole video where
        `times` are given; with a folder where names alone are ambiguous.
      times: Start and end in seconds of the listed part; None for all of it.
      cut_names: Names of a file that holds this part alone.
      **parts: Labels, captions and splits of the segment.
    """
    path = ''
    for cut_name in cut_names:
      path = path or self._find(cut_name)
    start, end = 0, None
    if not path:
      path = self._find(name)
      if times and not (path and self.is_cut):
        start, end = (round(time * clock.SECOND) for time in times)
    if not path:
      path = name + self._extension
      self.missing.add(path)
    kind = 'video_path'
    if os.path.splitext(path)[1].lower() in _SOUND_EXTENSIONS:
      kind = 'audio_path'
    return manifest.Segment(**{kind: path}, start=start, end=end, **parts)


def clip_name(video: str, start: float, end: float) -> str:
  """Returns the name that downloaders of Kinetics give a clip.

  Args:
    video: Id of the video.
    start: Start of the clip in seconds.
    end: End of the clip in seconds.

  Returns:
    A name such as `id_000010_000020`.
  """
  return f'{video}_{int(start):06d}_{int(end):06d}'
