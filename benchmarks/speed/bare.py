"""A bare script that builds the network, loads its weights, and decodes or exports.

python bare.py decode CHECKPOINT OUT      # eight codes to images
python bare.py onnx CHECKPOINT OUT        # the network, compared with torch once
"""

import sys

import torch

from earteach.config import ModelConfig
from earteach.model.build import build_model

what, checkpoint, out = sys.argv[1:]
state = torch.load(checkpoint, weights_only=True)
model = build_model(ModelConfig(**state["earteach"]["config"]["model"])).eval()
prefix = "averaged."
weights = {
    k.removeprefix(prefix): v for k, v in state["state_dict"].items() if k.startswith(prefix)
}
model.load_state_dict(weights)
if what == "decode":
    with torch.inference_mode():
        torch.save(model.sample(8, torch.Generator().manual_seed(0)), out)
else:
    import onnxruntime

    images = torch.rand(8, 3, model.image_size, model.image_size)
    model.forward = model.reconstruct  # type: ignore[method-assign,assignment]
    batch = {"x": {0: torch.export.Dim("batch", min=1)}}
    torch.onnx.export(
        model, (images,), out, dynamo=True, dynamic_shapes=batch, verbose=False, input_names=["x"]
    )
    (output,) = onnxruntime.InferenceSession(out).run(None, {"x": images.numpy()})
    with torch.inference_mode():
        print(abs(torch.as_tensor(output) - model.reconstruct(images)).max())
