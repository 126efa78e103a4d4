import numpy as np
import pytest
import torch
from torch.nn import functional

from ltxrt.runtime.media.resize import resize


@pytest.mark.parametrize("size", [(64, 96), (40, 61), (128, 33), (7, 200)])
def test_resizing_is_torch_s_bilinear(size):
    frames = np.random.default_rng(3).standard_normal((3, 2, 64, 96), dtype=np.float32) * 2 + 1
    wanted = functional.interpolate(torch.from_numpy(frames), size, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(resize(frames, *size), wanted.numpy(), atol=3e-5)
