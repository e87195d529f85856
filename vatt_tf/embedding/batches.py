"""Embeds clips in batches."""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses

from vatt_tf.embedding import model as model_lib
from vatt_tf.embedding import table
from vatt_tf.input_pipeline.records import schema
from vatt_tf.media import clock, skip_lines

# Counts of each part in the journal, beside its rows.
COUNTS = ('clips', 'failed', 'others', *table.MODALITIES)


@dataclasses.dataclass
class Outcome:
  """Rows and skip lines of some clips.

  Attributes:
    rows: Dictionaries with `table.COLUMNS`.
    skips: Skip lines of what has no row.
    counts: Numbers of clips of which nothing failed and of which something did,
      of what holds nothing to embed, and of what has rows, by modality.
  """

  rows: list[dict] = dataclasses.field(default_factory=list)
  skips: list[skip_lines.Skip] = dataclasses.field(default_factory=list)
  counts: dict[str, int] = dataclasses.field(
    default_factory=lambda: dict.fromkeys(COUNTS, 0)
  )


def _seconds(time: int) -> str:
  return f'{time / clock.SECOND:g}'


def embed_clips(
  clips: Iterable[schema.Clip | skip_lines.Skip],
  embedder: model_lib.Embedder,
  batch_size: int,
) -> Iterator[Outcome]:
  """Embeds clips in batches.

  Args:
    clips: Clips, and the skip lines of unreadable ones.
    embedder: Embedder of the model.
    batch_size: Number of clips in a batch.

  Yields:
    The outcome of each batch.
  """
  clips = iter(clips)
  while True:
    outcome, batch = Outcome(), []
    for clip in clips:
      if isinstance(clip, skip_lines.Skip):
        outcome.skips.append(clip)
        outcome.counts['failed' if clip.is_failure else 'others'] += 1
        continue
      batch.append(clip)
      if len(batch) == batch_size:
        break
    if not batch and not outcome.skips:
      return
    if batch:
      _embed_batch(batch, embedder, outcome)
    yield outcome


def _embed_batch(
  clips: Sequence[schema.Clip],
  embedder: model_lib.Embedder,
  outcome: Outcome,
) -> None:
  """Adds the rows and skip lines of some clips to an outcome."""
  for clip, result in zip(clips, embedder.embed(clips)):
    times = _seconds(clip.start), _seconds(clip.end)
    faults, notes = result.faults, result.notes
    if not result.rows and not faults and not notes:
      missing = f'it has nothing of {", ".join(embedder.modalities)}'
      # Not every clip has captions.
      is_text = embedder.modalities == (table.CAPTION,)
      (notes if is_text else faults).append(missing)
    outcome.rows += result.rows
    outcome.counts['failed' if faults else 'clips'] += 1
    outcome.counts['others'] += len(notes)
    for modality, count in result.num_of.items():
      outcome.counts[modality] += count
    outcome.skips += [
      skip_lines.Skip(clip.data_path, *times, reason, reason in faults)
      for reason in faults + notes
    ]
