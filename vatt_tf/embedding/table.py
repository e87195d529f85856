"""Tables of embeddings: the columns, how they are written and read.

A table is a folder with a folder for each space, which holds Parquet files:

    <output>/video_audio_embedding/part-00000.parquet
    <output>/video_text_embedding/part-00000.parquet
    <output>/audio_text_embedding/part-00000.parquet

A row is one embedding: of the frames, of the sound or of one caption of a clip.
It is a unit vector, so that an inner product is a cosine. A space has the name
of the output of the model's signature that computes it; `COMPARABLE` lists
which embeddings may be compared. All rows of a file have one space, and so one
dimension.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import os

import numpy as np
import pyarrow as pa
from pyarrow import compute, parquet

# Columns.
PATH = 'path'
CLIP_START = 'clip_start'
CLIP_END = 'clip_end'
MODALITY = 'modality'
EMBEDDING = 'embedding'
SPACE = 'space'
MODEL_VERSION = 'model_version'
TEXT = 'text'

COLUMNS = (
  PATH,
  CLIP_START,
  CLIP_END,
  MODALITY,
  EMBEDDING,
  SPACE,
  MODEL_VERSION,
  TEXT,
)

# Modalities.
VIDEO = 'video'
AUDIO = 'audio'
CAPTION = 'text'

MODALITIES = (VIDEO, AUDIO, CAPTION)

# Spaces.
VIDEO_AUDIO = 'video_audio_embedding'
VIDEO_TEXT = 'video_text_embedding'
AUDIO_TEXT = 'audio_text_embedding'

SPACES = (VIDEO_AUDIO, VIDEO_TEXT, AUDIO_TEXT)

# Which spaces hold what an embedding may be compared with. Those of sound in
# AUDIO_TEXT were carried over to the space of video and text.
COMPARABLE = {
  VIDEO_AUDIO: (VIDEO_AUDIO,),
  VIDEO_TEXT: (VIDEO_TEXT, AUDIO_TEXT),
  AUDIO_TEXT: (VIDEO_TEXT, AUDIO_TEXT),
}

# Keys of the metadata of a schema that are always there.
DIMENSION = 'dimension'
COMPARABLE_WITH = 'comparable_with'

_SUFFIX = '.parquet'


@dataclasses.dataclass
class Embeddings:
  """Rows of a table, as arrays.

  Attributes:
    path: (N,) strings: path of the media file, relative to `media_root` of the
      metadata where that is given.
    clip_start: (N,) float64: start in that file, in seconds.
    clip_end: (N,) float64: end in that file, in seconds.
    modality: (N,) strings: modality, of `MODALITIES`.
    embedding: (N, D) float32: unit vectors.
    space: (N,) strings: space, of `SPACES`.
    model_version: (N,) strings: model, the same in all rows.
    text: (N,) strings or None: the caption, or for video and sound the captions
      of the clip, one per line.
    metadata: Metadata of the files by name.
  """

  path: np.ndarray
  clip_start: np.ndarray
  clip_end: np.ndarray
  modality: np.ndarray
  embedding: np.ndarray
  space: np.ndarray
  model_version: np.ndarray
  text: np.ndarray
  metadata: dict[str, str] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return len(self.path)


def make_schema(
  space: str, dimension: int, metadata: Mapping[str, object] | None = None
) -> pa.Schema:
  """Returns the schema of the files of a space.

  Args:
    space: Space, one of `SPACES`.
    dimension: Dimension of the embeddings.
    metadata: Further metadata of the table; its values become strings.

  Raises:
    ValueError: There is no such space.
  """
  if space not in SPACES:
    raise ValueError(
      f'`space` must be one of {", ".join(SPACES)}. Received: space={space!r}'
    )
  values = {
    SPACE: space,
    DIMENSION: dimension,
    COMPARABLE_WITH: ','.join(COMPARABLE[space]),
    **(metadata or {}),
  }
  return pa.schema(
    [
      pa.field(PATH, pa.string(), nullable=False),
      pa.field(CLIP_START, pa.float64(), nullable=False),
      pa.field(CLIP_END, pa.float64(), nullable=False),
      pa.field(MODALITY, pa.string(), nullable=False),
      pa.field(EMBEDDING, pa.list_(pa.float32(), dimension), nullable=False),
      pa.field(SPACE, pa.string(), nullable=False),
      pa.field(MODEL_VERSION, pa.string(), nullable=False),
      pa.field(TEXT, pa.string()),
    ],
    metadata={key: str(value) for key, value in values.items()},
  )


def write_file(path: str, rows: Iterable[Mapping], schema: pa.Schema) -> None:
  """Writes a Parquet file; it appears whole or not at all.

  Args:
    path: Path of the file; missing folders are created.
    rows: Dictionaries with `COLUMNS`; an embedding is (D,) float32.
    schema: Schema that `make_schema` returns.
  """
  rows = list(rows)
  columns = []
  for field in schema:
    values = [row[field.name] for row in rows]
    if field.name == EMBEDDING:
      shape = [len(rows), field.type.list_size]
      flat = np.asarray(values, np.float32).reshape(shape).ravel()
      columns.append(
        pa.FixedSizeListArray.from_arrays(pa.array(flat), type=field.type)
      )
    else:
      columns.append(pa.array(values, field.type))
  folder, name = os.path.split(path)
  os.makedirs(folder or '.', exist_ok=True)
  temporary = os.path.join(folder, f'.{name}.{os.getpid()}.part')
  try:
    parquet.write_table(
      pa.Table.from_arrays(columns, schema=schema),
      temporary,
      # Random numbers gain nothing from a dictionary.
      use_dictionary=[name for name in COLUMNS if name != EMBEDDING],
    )
    os.replace(temporary, path)
  except BaseException:
    if os.path.exists(temporary):
      os.remove(temporary)
    raise


def part_path(path: str, space: str, number: int) -> str:
  """Returns a path such as `path/video_text_embedding/part-00003.parquet`.

  Args:
    path: Folder of the table.
    space: Space, one of `SPACES`.
    number: Number of the part, from 0.
  """
  return os.path.join(path, space, f'part-{number:05d}{_SUFFIX}')


def find_files(path: str | Sequence[str]) -> list[str]:
  """Returns the paths of the Parquet files of a table, sorted.

  Args:
    path: Folder of a table or of a space, a file, or several of them.

  Raises:
    ValueError: There is no such file.
  """
  paths = [path] if isinstance(path, str | os.PathLike) else list(path)
  tables = []
  for root in map(os.fspath, paths):
    names = [root] if os.path.isfile(root) else []
    for folder, folders, files in os.walk(root):
      folders[:] = sorted(name for name in folders if name[0] not in '._')
      names += [
        os.path.join(folder, name)
        for name in sorted(files)
        if name.endswith(_SUFFIX) and name[0] not in '._'
      ]
    if not names:
      raise ValueError(
        '`path` must be a table of embeddings: a folder with Parquet files, as '
        '`python -m vatt_tf.embed` writes it, or such a file. Received: '
        f'path={root!r}'
      )
    tables += names
  return tables


def read_metadata(path: str) -> dict[str, str]:
  """Returns the metadata of the schema of a Parquet file, by name.

  Raises:
    ValueError: The file does not belong to a table of embeddings.
  """
  try:
    schema = parquet.read_schema(path)
  except pa.ArrowInvalid as e:
    raise ValueError(f'{path} is not a whole Parquet file: {e}') from e
  metadata = {
    key.decode(): value.decode()
    for key, value in (schema.metadata or {}).items()
    if not key.startswith(b'ARROW:')
  }
  missing = [name for name in COLUMNS if name not in schema.names]
  if missing or metadata.get(SPACE) not in SPACES:
    raise ValueError(
      f'{path} is not a file of embeddings: it must have the columns '
      f'{", ".join(COLUMNS)} and name its `space` in the metadata. Received: '
      f'columns {", ".join(schema.names)}'
    )
  return metadata


def _as_tuple(value, valid: Sequence[str], name: str) -> tuple[str, ...]:
  """Returns one name or several, checked; None means all."""
  if value is None:
    return tuple(valid)
  chosen = (value,) if isinstance(value, str) else tuple(value)
  for item in chosen:
    if item not in valid:
      raise ValueError(
        f'`{name}` must be among {", ".join(valid)}. Received: {name}={item!r}'
      )
  return chosen


def _matrix(column: pa.ChunkedArray, dimension: int) -> np.ndarray:
  """Returns the (N, D) float32 of a column of fixed-size lists."""
  parts = [
    chunk.flatten().to_numpy(zero_copy_only=False).reshape([-1, dimension])
    for chunk in column.chunks
  ]
  if not parts:
    return np.zeros([0, dimension], np.float32)
  return parts[0] if len(parts) == 1 else np.concatenate(parts)


def read(
  path: str | Sequence[str],
  modality: str | Sequence[str] | None = None,
  space: str | Sequence[str] | None = None,
) -> Embeddings:
  """Reads embeddings into memory.

  Args:
    path: Folder of a table or of a space, a file, or several of them.
    modality: One of `MODALITIES` or several; None means all.
    space: One of `SPACES`, or several that may be compared with each other;
      None means the only one of the table.

  Returns:
    The rows in the order of the files, with the metadata of the first file.

  Raises:
    ValueError: An argument is wrong, there is nothing to read, or the rows
      belong to several models or to spaces that cannot be compared.

  Example:

  >>> videos = table.read('runs/embeddings', 'video', 'video_text_embedding')
  >>> scores = videos.embedding @ query
  """
  modalities = _as_tuple(modality, MODALITIES, 'modality')
  spaces = _as_tuple(space, SPACES, 'space')
  metadata = {file: read_metadata(file) for file in find_files(path)}
  files = [file for file in metadata if metadata[file][SPACE] in spaces]
  if not files:
    valid = sorted({values[SPACE] for values in metadata.values()})
    raise ValueError(
      f'`space` must be one that {path} has: {", ".join(valid)}. Received: '
      f'space={space!r}'
    )
  chosen = {metadata[file][SPACE] for file in files}
  first = metadata[files[0]]
  allowed = first[COMPARABLE_WITH].split(',')
  dimensions = {metadata[file][DIMENSION] for file in files}
  if not chosen <= set(allowed) or len(dimensions) > 1:
    raise ValueError(
      f'`space` must be given, since {path} has several that cannot be '
      f'compared: {", ".join(sorted(chosen))}. Received: space={space!r}'
    )
  tables = [
    parquet.read_table(
      file, columns=list(COLUMNS), partitioning=None
    ).replace_schema_metadata(None)
    for file in files
  ]
  rows = pa.concat_tables(tables)
  versions = compute.unique(rows[MODEL_VERSION]).to_pylist()
  if len(versions) > 1:
    raise ValueError(
      f'{path} has embeddings of several models, which cannot be compared: '
      f'{", ".join(sorted(versions))}. Read the table of one of them.'
    )
  if set(modalities) != set(MODALITIES):
    is_wanted = compute.is_in(rows[MODALITY], pa.array(modalities))
    rows = rows.filter(is_wanted)
  values = {
    name: rows[name].to_numpy() for name in COLUMNS if name != EMBEDDING
  }
  return Embeddings(
    **values,
    embedding=_matrix(rows[EMBEDDING], int(first[DIMENSION])),
    metadata=first,
  )
