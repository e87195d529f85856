"""Writes sample media: small MP4 files whose picture, sound and captions agree.

Each clip shows one coloured shape that moves over a textured background, and
plays a sound that belongs to it: the shape gives the timbre, the colour the
pitch, the motion the rhythm. Captions describe the same in words. Everything is
drawn from a seed, whatever the number of workers.

    python -m vatt_tf.make_sample_media --output_dir=data/generated/sample

writes

    train.csv, validation.csv   manifests: video_path,start,end,label,caption
    train_boxes.csv, ...        where the shapes are in each frame
    train/00000.mp4, ...        H.264 and AAC
    train/00001.vtt, ...        captions with times, for the clips whose
                                caption the manifest leaves empty

There are 288 combinations of 6 shapes, 8 colours and 6 motions. Every
validation clip shows a different one, so that a search has one right answer;
the training clips go through all of them in turn. The splits differ in texture,
place, pace and phrasing, and share no caption. Some training clips lack sound,
and some lack captions. With `--distractor_share=0.5` half of them also show a
second shape, which is silent, and the validation clips are pairs of the same
picture with two shapes, each of which sounds in turn.

It needs PyAV, NumPy and tqdm alone.
"""

import argparse
import dataclasses

from vatt_tf.media.sample import plan, rendering


def main() -> None:
  """Parses the command line and writes the media."""
  parser = argparse.ArgumentParser(
    description='Writes sample media: coloured shapes that move and sound.',
    epilog=plan.Options.__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--output_dir',
    default='data/generated/sample',
    help='folder to write to (default: %(default)s)',
  )
  parser.add_argument(
    '--num_workers', type=int, help='processes; by default one per core'
  )
  for field in dataclasses.fields(plan.Options):
    parser.add_argument(
      f'--{field.name}',
      type=field.type,
      default=field.default,
      help='see below (default: %(default)s)',
    )
  arguments = vars(parser.parse_args())
  try:
    clips = rendering.write_sample_media(**arguments)
  except ValueError as error:
    parser.error(str(error))
  print(f'{len(clips)} clips in {arguments["output_dir"]}')


if __name__ == '__main__':
  main()
