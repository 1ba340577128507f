"""Train the codec of the controlled world and export it as two ONNX files.

A small variational autoencoder (trunk of the paper at half its channels) maps
64x64 RGB pictures to 16-dimensional embeddings and back. The pictures come from
the Go renderer, so the model knows exactly what the world draws:

    python -m venv .venv && .venv/bin/pip install -r tools/requirements-vae.txt
    mkdir -p .venv/shapes
    go run ./tools/shapes-render -dir .venv/shapes -name train -count 24000
    go run ./tools/shapes-render -dir .venv/shapes -name held -count 4800 -first 2199023255552
    go run ./tools/shapes-render -dir .venv/shapes -name catalogue -catalogue
    .venv/bin/python tools/shapes_vae.py --data .venv/shapes --out eval/shapes/model

Writes encoder.onnx, decoder.onnx, manifest.json and CARD.md to --out. Takes about seven
minutes of one core that nobody else uses.
"""

import argparse
import hashlib
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

SIDE, LATENT = 64, 16
CHANNELS = (16, 32, 64, 128)
HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")
SHAPES = ("heart", "square", "star", "ring")
TASTES = [f"{h} {s}" for h in HUES for s in SHAPES]  # order of shapes.Demo()
APART, WITHIN = 3.0, 0.4  # see components


class Encoder(nn.Module):
    """[N, 3, 64, 64] in 0..1 to the mean [N, 16] (and log-variance) of the posterior.

    The head is linear over the flattened 4x4 map: a global average pool would blur
    where in the picture a figure stands.
    """

    def __init__(self):
        super().__init__()
        layers, width = [], 3
        for c in CHANNELS:
            layers += [nn.Conv2d(width, c, 4, 2, 1), nn.ReLU()]
            width = c
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.mu = nn.Linear(width * 16, LATENT)
        self.logvar = nn.Linear(width * 16, LATENT)

    def posterior(self, image):
        h = self.trunk(image)
        return self.mu(h), self.logvar(h)

    def forward(self, image):
        return self.mu(self.trunk(image))


class Decoder(nn.Module):
    """[N, 16] to [N, 3, 64, 64] in 0..1; `logits` is the same before the sigmoid."""

    def __init__(self):
        super().__init__()
        self.start = nn.Linear(LATENT, CHANNELS[-1] * 16)
        layers, width = [nn.ReLU()], CHANNELS[-1]
        for c in (*CHANNELS[-2::-1], 3):
            layers += [nn.ConvTranspose2d(width, c, 4, 2, 1), nn.ReLU()]
            width = c
        self.trunk = nn.Sequential(*layers[:-1])

    def logits(self, z):
        return self.trunk(self.start(z).view(-1, CHANNELS[-1], 4, 4))

    def forward(self, z):
        return torch.sigmoid(self.logits(z))


def load(folder, name):
    """Pictures as uint8 [N, 3, 64, 64] and their taste indices."""
    labels = np.fromfile(folder / f"{name}.labels.u8", dtype=np.uint8)
    pixels = np.fromfile(folder / f"{name}.u8", dtype=np.uint8).reshape(len(labels), SIDE, SIDE, 3)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), labels


def unit(pixels):
    return (pixels.float() / 255).contiguous(memory_format=torch.channels_last)


