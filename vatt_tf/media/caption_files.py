"""Captions with times, from .srt, .vtt and .json files.

Every reader returns cues in the order of their start. Times are µs on the clock
of the media file. Text is cleaned for a model: mark-up (`<i>`, `<v Anna>`,
`{\\an8}`), HTML entities and line breaks are resolved, and it has the form of
`plain_text.clean`; cues that hold nothing else are dropped. Rolling captions,
in which a cue repeats lines of the one before, are recognised so that each line
comes once.

An unusable cue or entry costs itself alone: it is left out, with a note. So is
text that belongs to no cue.
"""

from collections.abc import Iterable
import os
import re

from vatt_tf.core import plain_text
from vatt_tf.media import (
  caption_cues,
  caption_entries,
  errors,
  text_files,
  timed_text,
)

EXTENSIONS = ('.srt', '.vtt', '.json')

ENCODING_OPTION = '--caption_encoding'
_LANGUAGE = re.compile(r'[a-zA-Z]{2,3}(?:[-_][a-zA-Z0-9]+)*')


def read_captions(
  path: str, encoding: str = '', notes: caption_cues.Notes | None = None
) -> list[caption_cues.Cue]:
  """Reads the captions of one media file.

  Args:
    path: Path of a .srt, a .vtt, or a .json file: `{"start": [...], "end":
      [...], "text": [...]}` in seconds, a list of such objects with single
      values, or `{"segments": [...]}` and the like as speech recognisers write
      it.
    encoding: Encoding of the text; '' for UTF-8. A byte order mark takes
      precedence.
    notes: Takes a note for each cue that is left out; None keeps none.

  Returns:
    Cues in order of time; none if the file is empty, as recognisers write it
    where nobody speaks.

  Raises:
    errors.MediaError: The file cannot be read, or has another encoding or form.
      The message names the file and the place.
  """
  name = os.path.basename(path)
  notes = caption_cues.Notes(name) if notes is None else notes
  text = text_files.read_text(path, encoding, ENCODING_OPTION)
  if not plain_text.clean(text):
    return []
  extension = os.path.splitext(path)[1].lower()
  if extension == '.json':
    return caption_entries.read_json(
      caption_entries.parse_json(text, name), name, '', notes
    )
  beginning = plain_text.clean(text[:99])
  is_vtt = extension == '.vtt' or beginning.startswith('WEBVTT')
  return caption_cues.unroll(timed_text.read_cues(text, is_vtt, name, notes))


def read_for_clips(
  path: str, encoding: str = ''
) -> tuple[list[caption_cues.Cue] | None, list[errors.Note]]:
  """Reads the captions of a media file that does not depend on them.

  Args:
    path: See `read_captions`.
    encoding: Encoding of the text; '' for UTF-8.

  Returns:
    The cues, and notes on what was left out. An unusable file gives None and a
    note.
  """
  notes = caption_cues.Notes(os.path.basename(path))
  try:
    cues = read_captions(path, encoding, notes)
  except errors.MediaError as e:
    cues, notes = None, caption_cues.Notes(os.path.basename(path))
    notes.add(f'no captions are taken from it: {e}')
  return cues, notes.as_list()


def find_beside(
  names: Iterable[str], media_name: str, language: str = ''
) -> str:
  """Picks the caption file that belongs to a media file of the same folder.

  `clip.mp4` takes `clip.srt`, `clip.vtt` or `clip.json`, or one with a language
  such as `clip.en.vtt`. The one in `language` takes precedence, then the one
  without a language, then the first by name.

  Args:
    names: Names of the files of the folder.
    media_name: Name of the media file.
    language: Preferred language, such as `en` (which takes `en-US` too), or ''.

  Returns:
    Name of the caption file, or ''.
  """
  stem = os.path.splitext(media_name)[0]
  candidates = []
  for name in names:
    base, extension = os.path.splitext(name)
    if extension.lower() not in EXTENSIONS or not base.startswith(stem):
      continue
    tag = base[len(stem) :]
    if tag and not (tag[0] == '.' and _LANGUAGE.fullmatch(tag[1:])):
      continue
    tag = tag[1:].lower().replace('_', '-')
    is_wanted = bool(language) and tag.split('-')[0] == language.lower()
    is_wanted = is_wanted or (bool(language) and tag == language.lower())
    rank = 0 if is_wanted else 1 if not tag else 2
    candidates.append(
      (rank, EXTENSIONS.index(extension.lower()), name.lower(), name)
    )
  # `info.json` and the like match the form of a language: never a json of rank
  # 2 unless it is asked for.
  candidates = [
    (rank, kind, *rest)
    for rank, kind, *rest in candidates
    if rank < 2 or kind < 2
  ]
  return min(candidates)[-1] if candidates else ''
