"""Exports a CLIP vision tower (CLIPVisionModelWithProjection of transformers) as an encoder for `rebeca items import --images`.

    python tools/clip_vision.py export MODEL DIR     encoder.onnx and manifest.json of a model's folder or name
    python tools/clip_vision.py tiny DIR             the same of a tiny tower with random weights, pictures, and what transformers and
                                                     Pillow make of them: the fixtures of sampler/testdata/clip

Needs what tools/requirements-diffusers.txt names. The embedding is image_embeds, not normalised, which is what IP-Adapter takes.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]


class Embeds(torch.nn.Module):
    def __init__(self, tower):
        super().__init__()
        self.tower = tower

    def forward(self, pixels):
        return self.tower(pixel_values=pixels).image_embeds


def export(tower, name, folder, batch):
    tower = tower.eval()
    side = tower.config.image_size
    folder.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(Embeds(tower), (torch.zeros(batch, 3, side, side),), str(folder / "encoder.onnx"), dynamo=False, opset_version=17,
                      input_names=["pixels"], output_names=["embeds"])
    manifest = {
        "format": 1, "name": name, "dim": tower.config.projection_dim, "decoder": None,
        "encoder": {"file": "encoder.onnx", "input": "pixels", "output": "embeds", "layout": "NCHW", "range": [0, 1], "resize": "shortest",
                    "mean": MEAN, "std": STD, "width": side, "height": side, "batch": batch},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def pictures(rng):
    """Pictures with edges, fine stripes and noise, larger and smaller than the tower's, wide and tall, of several modes."""
    def rgb(w, h):
        y, x = np.mgrid[0:h, 0:w]
        stripes = ((x + 2 * y) % 4 < 2) * 255
        disc = ((x - w / 2) ** 2 + (y - h / 3) ** 2 < (h / 4) ** 2) * 200
        ramp = x * 255 // max(1, w - 1)
        out = np.stack([stripes, disc, ramp], -1).astype(np.int64) + rng.integers(-20, 20, (h, w, 3))
        return Image.fromarray(out.clip(0, 255).astype(np.uint8))

    yield "wide", rgb(97, 61)
    yield "tall", rgb(40, 133)
    yield "small", rgb(19, 11)
    yield "same", rgb(32, 32)
    yield "large", rgb(150, 149)
    yield "grey", rgb(70, 50).convert("L")
    yield "palette", rgb(64, 48).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    alpha = rgb(50, 60).convert("RGBA")
    alpha.putalpha(Image.fromarray((np.mgrid[0:60, 0:50][1] * 5).astype(np.uint8)))
    yield "alpha", alpha


def tiny(folder):
    torch.manual_seed(7)
    rng = np.random.default_rng(7)
    config = CLIPVisionConfig(image_size=32, patch_size=8, hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                              projection_dim=8, attn_implementation="eager")
    tower = CLIPVisionModelWithProjection(config)
    for p in tower.parameters():  # as made they are so small that every picture has the same embedding
        torch.nn.init.normal_(p, std=0.2)
    export(tower, "clip-tiny", folder, 3)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    expected = {}
    for name, img in pictures(rng):
        img.save(folder / f"{name}.png", optimize=True)
        img = Image.open(folder / f"{name}.png")
        raw = processor(img, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
        Image.fromarray(raw.transpose(1, 2, 0).round().astype(np.uint8)).save(folder / f"{name}.fit.png", optimize=True)
        with torch.no_grad():
            embeds = tower(pixel_values=processor(img, return_tensors="pt")["pixel_values"]).image_embeds[0]
        expected[name] = [float(v) for v in embeds]
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("export")
    one.add_argument("model")
    one.add_argument("dir", type=Path)
    one.add_argument("--batch", type=int, default=8)
    verbs.add_parser("tiny").add_argument("dir", type=Path)
    args = parser.parse_args()
    if args.verb == "tiny":
        return tiny(args.dir)
    tower = CLIPVisionModelWithProjection.from_pretrained(args.model, attn_implementation="eager")
    export(tower, Path(args.model).name, args.dir, args.batch)


if __name__ == "__main__":
    main()
