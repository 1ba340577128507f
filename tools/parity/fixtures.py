"""Writes fixtures that hold the Go engine against PyTorch: weights, inputs, outputs, gradients, and weights after 20 training steps.

    python tools/parity/fixtures.py small DIR     sizes for prior/testdata, which `make test` reads without Python
    python tools/parity/fixtures.py full DIR      the sizes in use, for `make test-parity`

One safetensors file per kind of prior. Its __metadata__ holds the configuration as rebeca's JSON. Tensors, float32:

    params.*  the weights before training: of mlp and transformer under the names of a rebeca checkpoint, of reference and simulation
              the state dict that `rebeca prior import` reads; folded.* the simulation's with its norms folded
    items, classes, older | users    contexts [C, K, D], [C, K] (0 for no entry), [C, K], or rows of the table [C], -1 for nobody
    z, labels                        targets [R, D] and their classes [R]; R/C rows for each context
    noise, times                     [20, R, D] and [20, R], timesteps from 1
    prediction, loss, norm, grad.*   of the first step: [R, D], [20], [20] (of every step, before clipping), by parameter
    after.*, ema.*                   weights and moving average after 20 steps
    every.x, every.prediction        of reference and simulation: prediction at all timesteps from 1 on [1000, D] for x [8, D], row
                                     (t-1) mod 8, with users, scores every.users, every.labels [1000]
    chain.noise, chain.z             of reference: noise [T+1, D] of ancestral sampling for user 0 who likes, and the sample [D]
"""

import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import torch

import models

STEPS, RATE, DECAY = 20, 1e-3, 1e-4
LIKE = 1  # the class


def save(path, tensors, metadata):
    """Writes float32 safetensors."""
    header, body, end = {"__metadata__": metadata}, [], 0
    for name, t in tensors.items():
        data = t.detach().to(torch.float32).contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [end, end + len(data)]}
        body.append(data)
        end += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(body))


def alpha_bars(schedule, steps):
    """ᾱ at 0..T in float64; 1 at 0."""
    if schedule == "cosine":
        f = lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        return np.array([min(max(f(t / steps) / f(0), 1e-8), 1) for t in range(steps + 1)])

    def root(u):
        lam = -0.5 * np.sign(0.5 - u) * math.log(1 - 2 * abs(0.5 - u) + 1e-6)
        return math.sqrt(math.exp(lam) / (1 + math.exp(lam)))

    beta = [min(1 - root((i + 1) / steps) / root(i / steps), 0.999) for i in range(steps)]
    return np.cumprod([1.0] + [1 - b for b in beta])


def noised(config, z, noise, t):
    """x, the goal and the weight of each row, in float64 rounded once."""
    loss = config["loss"]
    bar = torch.from_numpy(alpha_bars(loss["schedule"], config["timesteps"])[t.numpy()]).unsqueeze(1)
    alpha, sigma, z, noise = bar.sqrt(), (1 - bar).sqrt(), z.double(), noise.double()
    goal = {"x0": z, "epsilon": noise, "v": alpha * noise - sigma * z}[loss["objective"]]
    weight = torch.ones_like(bar)
    if loss["weighting"] == "min_snr":
        snr = bar / (1 - bar)
        top = {"x0": snr + 1, "epsilon": snr, "v": snr + 1}[loss["objective"]].clamp(max=loss["gamma"])
        weight = top / {"x0": 1, "epsilon": snr, "v": snr + 1}[loss["objective"]]
    return (alpha * z + sigma * noise).float(), goal.float(), weight.float()


def train(config, parameters, predict, data):
    """Takes the steps and returns the tensors that tell of them. predict maps x and t to predictions."""
    out, losses, norms = {}, [], []
    average = {name: p.detach().clone() for name, p in parameters.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=DECAY)
    for step in range(STEPS):
        t = data["times"][step]
        x, goal, weight = noised(config, data["z"], data["noise"][step], t)
        prediction = predict(x, t)
        loss = (weight * (prediction - goal) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            out["prediction"] = prediction.detach().clone()
            out.update({"grad." + name: p.grad.clone() for name, p in parameters.items()})
        losses.append(loss.item())
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0).item())
        optimizer.step()
        decay = min(0.999, (2 + step) / (11 + step))
        with torch.no_grad():
            for name, p in parameters.items():
                average[name].lerp_(p, 1 - decay)
    out["loss"], out["norm"] = torch.tensor(losses), torch.tensor(norms)
    out.update({"after." + name: p for name, p in parameters.items()})
    out.update({"ema." + name: p for name, p in average.items()})
    return out


