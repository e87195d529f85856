"""Writes the vocabulary file of the word-level tokenizer.

    python -m vatt_tf.build_vocabulary \\
      --records='/data/train-*.tfrecord' --output=/data/vocabulary.txt

The words are counted in the captions of records, or in the `caption` column of
a manifest csv (`--manifest`), which is read as ingest reads it, after the same
normalisation as in the tokenizer: Unicode's form NFKC, lower case, no
punctuation, split on white space. The file begins with
`<pad> <bos> <eos> <unk>`, followed by the words, one per line, the most
frequent first and equally frequent ones in alphabetical order.
"""

from absl import app, flags
import tensorflow as tf

from vatt_tf.core import command_line
from vatt_tf.input_pipeline import vocabulary
from vatt_tf.media import manifest, text_files

_RECORDS = command_line.define_path(
  'records', None, 'Pattern of record shards whose captions are counted.'
)
_MANIFEST = command_line.define_path(
  'manifest', None, 'Manifest csv whose `caption` column is counted.'
)
_MANIFEST_ENCODING = flags.DEFINE_string(
  'manifest_encoding', '', "Encoding of the manifest; '' for UTF-8."
)
_IGNORE_COLUMNS = flags.DEFINE_list(
  'ignore_columns', [], 'Columns of the manifest to leave out.'
)
_OUTPUT = command_line.define_path('output', None, 'The file to write.')
_MAX_SIZE = flags.DEFINE_integer(
  'max_size', 65536, 'Maximum number of lines, special tokens included.'
)
_MIN_COUNT = flags.DEFINE_integer(
  'min_count', 1, 'Words seen less often are left out.'
)


def _captions_of_manifest(path: str) -> list[bytes]:
  """Returns the captions of a manifest.

  Raises:
    ValueError: It cannot be read.
  """
  text_files.check_encoding(_MANIFEST_ENCODING.value, 'manifest_encoding')
  if not tf.io.gfile.exists(path):
    raise ValueError(
      f'There is no manifest {path}. Set --manifest to a csv file with a '
      'column `caption`, or --records to a pattern of shards.'
    )
  with tf.io.gfile.GFile(path, 'rb') as file:
    data = file.read()
  captions = manifest.read_captions(
    path, _MANIFEST_ENCODING.value, _IGNORE_COLUMNS.value, data
  )
  return [caption.encode('utf-8') for caption in captions]


def main(argv: list[str]) -> None:
  """Runs the command."""
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {" ".join(argv[1:])}')
  if (_RECORDS.value is None) == (_MANIFEST.value is None):
    raise app.UsageError('Give one of --records and --manifest.')
  if not _OUTPUT.value:
    raise app.UsageError('Give --output, the file to write.')
  with command_line.exit_on_error():
    if _RECORDS.value is not None:
      captions = vocabulary.captions_of_records(_RECORDS.value)
    else:
      captions = _captions_of_manifest(_MANIFEST.value)
    words = vocabulary.build_vocabulary(
      captions, _MAX_SIZE.value, _MIN_COUNT.value
    )
    vocabulary.write_vocabulary(_OUTPUT.value, words)
  print(
    f'Wrote {len(words)} entries to {_OUTPUT.value}. Set the gin macros '
    f"VOCABULARY='{_OUTPUT.value}' and VOCABULARY_SIZE={len(words)} (or more)."
  )


if __name__ == '__main__':
  command_line.run(main)
