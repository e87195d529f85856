"""Types of public data sets and of the content of their lists."""

from collections.abc import Callable
import dataclasses

from vatt_tf.media import manifest
from vatt_tf.media.datasets import list_files, media_folder


@dataclasses.dataclass
class OfficialLists:
  """Content of the lists of a data set, and which of its files exist.

  Attributes:
    segments: All listed clips, in the order of the lists.
    label_names: Classes in the order of `labels.txt`; none without classes.
    missing: Paths of the segments whose files are not in the media folder.
    source: Path of the list that `segments` are from, for messages.
    captions: File or folder with the captions of all videos, or ''.
    clip_seconds: Length of the clips that long videos are cut into, or None.
  """

  segments: list[manifest.Segment]
  label_names: list[str]
  missing: set[str]
  source: str
  captions: str = ''
  clip_seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A data set whose lists can be read.

  Attributes:
    title: Its name for people.
    reader: Reads its lists: a function of the list files, the media folder and
      the split.
    splits: Splits that may have records of their own.
    num_classes: Classes of the largest edition; 0 without classes.
    has_lists: Whether, without a split, one set of records has lists of ids for
      all splits.
    extension: Extension of a media file that is missing.
    can_be_cut: Whether a file that is named by the id of a video alone may be
      the one part of it that is listed.
  """

  title: str
  reader: Callable[
    [list_files.ListFiles, media_folder.MediaFolder, str], OfficialLists
  ]
  splits: tuple[str, ...] = ()
  num_classes: int = 0
  has_lists: bool = False
  extension: str = '.mp4'
  can_be_cut: bool = False