def components():
    """Means [24, 16] and standard deviation [16] of the prior: one Gaussian a taste.

    With one N(0, I) for all, pose takes every dimension and neighbours are pictures in
    the same pose, whatever they show (nearest latent right for 82 %). So the first five
    dimensions are kept for the taste: hue as an angle on a circle of radius APART,
    adjacent hues APART from each other, and shape as a corner of a tetrahedron with
    edges APART. Pose has the others, N(0, 1). The encoder sees no taste, only pixels.
    """
    mean, std = torch.zeros(len(TASTES), LATENT), torch.ones(LATENT)
    std[:5] = WITHIN
    corners = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * APART / math.sqrt(8)
    for i in range(len(TASTES)):
        angle = 2 * math.pi * (i // len(SHAPES)) / len(HUES)
        mean[i, 0], mean[i, 1] = APART * math.cos(angle), APART * math.sin(angle)
        mean[i, 2:5] = corners[i % len(SHAPES)]
    return mean, std


def divergence(mu, logvar, mean, std):
    """KL of N(mu, exp(logvar)) from N(mean, std²), summed over dimensions, per picture."""
    return (std.log() - 0.5 * logvar + (logvar.exp() + (mu - mean).square()) / (2 * std.square()) - 0.5).sum() / len(mu)


def train(args, pixels, labels, encoder, decoder):
    """Adam with a cosine learning rate on summed BCE + beta KL per picture."""
    means, std = components()
    labels = torch.from_numpy(labels.astype(np.int64))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    steps = args.epochs * (len(pixels) // args.batch)
    adam = torch.optim.Adam(parameters, lr=args.lr)
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda i: min(1, (i + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * i / steps))))
    shuffle = torch.Generator().manual_seed(args.seed)
    started, step = time.time(), 0
    for epoch in range(args.epochs):
        order = torch.randperm(len(pixels), generator=shuffle)
        total = np.zeros(2)
        for at in range(0, len(pixels) - args.batch + 1, args.batch):
            chosen = order[at:at + args.batch]
            x = unit(pixels[chosen])
            mu, logvar = encoder.posterior(x)
            z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
            bce = F.binary_cross_entropy_with_logits(decoder.logits(z), x, reduction="sum") / len(x)
            kl = divergence(mu, logvar, means[labels[chosen]], std)
            beta = args.beta * min(1, 2 * step / warm)
            adam.zero_grad(set_to_none=True)
            (bce + beta * kl).backward()
            nn.utils.clip_grad_norm_(parameters, 500)
            adam.step()
            schedule.step()
            step += 1
            total += bce.item(), kl.item()
            if step % 50 == 0 and epoch == 0:
                print(f"step {step}/{steps} bce {bce.item():.1f} kl {kl.item():.2f} {time.time() - started:.0f} s", flush=True)
        total /= len(pixels) // args.batch
        print(f"epoch {epoch + 1}/{args.epochs} bce {total[0]:.1f} kl {total[1]:.2f} {time.time() - started:.0f} s", flush=True)
    return time.time() - started


@torch.no_grad()
def encode(encoder, pixels):
    return torch.cat([encoder(unit(p)) for p in pixels.split(256)]).numpy()


@torch.no_grad()
def errors(encoder, decoder, pixels):
    """Per-channel-value MSE, BCE and the entropy below which no BCE can fall."""
    mse = bce = floor = 0.0
    for p in pixels.split(256):
        x = unit(p)
        logits = decoder.logits(encoder(x))
        mse += (torch.sigmoid(logits) - x).square().sum().item()
        bce += F.binary_cross_entropy_with_logits(logits, x, reduction="sum").item()
        floor += F.binary_cross_entropy(x, x, reduction="sum").item()
    n = pixels.numel()
    return mse / n, bce / n, floor / n


def neighbours(catalogue, catalogue_labels, queries, labels):
    """Share of queries whose nearest catalogue latent has their class, the wrong
    pairs, and the median of (distance to the nearest of another class) over
    (distance to the nearest of the same)."""
    distance = ((queries ** 2).sum(1)[:, None] - 2 * queries @ catalogue.T + (catalogue ** 2).sum(1)[None])
    got = catalogue_labels[distance.argmin(1)]
    same = catalogue_labels[None] == labels[:, None]
    near = np.where(same, distance, np.inf).min(1).clip(1e-12)
    other = np.where(same, np.inf, distance).min(1).clip(1e-12)
    wrong = [(TASTES[a], TASTES[b]) for a, b in zip(labels, got) if a != b]
    return (got == labels).mean(), wrong, float(np.median(np.sqrt(other / near)))


