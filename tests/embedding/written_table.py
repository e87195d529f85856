"""Tables of embeddings from rows, without a model."""

from collections.abc import Iterable, Mapping

from vatt_tf.embedding import table


def write(
  path: str,
  rows: Iterable[Mapping],
  metadata: Mapping[str, object] | None = None,
) -> None:
  """Writes a table: a file for each space that the rows have.

  Args:
    path: Folder of the table.
    rows: Dictionaries with `table.COLUMNS`.
    metadata: Further metadata of each file.
  """
  of_spaces = {}
  for row in rows:
    of_spaces.setdefault(row[table.SPACE], []).append(row)
  for space, of_space in of_spaces.items():
    dimension = len(of_space[0][table.EMBEDDING])
    schema = table.make_schema(space, dimension, metadata)
    table.write_file(table.part_path(path, space, 0), of_space, schema)
