"""A script of one's own: build the network, load its weights, export it, run it once beside torch.

python bare_onnx.py CHECKPOINT OUT
"""

import sys
from typing import cast

import onnxruntime
import torch

from earteach.model.vae import EarVAE

state = torch.load(sys.argv[1], weights_only=True)
model = EarVAE(**state["earteach"]["config"]["model"])
prefix = "averaged."
weights = {
    k.removeprefix(prefix): v for k, v in state["state_dict"].items() if k.startswith(prefix)
}
model.load_state_dict(weights)
model.eval()
images = torch.rand(8, 3, model.image_size, model.image_size)
model.forward = model.reconstruct  # type: ignore[method-assign,assignment]
batch = {"x": {0: torch.export.Dim("batch", min=1)}}
torch.onnx.export(
    model, (images,), sys.argv[2], dynamo=True, dynamic_shapes=batch, verbose=False,
    input_names=["x"],
)  # fmt: skip
session = onnxruntime.InferenceSession(sys.argv[2])
seen = cast(list[object], session.run(None, {"x": images.numpy()}))
with torch.inference_mode():
    print(abs(torch.as_tensor(seen[0]) - model.reconstruct(images)).max())
