"""Makes sample media: `python -m vatt_tf.make_sample_media`, by its path."""

from vatt_tf import make_sample_media

if __name__ == '__main__':
  make_sample_media.main()