def targets(config):
    rows = config["contexts"] * config["targets"]
    return {
        "z": torch.randn(rows, config["dim"]),
        "noise": torch.randn(STEPS, rows, config["dim"]),
        "times": torch.randint(1, config["timesteps"] + 1, (STEPS, rows)),
    }


def window_fixture(config, path):
    """mlp or transformer."""
    kind, rows = config["kind"], config["contexts"] * config["targets"]
    w = {}
    for name, shape in models.layout(kind, config).items():
        spread = 0.1 if len(shape) == 1 else shape[-2] ** -0.5
        w[name] = (spread * torch.randn(shape)).requires_grad_()
    data = targets(config)
    data["labels"] = torch.randint(0, models.CLASSES + 1, (rows,))
    entries = config["max_tokens"]
    data["items"] = torch.randn(config["contexts"], entries, config["dim"])
    data["classes"] = torch.randint(1, models.CLASSES + 1, (config["contexts"], entries))
    data["older"] = torch.randint(0, 4, (config["contexts"], entries)) // 3
    for c in range(config["contexts"]):  # from none to all
        data["classes"][c, round(c * entries / max(config["contexts"] - 1, 1)) :] = 0
    data["items"][data["classes"] == 0] = 0
    window = dict(data, marks=models.marks(data["classes"], data["older"]))
    network = getattr(models, kind)
    out = {"params." + name: p.detach().clone() for name, p in w.items()}
    out.update(data)
    out.update(train(config, w, lambda x, t: network(w, config, x, t, data["labels"], window), data))
    save(path, out, {"config": json.dumps(config)})


def scores(labels):
    """Scores of the published priors for classes: likes are 1, dislikes 0, none is 2."""
    return torch.tensor([2, 1, 1, 0, 0])[labels]


