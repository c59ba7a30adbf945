"""Networks of diffusers on PyTorch, for comparison with tide's.

  python bench/peers/diffusers_networks.py reference spec/data/diffusers_networks.safetensors
      writes results of tiny networks whose weights come from a formula: what spec/diffusion_networks_spec.lua reads
  python bench/peers/diffusers_networks.py run DIR
      loads DIR as a user of diffusers would, runs DIR/inputs.safetensors through it, and writes the result and all
      gradients to DIR/outputs.safetensors: what bench/diffusers_check.lua reads

Images are stored N x H x W x C; weights and their gradients as PyTorch has them.
"""
import json
import os
import sys

import diffusers
import numpy as np
import torch
from safetensors.torch import load_file, save_file

# The spec holds the same configurations, in the same order.
TINY = {
    "ddpm": ("UNet2DModel", dict(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16), layers_per_block=2,
        norm_num_groups=4, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), flip_sin_to_cos=False, freq_shift=1, downsample_padding=0,
        norm_eps=1e-6, attention_head_dim=None)),
    "classes": ("UNet2DModel", dict(
        sample_size=8, in_channels=1, out_channels=2, block_out_channels=(8, 8, 16), layers_per_block=1,
        norm_num_groups=4, down_block_types=("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"),
        up_block_types=("ResnetUpsampleBlock2D", "AttnUpBlock2D", "UpBlock2D"), num_class_embeds=5,
        attention_head_dim=4, resnet_time_scale_shift="scale_shift", downsample_type="resnet",
        upsample_type="resnet", center_input_sample=True, act_fn="gelu")),
    "condition": ("UNet2DConditionModel", dict(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        norm_num_groups=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=12, attention_head_dim=2)),
    "deep": ("UNet2DConditionModel", dict(
        sample_size=6, in_channels=4, out_channels=4, block_out_channels=(8, 16, 16), layers_per_block=2,
        norm_num_groups=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=10,
        attention_head_dim=(2, 4, 8), transformer_layers_per_block=(1, 2, 1), use_linear_projection=True,
        mid_block_scale_factor=1.5, act_fn="gelu", num_class_embeds=3)),
    "fourier": ("UNet2DModel", dict(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16), layers_per_block=1,
        norm_num_groups=4, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=8, time_embedding_type="fourier")),
    "fourier_condition": ("UNet2DConditionModel", dict(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        norm_num_groups=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=12, attention_head_dim=2,
        time_embedding_type="fourier")),
    "dit": ("DiTTransformer2DModel", dict(
        sample_size=8, patch_size=2, in_channels=3, out_channels=3, num_layers=2, num_attention_heads=2,
        attention_head_dim=8, num_embeds_ada_norm=4, norm_num_groups=4)),
}


def wave(n, k):
    """n numbers between -1 and 1 that do not repeat."""
    return np.sin(0.7 * np.arange(n, dtype=np.float64) * (1 + 0.01 * k) + 1.3 * k)


def fill(model):
    """Weights from the formula, tensor k in the order of names."""
    with torch.no_grad():
        for k, (name, p) in enumerate(sorted(model.named_parameters())):
            values = wave(p.numel(), k).reshape(p.shape)
            if p.ndim > 1:
                values *= 1.4 / np.sqrt(p[0].numel())
            elif name.endswith(".weight"):
                values = 1 + 0.2 * values
            else:
                values *= 0.2
            p.copy_(torch.from_numpy(values))


def call(model, x, t, condition, labels):
    if isinstance(model, diffusers.UNet2DConditionModel):
        return model(x, t, encoder_hidden_states=condition, class_labels=labels).sample
    if isinstance(model, diffusers.DiTTransformer2DModel):
        return model(x, timestep=t, class_labels=labels).sample
    return model(x, t, class_labels=labels).sample


def gradients(model, inputs, sent_back):
    """The result and the gradients of sum(result * sent_back(result's shape))."""
    x = inputs["x"].permute(0, 3, 1, 2).contiguous().requires_grad_()
    condition = inputs.get("condition")
    if condition is not None:
        condition = condition.clone().requires_grad_()
    labels = inputs.get("classes")
    y = call(model, x, inputs["t"], condition, labels - 1 if labels is not None else None)
    (y * sent_back(y)).sum().backward()
    out = {"y": y.detach().permute(0, 2, 3, 1).contiguous(), "dx": x.grad.permute(0, 2, 3, 1).contiguous()}
    if condition is not None:
        out["dcondition"] = condition.grad
    for name, p in model.named_parameters():
        if p.grad is not None:
            out["d." + name] = p.grad
    return out


def reference(path):
    tensors = {}
    for name, (kind, config) in TINY.items():
        model = getattr(diffusers, kind)(**config).double().eval()
        fill(model)
        n, size, c = 2, config["sample_size"], config["in_channels"]
        inputs = {"x": torch.from_numpy(wave(n * size * size * c, 1).reshape(n, size, size, c)),
                  "t": torch.tensor([3.0, 421.0], dtype=torch.float64)}
        if "cross_attention_dim" in config:
            width = config["cross_attention_dim"]
            inputs["condition"] = torch.from_numpy(wave(n * 5 * width, 2).reshape(n, 5, width))
        if config.get("num_class_embeds") or kind.startswith("DiT"):
            inputs["classes"] = torch.tensor([2, 3])
        out = gradients(model, inputs, lambda y: torch.from_numpy(
            wave(y.numel(), 3).reshape(y.shape[0], y.shape[2], y.shape[3], y.shape[1])).permute(0, 3, 1, 2))
        for key in ("y", "dx", "dcondition"):
            if key in out:
                tensors[f"{name}.{key}"] = out[key].float().contiguous()
        # of each weight's gradient one number: its product with a wave
        names = sorted(n for n, _ in model.named_parameters())
        tensors[f"{name}.d"] = torch.tensor([
            float((out["d." + n].flatten().numpy() * wave(out["d." + n].numel(), 4)).sum()) if "d." + n in out else 0.0
            for n in names])
        print(name, kind, sum(p.numel() for p in model.parameters()), "parameters")
    save_file(tensors, path)


def run(folder):
    with open(os.path.join(folder, "config.json")) as f:
        kind = json.load(f)["_class_name"]
    model = getattr(diffusers, kind).from_pretrained(folder, low_cpu_mem_usage=False).eval()
    inputs = load_file(os.path.join(folder, "inputs.safetensors"))
    out = gradients(model, inputs, lambda y: inputs["sent_back"].permute(0, 3, 1, 2))
    save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(folder, "outputs.safetensors"))


if __name__ == "__main__":
    {"reference": reference, "run": run}[sys.argv[1]](sys.argv[2])
