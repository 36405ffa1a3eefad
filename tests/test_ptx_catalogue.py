"""By Triton's compiled kernels, run on the host, groups that override options come to what torch.optim comes to.

So they do with scalars from the host and from the device; ``test_optim_catalogue.py`` has more of PyTorch's catalogue.
"""

from __future__ import annotations

import pytest
import torch
from kit import catalogue
from kit.host_gpu import host_gpu


@pytest.mark.parametrize("capturable", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("name", catalogue.CLASSES)
def test_groups(name: str, capturable: bool) -> None:
    with host_gpu():
        catalogue.assert_groups_agree(name, torch.float32, "triton", capturable=capturable)