def blur(model, spread):
    """Moves every parameter, so that none is at a special value."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(spread * torch.randn_like(p))


def every(model, config, users, labels):
    """Predictions at every timestep, for x that repeat."""
    steps = config["timesteps"]
    x, t = torch.randn(8, config["dim"]), torch.arange(steps)
    with torch.no_grad():
        parts = [model(x[p % 8], p, users[p], scores(labels[p])) for p in t.split(100)]
    shown = users.clone()
    shown[shown == config["users"]] = -1
    return {"every.x": x, "every.prediction": torch.cat(parts), "every.users": shown, "every.labels": labels}


def reference_fixture(config, path):
    model = models.Reference(*(config[k] for k in ("dim", "tokens", "hidden", "blocks", "heads", "users")))
    blur(model, 0.3 / math.sqrt(config["hidden"]))
    out = {"params." + name: p.clone() for name, p in model.state_dict().items()}
    steps, rows = config["timesteps"], config["contexts"] * config["targets"]
    users, labels = torch.randint(0, config["users"] + 1, (steps,)), torch.randint(0, models.CLASSES + 1, (steps,))
    users[::7], labels[::11] = config["users"], 0
    out.update(every(model, config, users, labels))
    out.update(chain(model, config))
    data = targets(config)
    data["labels"] = torch.randint(0, models.CLASSES + 1, (rows,))
    who = torch.randint(0, config["users"] + 1, (config["contexts"],))
    who[0] = config["users"]
    data["users"] = torch.where(who == config["users"], -1, who)
    out.update(data)
    row = torch.arange(rows) // config["targets"]
    predict = lambda x, t: model(x, t - 1, who[row], scores(data["labels"]))
    out.update(train(config, dict(model.named_parameters()), predict, data))
    save(path, out, {"config": json.dumps(config)})


def chain(model, config):
    """Ancestral sampling (DDPM, fixed_small, x0, no clipping, guidance 5) under squaredcos_cap_v2."""
    steps, guidance = config["timesteps"], 5.0
    f = lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = np.array([min(1 - f((i + 1) / steps) / f(i / steps), 0.999) for i in range(steps)])
    bar = np.cumprod(1 - beta)
    noise = torch.randn(steps + 1, config["dim"])
    x = noise[steps : steps + 1].double()
    users, labels = torch.tensor([0, config["users"]]), torch.tensor([1, 2])
    for t in reversed(range(steps)):
        with torch.no_grad():
            known, nobody = model(x.float().expand(2, -1), torch.tensor([t, t]), users, labels).double().split(1)
        estimate = nobody + guidance * (known - nobody)
        before = bar[t - 1] if t else 1.0
        x = math.sqrt(before) * beta[t] / (1 - bar[t]) * estimate + math.sqrt(1 - beta[t]) * (1 - before) / (1 - bar[t]) * x
        if t:
            x = x + math.sqrt(max((1 - before) / (1 - bar[t]) * beta[t], 1e-20)) * noise[t].double()
    return {"chain.noise": noise, "chain.z": x[0]}


def simulation_fixture(config, path):
    model = models.Simulation(*(config[k] for k in ("dim", "hidden", "blocks", "users"))).eval()
    blur(model, 0.3 / math.sqrt(config["hidden"]))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 2)
    out = {"params." + name: p.clone() for name, p in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    steps, rows = config["timesteps"], config["contexts"] * config["targets"]
    out.update(every(model, config, torch.randint(0, config["users"], (steps,)), torch.randint(1, models.CLASSES + 1, (steps,))))
    model.fold()
    out.update({"folded." + name: p.clone() for name, p in model.state_dict().items()})
    data = targets(config)
    data["labels"] = torch.randint(1, models.CLASSES + 1, (rows,))
    data["users"] = torch.randint(0, config["users"], (config["contexts"],))
    out.update(data)
    row = torch.arange(rows) // config["targets"]
    predict = lambda x, t: model(x, t - 1, data["users"][row], scores(data["labels"]))
    out.update(train(config, dict(model.named_parameters()), predict, data))
    save(path, out, {"config": json.dumps(config)})


X0 = {"objective": "x0", "schedule": "cosine", "time_sampling": "uniform", "weighting": "none"}
V = {"objective": "v", "schedule": "cosine", "time_sampling": "uniform", "weighting": "min_snr", "gamma": 5}
EPSILON = dict(X0, objective="epsilon", schedule="laplace")


def config(kind, dim, hidden, blocks, heads, max_tokens, contexts, targets, loss, **more):
    return dict(kind=kind, dim=dim, hidden=hidden, blocks=blocks, heads=heads, max_tokens=max_tokens, contexts=contexts,
                targets=targets, timesteps=1000, loss=loss, **more)


SIZES = {
    "small": [
        config("mlp", 6, 8, 2, 2, 5, 4, 2, V),
        config("transformer", 6, 8, 2, 2, 5, 4, 2, X0, tokens=3),
        config("reference", 6, 8, 2, 2, 1, 4, 2, X0, tokens=3, users=5),
        config("simulation", 4, 16, 2, 1, 1, 8, 1, EPSILON, users=4),
    ],
    "full": [
        config("mlp", 16, 96, 3, 4, 52, 64, 4, X0),
        config("transformer", 1024, 128, 6, 8, 52, 16, 4, X0, tokens=32),
        config("reference", 1024, 128, 6, 8, 1, 64, 1, X0, tokens=32, users=210),
        config("simulation", 16, 512, 2, 1, 1, 64, 1, EPSILON, users=4),
    ],
}


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in SIZES:
        sys.exit(__doc__)
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for number, c in enumerate(SIZES[sys.argv[1]]):
        torch.manual_seed(number)
        write = {"reference": reference_fixture, "simulation": simulation_fixture}.get(c["kind"], window_fixture)
        write(c, folder / f"{c['kind']}.safetensors")
        print(f"{c['kind']}.safetensors", (folder / f"{c['kind']}.safetensors").stat().st_size, file=sys.stderr)


if __name__ == "__main__":
    main()
