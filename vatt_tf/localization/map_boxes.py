"""Boxes from maps: the largest region of high values (Afouras et al. 2022)."""

import cv2
import numpy as np
from scipy import ndimage

# Side of the pixels to which maps are enlarged.
_SIZE = 64


def box_of_map(
  values: np.ndarray, threshold: float = 0.7
) -> tuple[float, float, float, float] | None:
  """Returns the box around the largest region with high values of a map.

  The map is scaled such that its lowest value is 0 and its highest is 1, and
  enlarged bilinearly; of the connected regions that reach the threshold the
  largest is taken.

  Args:
    values: (h, w) float.
    threshold: Lowest value of the region, in (0, 1).

  Returns:
    Left, upper, right and lower edge as shares of the map; None for a map that
    is equal everywhere.
  """
  values = np.asarray(values, np.float32)
  low, high = values.min(), values.max()
  if high - low <= 1e-6:
    return None
  shares = cv2.resize(
    (values - low) / (high - low),
    (_SIZE, _SIZE),
    interpolation=cv2.INTER_LINEAR,
  )
  # Enlarging may lower the highest value.
  regions, count = ndimage.label(shares >= min(threshold, shares.max()))
  areas = ndimage.sum_labels(np.ones_like(shares), regions, range(1, count + 1))
  rows, columns = ndimage.find_objects(regions)[int(np.argmax(areas))]
  return (
    columns.start / _SIZE,
    rows.start / _SIZE,
    columns.stop / _SIZE,
    rows.stop / _SIZE,
  )
