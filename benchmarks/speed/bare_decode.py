"""A script of one's own: build the network, load its weights, decode eight codes, keep the images.

python bare_decode.py CHECKPOINT OUT
"""

import sys

import torch

from earteach.model.vae import EarVAE

state = torch.load(sys.argv[1], weights_only=True)
model = EarVAE(**state["earteach"]["config"]["model"])
prefix = "averaged."
weights = {
    k.removeprefix(prefix): v for k, v in state["state_dict"].items() if k.startswith(prefix)
}
model.load_state_dict(weights)
with torch.inference_mode():
    images = model.sample(8, torch.Generator().manual_seed(0))
torch.save(images, sys.argv[2])
