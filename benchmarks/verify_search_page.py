"""Checks the search page in a browser, and leaves pictures of it.

    python -m benchmarks.verify_search_page --output=found.json

It runs the tests of the page in headless Chromium (`apt-get install chromium`,
or set VATT_TF_CHROMIUM): typing, dropping files, using only the keyboard,
narrow and dark screens, and errors. No test may be skipped. The screenshots are
written to runs/search_page.
"""

import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

from benchmarks import checks

_TESTS = 'tests/retrieval_index/page_test.py'


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__)
  found = checks.Checks('the search page in headless Chromium')
  pictures = checks.ROOT / 'runs' / 'search_page'
  with tempfile.TemporaryDirectory() as folder:
    report = os.path.join(folder, 'report.xml')
    subprocess.run(
      [sys.executable, '-m', 'pytest', '-q', f'--junitxml={report}', _TESTS],
      cwd=checks.ROOT,
      check=False,
      env={**os.environ, 'VATT_TF_SCREENSHOTS': str(pictures)},
    )
    cases = list(xml.etree.ElementTree.parse(report).iter('testcase'))
  # TensorFlow's base class adds a test that is none.
  cases = [case for case in cases if case.get('name') != 'test_session']
  for case in cases:
    bad = [each.tag for each in case if each.tag in ('failure', 'error')]
    bad += [each.tag for each in case if each.tag == 'skipped']
    words = re.sub('^test_', '', case.get('name')).replace('_', ' ')
    found.check(words, bad[0] if bad else 'passed', equal='passed')
    found.note(f'seconds of {words}', float(case.get('time')))
  found.check('tests', len(cases), at_least=9)
  found.check('screenshots', len(list(pictures.glob('*.png'))), at_least=10)
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
