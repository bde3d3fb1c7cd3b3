"""The types of the arrays that training passes around. Their shapes stand where they are used."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int_]