def normalised(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def export(module, sample, file, name, result):
    torch.onnx.export(module, (sample,), str(file), input_names=[name], output_names=[result],
                      dynamic_axes={name: {0: "N"}, result: {0: "N"}}, opset_version=17, dynamo=False)


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def manifest(out):
    picture = {"layout": "NCHW", "range": [0, 1], "width": SIDE, "height": SIDE, "batch": 8}
    (out / "manifest.json").write_text(json.dumps({
        "format": 1, "name": "shapes", "dim": LATENT,
        "decoder": {"file": "decoder.onnx", "input": "z", "output": "image", **picture},
        "encoder": {"file": "encoder.onnx", "input": "image", "output": "mu", **picture},
    }, indent=2) + "\n")


def card(args, out, encoder, decoder, seconds):
    train_x, _ = load(args.data, "train")
    held, held_y = load(args.data, "held")
    shown, shown_y = load(args.data, "catalogue")
    mse, bce, floor = errors(encoder, decoder, held)
    mse_train, _, _ = errors(encoder, decoder, train_x[:4800])
    c, h = encode(encoder, shown), encode(encoder, held)
    euclid, wrong, margin = neighbours(c, shown_y, h, held_y)
    cosine, _, _ = neighbours(normalised(c), shown_y, normalised(h), held_y)
    per_taste = [f"{t} {100 * (1 - sum(w[0] == t for w in wrong) / (held_y == i).sum()):.1f}" for i, t in enumerate(TASTES)]
    row = lambda v: " ".join(f"{x:+.2f}" for x in v)
    lines = [
        "# Codec of the controlled world", "",
        "A variational autoencoder with a prior of one Gaussian a taste between 64x64 RGB pictures and 16-dimensional embeddings (the posterior's mean).",
        "", "| | |", "|---|---|",
        f"| data | {len(train_x):,} pictures of tools/shapes-render, all {len(TASTES)} tastes alike, every pose of the world |",
        f"| network | 4 convolutions k4 s2 p1 3-{'-'.join(map(str, CHANNELS))}, ReLU, linear heads; mirrored decoder, sigmoid; {sum(p.numel() for m in (encoder, decoder) for p in m.parameters()):,} parameters |",
        f"| loss | summed BCE + {args.beta:g} KL from one Gaussian a taste: hue an angle of radius {APART:g} in dimensions 0 and 1, shape a corner of a tetrahedron with edges {APART:g} in 2 to 4, standard deviation {WITHIN:g} there and 1 in the rest |",
        f"| training | {args.epochs} epochs, Adam, learning rate {args.lr:g} falling as a cosine, batch {args.batch}, seed {args.seed}, {args.threads} threads, {seconds / 60:.0f} min |",
        f"| reconstruction, {len(held):,} held-out pictures | MSE {mse:.5f} per value (training pictures {mse_train:.5f}), BCE {bce:.4f} ({bce - floor:.4f} above the entropy of the pictures) |",
        f"| nearest of the {len(shown):,} catalogue latents keeps the taste | {100 * euclid:.2f} % of held-out pictures ({len(wrong)} wrong); by cosine {100 * cosine:.2f} % |",
        f"| margin | nearest latent of another taste {margin:.2f} times as far as the nearest of the same (median) |",
        f"| files | encoder.onnx {(out / 'encoder.onnx').stat().st_size:,} bytes, decoder.onnx {(out / 'decoder.onnx').stat().st_size:,} bytes |",
        "", "Percent right by taste: " + ", ".join(per_taste) + ".",
        "", "Latents of the catalogue, dimensions 0 to 15:", "", "```",
        "mean " + row(c.mean(0)), "std  " + row(c.std(0)), f"global std {c.std(0).mean():.3f} mean of dimensions, {np.sqrt(c.var(0).mean()):.3f} root mean square", "```",
        "", "SHA-256:", "", "```",
        f"{digest(out / 'encoder.onnx')}  encoder.onnx", f"{digest(out / 'decoder.onnx')}  decoder.onnx", "```",
        "", "Made by the commands at the head of tools/shapes_vae.py with", "", "```",
        f"python tools/shapes_vae.py --data DIR --out eval/shapes/model --epochs {args.epochs} --batch {args.batch} --lr {args.lr:g} --beta {args.beta:g} --seed {args.seed} --threads {args.threads}",
        "```", "", f"torch {torch.__version__.split('+')[0]}. The same seed, threads and processor give the same weights; others give weights alike.", "",
    ]
    (out / "CARD.md").write_text("\n".join(lines))
    print("\n".join(lines))
    for pair in sorted(set(wrong)):
        print("wrong:", *pair, wrong.count(pair), file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the pictures of tools/shapes-render")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--beta", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    encoder, decoder = Encoder(), Decoder()
    for m in (encoder, decoder):
        m.to(memory_format=torch.channels_last)
    seconds = train(args, *load(args.data, "train"), encoder, decoder)
    encoder.eval(), decoder.eval()
    for m in (encoder, decoder):
        m.to(memory_format=torch.contiguous_format)
    export(encoder, torch.zeros(2, 3, SIDE, SIDE), args.out / "encoder.onnx", "image", "mu")
    export(decoder, torch.zeros(2, LATENT), args.out / "decoder.onnx", "z", "image")
    manifest(args.out)
    card(args, args.out, encoder, decoder, seconds)


if __name__ == "__main__":
    main()
