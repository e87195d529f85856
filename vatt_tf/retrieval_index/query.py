"""Queries: words, a sound or a clip, and the vectors they are compared with.

A query is compared in one space, so that all results have comparable scores:

- Words are compared with pictures and sounds in the space of video and text,
  into which a sound is mapped from the space of video and sound.
- A sound, or a clip, is compared with sounds and pictures in the space of video
  and sound, which is finer and was trained on such pairs. If the model or the
  index lacks that space, the one of video and text is used.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import NamedTuple

import numpy as np

from vatt_tf.core import plain_text
from vatt_tf.embedding import model as model_lib
from vatt_tf.embedding import table
from vatt_tf.input_pipeline.records import schema
from vatt_tf.media import clock, decode_settings, decoded_clip, errors, worker
from vatt_tf.retrieval_index import index as index_lib
from vatt_tf.retrieval_index import index_files

TEXT = 'text'
VIDEO = index_files.VIDEO
AUDIO = index_files.AUDIO
KINDS = (TEXT, VIDEO, AUDIO)
ANY = 'any'
# Modalities that may be searched for.
TARGETS = (ANY, VIDEO, AUDIO)

MAX_COUNT = 1000

# The spaces that a kind of query may be compared in, the best first.
_SPACES = {
  TEXT: (index_files.VIDEO_TEXT,),
  VIDEO: (index_files.VIDEO_AUDIO, index_files.VIDEO_TEXT),
  AUDIO: (index_files.VIDEO_AUDIO, index_files.VIDEO_TEXT),
}
_SPACE_OF_OUTPUT = {
  table.VIDEO_AUDIO: index_files.VIDEO_AUDIO,
  table.VIDEO_TEXT: index_files.VIDEO_TEXT,
  table.AUDIO_TEXT: index_files.VIDEO_TEXT,
}


class QueryError(ValueError):
  """A query cannot be answered; the message gives the reason."""


class Answer(NamedTuple):
  """Results of a query.

  Attributes:
    query: Description of the query for people.
    kind: Kind of the query, one of `KINDS`.
    space: Space of the comparison, one of `index_files.SPACES`.
    vector: Vector (D,) of the query in this space.
    hits: Results by descending similarity.
  """

  query: str
  kind: str
  space: str
  vector: np.ndarray
  hits: list[index_lib.Hit]


def read_clip(
  path: str,
  kind: str | None,
  form: model_lib.Form,
  start: float | None = None,
  perform: Callable[[worker.Task], list] = worker.perform,
  decoding: Mapping[str, object] | None = None,
) -> schema.Clip:
  """Reads the part of a media file that is searched with.

  Args:
    path: Path of the file.
    kind: `video` for its frames, `audio` for its sound, None for any.
    form: Form of the model's inputs.
    start: Start in seconds; None for the middle of a file that is longer than
      what the model takes.
    perform: Does a task, as `worker.perform` does.
    decoding: Fields of `decode_settings.Settings`, or None.

  Returns:
    The clip with the frames, the sound or both.

  Raises:
    QueryError: The file cannot be read, or lacks the kind.
  """
  # Only the inputs of the model are decoded.
  use_video = kind != AUDIO and form.video is not None
  use_audio = kind != VIDEO and form.audio is not None
  settings = decode_settings.Settings(use_video=use_video, use_audio=use_audio)
  if use_video:
    settings = dataclasses.replace(settings, frame_rate=form.video.frame_rate)
  if use_audio:
    settings = dataclasses.replace(settings, audio_rate=form.audio.sample_rate)
  settings = dataclasses.replace(settings, **(decoding or {}))

  def ask(spans):
    task = worker.Task(path=path, audio_path='', spans=spans, settings=settings)
    (result,) = perform(task)
    if isinstance(result, errors.MediaError):
      raise QueryError(f'It cannot be searched with: {result}.')
    return result

  config = form.video if use_video else form.audio
  length = round(config.seconds * clock.SECOND)
  if start is None:
    first = max(0, (ask(None) - length) // 2)
  elif start >= 0:
    first = round(start * clock.SECOND)
  else:
    raise QueryError(f'`start` must be 0 or more. Received: start={start}')
  clip = ask((decoded_clip.Span(first, first + length, is_exact=False),))
  return schema.Clip(
    frames=clip.frames,
    timestamps=schema.frame_times(len(clip.frames), settings.frame_rate),
    frame_rate=settings.frame_rate if clip.frames else 0.0,
    height=clip.height,
    width=clip.width,
    waveform=clip.audio,
    sample_rate=0.0 if clip.audio is None else settings.audio_rate,
    start=clip.start,
    end=clip.end,
  )


class Searcher:
  """An index and the model of its vectors.

  Attributes:
    index: Open index.
    kinds: Kinds of query, of `KINDS`, that the model and the index allow.

  Args:
    index: Open index.
    embedder: Embedder of queries.

  Raises:
    ValueError: The vectors of the index belong to another model.
  """

  def __init__(self, index: index_lib.Index, embedder: model_lib.Embedder):
    if embedder.name != index.model_version:
      raise ValueError(
        '`saved_model` must be the model of the embeddings of the index: '
        'vectors of two models cannot be compared. Received: the model '
        f'{embedder.name}, and an index of {index.model_version}. Give that '
        'model, or embed and build again with this one.'
      )
    self.index = index
    self._embedder = embedder
    self.kinds = tuple(
      kind
      for kind in KINDS
      if kind in embedder.modalities
      and any(index.modalities(space) for space in _SPACES[kind])
    )

  def by_text(self, text: str, target: str = ANY, count: int = 10) -> Answer:
    """Searches with words.

    Args:
      text: Words to search with.
      target: One of `TARGETS`.
      count: Maximum number of results.

    Raises:
      QueryError: There are no words, the model knows none, or an argument is
        wrong.
    """
    self._check(target, count)
    words = plain_text.clean(text)
    if not words:
      raise QueryError(f'`text` must hold a word. Received: text={text!r}')
    clip = schema.Clip(captions=[schema.Caption(words, 0, 0)])
    return self._search(text, TEXT, self._embed(clip, TEXT), target, count)

  def by_file(
    self,
    path: str,
    kind: str | None,
    target: str = ANY,
    count: int = 10,
    start: float | None = None,
    perform: Callable[[worker.Task], list] = worker.perform,
    name: str = '',
  ) -> Answer:
    """Searches with the frames or the sound of a file.

    Args:
      path: Path of the file.
      kind: `video` or `audio`; None for the frames of a file that has some,
        else its sound.
      target: One of `TARGETS`.
      count: Maximum number of results.
      start: Start in the file in seconds; None for its middle.
      perform: See `read_clip`.
      name: Name of the file for people; '' for its path.

    Raises:
      QueryError: The file cannot be read, the model does not take it, or an
        argument is wrong.
    """
    self._check(target, count)
    kinds = [each for each in self.kinds if each != TEXT]
    if kind not in (None, *kinds):
      raise QueryError(
        'This model and index take queries by '
        f'{", ".join(self.kinds)} alone. Received: {kind}'
      )
    if kind is None and len(kinds) == 1:
      (kind,) = kinds
    # Decoded like the media of the index, so that a file matches itself.
    clip = read_clip(
      path, kind, self._embedder.form, start, perform, self.index.decoding
    )
    kind = kind or (VIDEO if clip.frames else AUDIO)
    query = _describe(
      name or path, clip.start / clock.SECOND, clip.end / clock.SECOND
    )
    return self._search(query, kind, self._embed(clip, kind), target, count)

  def like(
    self, row: int, kind: str, target: str = ANY, count: int = 10
  ) -> Answer:
    """Searches with the picture or the sound of a moment of the index.

    Args:
      row: Number of the moment, which is not among the results.
      kind: `video` or `audio`.
      target: One of `TARGETS`.
      count: Maximum number of results.

    Raises:
      QueryError: The moment has no such vector, or an argument is wrong.
    """
    self._check(target, count)
    vectors = {
      space: self.index.vector(row, space, kind) for space in index_files.SPACES
    }
    vectors = {key: each for key, each in vectors.items() if each is not None}
    moment = self.index.moment(row)
    query = _describe(moment.path, moment.start, moment.end)
    if not vectors:
      raise QueryError(f'There is no {kind} of this moment: {query}')
    return self._search(query, kind, vectors, target, count, row)

  @property
  def map_spaces(self) -> tuple[str, ...]:
    """Spaces in which `locate` says where in a picture something is."""
    return self._embedder.map_spaces

  def locate(
    self,
    row: int,
    vector: np.ndarray,
    space: str,
    path: str,
    perform: Callable[[worker.Task], list] = worker.perform,
  ) -> model_lib.Located:
    """Finds where in the picture of a moment a query is.

    Args:
      row: Number of the moment.
      vector: Vector of the query, as of `Answer`.
      space: Space of the vector.
      path: Path of the moment's file.
      perform: See `read_clip`.

    Raises:
      QueryError: The model does not say where something is, or the file has no
        frames there.
    """
    if space not in self.map_spaces:
      raise QueryError(
        f'The model does not say where something is, in the space {space}: '
        'train it with LOCAL_WEIGHT = 1.0 (docs/localization.md).'
      )
    moment = self.index.moment(row)
    clip = read_clip(
      path,
      VIDEO,
      self._embedder.form,
      moment.start,
      perform,
      self.index.decoding,
    )
    faults = model_lib.find_faults(clip)
    if not clip.frames or VIDEO in faults:
      reason = faults.get(VIDEO, 'it has no frames')
      raise QueryError(f'There is no picture of this moment: {reason}.')
    return self._embedder.locate(clip, vector, space)

  def kinds_of(self, row: int) -> tuple[str, ...]:
    """Returns the kinds that a moment can be searched with."""
    return tuple(
      kind
      for kind in index_files.MODALITIES
      if any(
        self.index.vector(row, space, kind) is not None
        for space in index_files.SPACES
      )
    )

  def _check(self, target, count):
    if target not in TARGETS:
      raise QueryError(
        f'`modality` must be one of {", ".join(TARGETS)}. '
        f'Received: modality={target[:80]!r}'
      )
    if not 1 <= count <= MAX_COUNT:
      raise QueryError(
        f'`top` must be in [1, {MAX_COUNT}]. Received: top={count}'
      )
    valid = self.index.modalities()
    if target != ANY and target not in valid:
      raise QueryError(
        f'`modality` must be one that the index holds: {", ".join(valid)}. '
        f'Received: modality={target[:80]!r}'
      )

  def _embed(self, clip, kind):
    """Returns the vectors of a query by space."""
    if kind not in self._embedder.modalities:
      raise QueryError(
        f'The model cannot search with {kind}: it embeds '
        f'{", ".join(self._embedder.modalities)}.'
      )
    (embedded,) = self._embedder.embed([clip])
    vectors = {
      _SPACE_OF_OUTPUT[row[table.SPACE]]: row[table.EMBEDDING]
      for row in embedded.rows
      if row[table.MODALITY] == kind
    }
    if not vectors:
      reasons = [*embedded.faults, *embedded.notes] or [f'it has no {kind}']
      raise QueryError(f'It cannot be searched with: {"; ".join(reasons)}.')
    return vectors

  def _search(self, query, kind, vectors, target, count, without=None):
    for space in _SPACES[kind]:
      valid = self.index.modalities(space)
      wanted = valid if target == ANY else tuple({target} & set(valid))
      if space in vectors and wanted:
        vector = np.asarray(vectors[space])
        hits = self.index.search(vector, space, wanted, count, without)
        return Answer(query, kind, space, vector, hits)
    raise QueryError(
      f'A query by {kind} cannot be compared with {target} in this index: it '
      f'needs the space {" or ".join(_SPACES[kind])}, and the index has '
      + ', '.join(
        f'{each["modality"]} in {each["space"]}' for each in self.index.shelves
      )
    )


def _describe(path, start, end):
  return f'{path}, {start:.1f}-{end:.1f} s'


def as_dict(answer: Answer) -> dict:
  """Returns an answer as JSON values."""
  return {
    'query': answer.query,
    'kind': answer.kind,
    'space': answer.space,
    'results': [
      {
        'rank': rank,
        'score': hit.score,
        'modality': hit.modality,
        'id': format_id(hit.moment.id),
        'path': hit.moment.path,
        'start': hit.moment.start,
        'end': hit.moment.end,
        'caption': hit.moment.caption,
      }
      for rank, hit in enumerate(answer.hits, 1)
    ],
  }


def format_id(moment_id: int) -> str:
  """Returns the id of a moment as 16 hexadecimal digits."""
  return f'{moment_id:016x}'


def format_table(answer: Answer) -> str:
  """Returns an answer as a table for a terminal."""
  header = ('', 'score', 'path', 'seconds', 'by', 'caption')
  rows = [
    (
      str(rank),
      f'{hit.score:.3f}',
      hit.moment.path,
      f'{hit.moment.start:.1f}-{hit.moment.end:.1f}',
      hit.modality,
      ' '.join(hit.moment.caption.split()),
    )
    for rank, hit in enumerate(answer.hits, 1)
  ]
  widths = [max(map(len, column)) for column in zip(header, *rows)]
  lines = [f'Nearest to {answer.query!r} in the {answer.space} space:']
  for row in (header, *rows):
    cells = [
      cell.rjust(width) if i < 2 else cell.ljust(width)
      for i, (cell, width) in enumerate(zip(row, widths))
    ]
    lines.append('  '.join(cells).rstrip())
  return '\n'.join(lines)
