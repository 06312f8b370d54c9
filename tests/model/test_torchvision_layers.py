"""torchvision's layers come without torchvision, and torchvision stays whole for everybody else.

Each test runs in its own process, as what is imported here before would hide what it looks for.
"""

import subprocess
import sys

import pytest


def run(code: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_a_network_is_built_without_torchvision_or_a_compiler():
    run(
        "import sys, torch\n"
        "from earteach.config import ModelConfig\n"
        "from earteach.model.build import build_model\n"
        "with torch.device('meta'):\n"
        "    build_model(ModelConfig(image_size=32, base_channels=8, latent_dim=16))\n"
        "assert not {'torchvision.models', 'torchvision.io', 'torch._dynamo'} & set(sys.modules)\n"
    )


@pytest.mark.parametrize(
    "use",
    [
        "import torchvision; torchvision.models.resnet18; torchvision.__version__",
        "from torchvision import models, transforms",
        "import torchvision.transforms.v2 as v2; v2.Resize(4)",
        "from torchvision.models.detection import FCOS",
        "from torchvision.ops import nms, SqueezeExcitation; assert SqueezeExcitation is ours",
    ],
)
@pytest.mark.parametrize("first", ["", "import torchvision\n"], ids=["after", "before"])
def test_torchvision_is_whole(use, first):
    run(
        f"import torch\n{first}from earteach.model.torchvision_layers import SqueezeExcitation as ours\n"
        f"{use}\n"
        "import torchvision\n"
        "boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2.1], [5, 5, 6, 6]])\n"
        "kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)\n"
        "assert kept.tolist() == [0, 2]\n"
        "assert torchvision.ops.SqueezeExcitation is ours\n"
    )
