import numpy as np
import pytest

from latentsync.faces.alignment import keep_mask
from tests.support.paths import GOLDEN


@pytest.mark.parametrize("resolution", [256, 512])
def test_inpaint_mask_matches_official(resolution: int) -> None:
    recorded = np.load(GOLDEN / f"mask_{resolution}.npz")["keep"]
    mask = keep_mask(resolution)
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask, recorded)
