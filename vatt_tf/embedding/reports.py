"""What a run of the embedding reports."""

from collections.abc import Iterable
import dataclasses
import itertools

from vatt_tf.core import command_line
from vatt_tf.embedding import table
from vatt_tf.media import errors, skip_lines


@dataclasses.dataclass
class Result:
  """Counts and paths of the table of a run.

  Attributes:
    output: Folder of the table.
    model_version: Version of the model of all rows.
    num_clips: Number of clips of which nothing failed.
    num_failed: Number of clips of which something could not be embedded.
    num_others: Number of files of a folder that are not media, and of captions
      without a word that the model knows.
    num_of: Number of clips with video, clips with sound, and captions, by
      modality.
    num_rows: Number of rows by space.
    num_resumed: Number of clips that an earlier run had embedded.
    skip_report: Path of the csv that names what has no row, with the reason.
  """

  output: str
  model_version: str
  num_clips: int = 0
  num_failed: int = 0
  num_others: int = 0
  num_of: dict[str, int] = dataclasses.field(default_factory=dict)
  num_rows: dict[str, int] = dataclasses.field(default_factory=dict)
  num_resumed: int = 0
  skip_report: str = ''

  def describe(self) -> str:
    """Returns a paragraph for people."""
    count = command_line.count
    rows = [
      f'{count(size, "row")} in {name}' for name, size in self.num_rows.items()
    ]
    num_clips = count(self.num_clips + self.num_failed, 'clip')
    text = (
      f'{num_clips} in {self.output}, by model {self.model_version}: '
      f'{self.num_of.get(table.VIDEO, 0)} with video, '
      f'{self.num_of.get(table.AUDIO, 0)} with sound, '
      f'{count(self.num_of.get(table.CAPTION, 0), "caption")}; '
      f'{", ".join(rows)}'
    )
    if self.num_resumed:
      text += f'; {self.num_resumed} of the clips are from an earlier run'
    text += '.'
    if self.num_failed or self.num_others:
      text += (
        f' {count(self.num_failed, "clip")} failed, in part or whole, and '
        f'{self.num_others} of the files and captions hold nothing to embed: '
        f'see {self.skip_report}.'
      )
    return text


def check_share(
  result: Result, max_failed_share: float, examples: Iterable[skip_lines.Skip]
) -> None:
  """Raises `TooManyFailedError` if too many clips failed or there is no row.

  Args:
    result: Result of the run.
    max_failed_share: Share of the clips that may fail.
    examples: Clips without a row, for the message.
  """
  total = result.num_clips + result.num_failed
  clips = command_line.count(total, 'clip')
  failed = f'{result.num_failed} of {clips} failed'
  if result.num_failed > max_failed_share * total:
    message = (
      f'{failed}, more than `max_failed_share`={max_failed_share:g} allows; '
      f'the others are written. {result.skip_report} gives each reason:'
    )
  elif not sum(result.num_rows.values()):
    message = (
      f'Nothing was embedded: {failed}, and the others hold nothing of '
      f'{", ".join(result.num_of)}. {result.skip_report} names each:'
    )
  else:
    return
  lines = [
    f'  {skip.file}: {skip.reason}' for skip in itertools.islice(examples, 5)
  ]
  raise errors.TooManyFailedError('\n'.join([message, *lines]), result)
