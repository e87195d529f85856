"""Checks the ingest command: its speed, and the sound and pictures it writes.

    python -m benchmarks.verify_ingest --output=found.json

`benchmarks/ingest.py` describes the workload. The error of the sound comes from
the AAC encoder; where the files are lossless, it comes from ingest alone.
"""

import sys

from benchmarks import checks, ingest

_NOTES = (
  'num_cores',
  'clips_per_second_per_core',
  'times_real_time',
  'startup_seconds',
  'seconds',
  'decode_clips_per_second',
  'media_kilobits_per_second',
)
_EXACT = {
  'num_records': 600,
  'num_different_records': 600,
  'frame_sizes': [(320, 256)],
  'frames': [30],
  'frame_and_sound_rates': [(10.0, 48000.0)],
  'samples': [144_000],
  'sound_types': ['float32'],
  'num_not_finite': 0,
  'num_denormal': 0,
}


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__)
  found = checks.Checks('ingest of 600 clips of three seconds')
  figures = ingest.measure(_EXACT['num_records'])
  content = figures['content']
  found.check(
    'clips a second', round(figures['clips_per_second'], 1), at_least=12
  )
  for name in _NOTES:
    found.note(name, figures[name])
  for name, value in _EXACT.items():
    found.check(name, content[name], equal=value)
  for name, limits in (
    ('largest_pitch_error_hz', {'at_most': 0.2}),
    ('smallest_level', {'at_least': 0.395}),
    ('largest_level', {'at_most': 0.405}),
    ('largest_sound_error_db', {'at_most': -25}),
    ('largest_lossless_sound_error_db', {'at_most': -75}),
    ('smallest_frame_psnr_db', {'at_least': 34.5}),
  ):
    found.check(name, content[name], **limits)
  found.note('bytes_per_frame', content['bytes_per_frame'])
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
