"""Checks the full-size Medium model on the sample records, on this machine.

    python -m benchmarks.verify_ma_medium --output=found.json

On a single repeated batch, without augmentation and with the same draws of
dropout and DropToken, its losses must fall within ten steps. It must stay
within its memory; the weights of video must get gradients like those of audio;
and Ctrl-C must stop the run, which the same command must resume.
"""

import re
import resource
import sys
import tempfile

import numpy as np

from benchmarks import checks

_ARGUMENTS = (
  '--gin_file=gin/pretrain_ma_medium.gin',
  '--gin_param=train.overfit_one_batch=True',
  '--gin_param=VideoConfig.color_rate=0.0',
  '--gin_param=VideoConfig.flip_rate=0.0',
  '--gin_param=VideoConfig.scale=1.0',
)
_STEPS = 10
_TERMS = ('video_audio_loss', 'video_text_loss')


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__)
  found = checks.Checks('gin/pretrain_ma_medium.gin on one batch')
  with tempfile.TemporaryDirectory() as model_dir:
    arguments = (*_ARGUMENTS, f'--model_dir={model_dir}')
    text, code = checks.run_module(
      'train', *arguments, stop_at=f'step {_STEPS}/'
    )
    found.check('exit code after Ctrl-C', code, equal=0)
    # The signal comes before or after the next step has begun.
    stopped = re.search(r'Stopped by SIGINT at step (\d+);', text)
    step = int(stopped[1]) if stopped else 0
    found.check('prints where it stopped', step, at_least=_STEPS)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    found.check('peak memory in GiB', round(peak, 2), at_most=20)
    scalars = checks.read_scalars(f'{model_dir}/train')
    for term in _TERMS:
      losses = scalars[term]
      found.note(term, losses)
      first, last = np.mean(losses[:3]), np.mean(losses[7:10])
      found.check(
        f'{term}: mean of steps 8-10 over that of steps 1-3',
        float(last / first),
        at_most=0.999,
      )
    video, audio = (
      scalars[f'gradient_norm/{name}'] for name in ('video', 'audio')
    )
    found.note('gradient norm of video', video)
    found.note('gradient norm of audio', audio)
    found.check(
      'gradient norm of video over that of audio, the least',
      min(v / a for v, a in zip(video, audio, strict=True)),
      at_least=0.01,
    )
    text, code = checks.run_module(
      'train', *arguments, stop_at=f'step {step + 1}/'
    )
    found.check(
      'resumes where it stopped',
      f'Resuming at step {step} of' in text,
      equal=True,
    )
    found.check('exit code after the second Ctrl-C', code, equal=0)
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
