"""Checks `make quickstart` in a fresh clone: its time and search results.

    python -m benchmarks.verify_quickstart --output=found.json

It clones the committed files into a temporary folder and runs the command
there, so that the environment is also created again. Then it searches the
held-out clips for each one's caption: the first ten results must contain the
clip as often as in evaluation, which uses whole clips where the search page has
windows.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks import checks
from vatt_tf import search
from vatt_tf.retrieval_index import query

_DIRECTIONS = ('text_to_video', 'audio_to_video')


def _search_for_captions(index, saved_model):
  """The share of captions whose clip is among the first ten that are found."""
  searcher = search.open_searcher(index, saved_model)
  moments = map(searcher.index.moment, range(searcher.index.num_moments))
  captions = {(each.path, each.caption) for each in moments if each.caption}
  is_found = [
    any(
      hit.moment.path == path
      for hit in searcher.by_text(caption, query.VIDEO, count=10).hits
    )
    for path, caption in sorted(captions)
  ]
  return sum(is_found) / len(is_found)


def _check_search(found, folder, recall):
  """Searches whole clips, as evaluation does, and windows, as the page does."""
  saved_model = f'{folder}/saved_model'
  whole = f'{folder}/whole'
  _, code = checks.run_module(
    'embed',
    f'--saved_model={saved_model}',
    f'--records={folder}/records/validation-*',
    f'--output={whole}',
    '--clip_seconds=0',
  )
  found.check('exit code of embed', code, equal=0)
  index = f'{folder}/whole_index'
  _, code = checks.run_module(
    'search', 'build', f'--embeddings={whole}', f'--output={index}'
  )
  found.check('exit code of search build', code, equal=0)
  share = _search_for_captions(index, saved_model)
  found.check('search of whole clips: R@10', round(share, 4), equal=recall)
  share = _search_for_captions(f'{folder}/index', saved_model)
  found.note('search page, windows of 1.6 s: clip among the first ten', share)


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__)
  found = checks.Checks('make quickstart in a fresh clone')
  with tempfile.TemporaryDirectory() as folder:
    clone = pathlib.Path(folder, 'clone')
    subprocess.run(
      ['git', 'clone', '--quiet', str(checks.ROOT), str(clone)], check=True
    )
    start = time.monotonic()
    subprocess.run(['make', 'quickstart'], cwd=clone, check=True)
    seconds = time.monotonic() - start
    made = clone / 'runs' / 'quickstart'
    result = json.loads((made / 'result.json').read_text())
    recall = result['retrieval']['text_to_video']['R@10']
    _check_search(found, made, round(recall, 4))
  found.check('seconds in all', round(seconds), at_most=600)
  found.note('seconds', result['seconds'])
  found.note('retrieval', result['retrieval'])
  for direction in _DIRECTIONS:
    metrics = result['retrieval'][direction]
    found.check(f'{direction} pool', metrics['pool_size'], at_least=100)
    found.check(f'{direction} R@5', metrics['R@5'], at_least=0.70)
    found.check(f'{direction} R@10', metrics['R@10'], at_least=0.95)
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
