"""Describes shards: `python -m vatt_tf.inspect_records --pattern=…`.

    python -m vatt_tf.inspect_records --pattern='/data/records/train-*' \\
        --contact_sheet=sheet.png

prints the number of records, how many have video, sound, captions and labels,
their sizes and rates, and a few records in full; the contact
sheet is a picture of these records: frames, waveform, captions.
"""

from collections.abc import Sequence
import dataclasses
import json

from absl import app, flags

from vatt_tf.core import command_line
from vatt_tf.input_pipeline.records import shard_files
from vatt_tf.media import contact_sheet, inspection

_PATTERN = command_line.define_path(
  'pattern', None, 'Pattern of the shards; several are separated by commas.'
)
_NUM_RECORDS = flags.DEFINE_integer(
  'num_records', 8, 'Number of records to inspect.', lower_bound=1
)
_CONTACT_SHEET = command_line.define_path(
  'contact_sheet', '', 'PNG to draw these records to.'
)
_JSON = flags.DEFINE_bool('json', False, 'Print json instead of words.')


def main(argv: Sequence[str]) -> None:
  """Parses the flags and prints."""
  if len(argv) > 1:
    raise app.UsageError(
      f'Unexpected arguments: {argv[1:]}. Put the pattern in quotes, so that '
      'the shell leaves it alone.'
    )
  with command_line.exit_on_error():
    paths = shard_files.match_shards(_PATTERN.value, macro='TRAIN_RECORDS')
    counts = shard_files.count_all_records(paths)
    samples = inspection.read_some(paths, _NUM_RECORDS.value)
    reports = [inspection.report_record(*sample) for sample in samples]
    if _JSON.value:
      value = {
        'shards': [
          {'path': path, 'num_records': count}
          for path, count in zip(paths, counts)
        ],
        'num_records': sum(counts),
        'records': [dataclasses.asdict(report) for report in reports],
      }
      print(json.dumps(value, indent=2, ensure_ascii=False))
    else:
      print(inspection.describe(paths, sum(counts), reports))
    if _CONTACT_SHEET.value and reports:
      contact_sheet.draw_contact_sheet(
        _CONTACT_SHEET.value, reports, [record for _, record in samples]
      )
      if not _JSON.value:
        print(f'\nThe contact sheet is {_CONTACT_SHEET.value}.')


if __name__ == '__main__':
  command_line.run(main, required=['pattern'])
