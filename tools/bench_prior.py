"""The PyTorch side of `make bench-prior` and `make bench-sampler`: the same priors as idiomatic PyTorch, timed on request.

    python tools/bench_prior.py prepare           prints the Python of a virtual environment that has torch, made when missing
    python tools/bench_prior.py serve THREADS     answers requests on standard input, see serve

bench/prior and bench/sampler start the second form and ask for one short block of runs after another, so that both sides take turns on one
machine. Each side is written as well as its engine allows: keys and values once per context, one map for all modulations, fused
scaled dot product attention, the fused AdamW, the moving average with one multi-tensor call.
"""

import json
import sys
import time
from pathlib import Path

import environment


def prepare():
    """Returns the interpreter of the environment in the user's cache; installs the requirements when they have changed."""
    return environment.prepare("bench-prior", Path(__file__).with_name("requirements-bench.txt"))


def define():
    """Imports torch and returns the cases by name; apart from prepare, which runs before torch is there."""
    import math

    import torch
    from torch import nn
    from torch.nn import functional as F

    class WindowPrior(nn.Module):
        """The mlp prior: rows of noised embeddings attend to the tokens of their context's window."""

        def __init__(self, dim, hidden, blocks, heads, labels=5, ages=8):
            super().__init__()
            self.heads, self.blocks_count = heads, blocks
            self.token = nn.Sequential(nn.Linear(dim, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden))
            self.classes, self.ages = nn.Embedding(labels, hidden), nn.Embedding(ages, hidden)
            self.label = nn.Embedding(labels, 2 * hidden)
            self.user, self.size = nn.Linear(hidden, 2 * hidden, bias=False), nn.Linear(1, 2 * hidden, bias=False)
            self.time, self.condition = nn.Linear(hidden, 2 * hidden), nn.Linear(2 * hidden, hidden)
            self.modulation = nn.Linear(hidden, (4 * blocks + 2) * hidden)
            self.enter, self.leave = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
            make = lambda *sizes: nn.ModuleList(nn.Linear(*sizes) for _ in range(blocks))
            self.query, self.keyvalue, self.join = make(hidden, hidden), make(hidden, 2 * hidden), make(hidden, hidden)
            self.widen, self.narrow = make(hidden, 4 * hidden), make(4 * hidden, hidden)

        def forward(self, x, time, label, items, classes, ages, mask, share, size):
            contexts, slots, hidden = items.shape[0], items.shape[1], self.enter.out_features
            targets, each = x.shape[0] // contexts, hidden // self.heads
            tokens = self.token(items) + self.classes(classes) + self.ages(ages)
            user = F.layer_norm((share.unsqueeze(1) @ tokens).squeeze(1), (hidden,))
            per_user = (self.user(user) + self.size(size)).repeat_interleave(targets, 0)
            c = F.silu(self.condition(F.silu(self.time(time) + self.label(label) + per_user)))
            mods = self.modulation(c).chunk(4 * self.blocks_count + 2, 1)
            ada = lambda x, i: F.layer_norm(x, (hidden,)) * (1 + mods[i]) + mods[i + 1]
            x = self.enter(x)
            for b in range(self.blocks_count):
                query = self.query[b](ada(x, 4 * b)).view(contexts, targets, self.heads, each).transpose(1, 2)
                key, value = self.keyvalue[b](tokens).view(contexts, slots, 2, self.heads, each).permute(2, 0, 3, 1, 4)
                seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
                x = x + self.join[b](seen.transpose(1, 2).reshape(-1, hidden))
                x = x + self.narrow[b](F.gelu(self.widen[b](ada(x, 4 * b + 2))))
            return self.leave(ada(x, 4 * self.blocks_count))

    class PaperPrior(nn.Module):
        """The published prior: the embedding as 32 tokens, self-attention, gated attention to user, score and time."""

        def __init__(self, dim=1024, tokens=32, hidden=128, blocks=6, heads=8, users=210, fourier=128):
            super().__init__()
            self.tokens, self.heads, self.blocks_count = tokens, heads, blocks
            self.cut, self.enter = nn.Linear(dim, dim), nn.Linear(dim // tokens, hidden)
            self.user, self.score = nn.Embedding(users + 1, hidden), nn.Embedding(3, hidden)
            self.time = nn.Sequential(nn.Linear(2 * fourier, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
            self.condition = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
            self.modulation = nn.Linear(hidden, 6 * blocks * hidden)
            make = lambda *sizes: nn.ModuleList(nn.Linear(*sizes) for _ in range(blocks))
            self.qkv, self.join = make(hidden, 3 * hidden), make(hidden, hidden)
            self.query, self.keyvalue, self.cross = make(hidden, hidden), make(hidden, 2 * hidden), make(hidden, hidden)
            self.gate = nn.Parameter(torch.full((blocks,), .1))
            self.widen, self.narrow = make(hidden, 4 * hidden), make(4 * hidden, hidden)
            self.head, self.leave, self.paste = nn.Linear(hidden, hidden), nn.Linear(hidden, dim // tokens), nn.Linear(dim, dim)
            self.register_buffer("frequencies", torch.exp(torch.linspace(0, math.log(10000), fourier)))

        def attend(self, query, key, value):
            split = lambda y: y.view(y.shape[0], y.shape[1], self.heads, -1).transpose(1, 2)
            y = F.scaled_dot_product_attention(split(query), split(key), split(value))
            return y.transpose(1, 2).reshape(query.shape)

        def forward(self, x, t, user, score):
            batch, hidden = x.shape[0], self.enter.out_features
            angle = t.float().unsqueeze(1) * self.frequencies
            time = self.time(torch.cat([angle.sin(), angle.cos()], 1))
            condition = torch.stack([self.user(user), self.score(score), time], 1)
            mods = self.modulation(self.condition(condition.mean(1))).unsqueeze(1).chunk(6 * self.blocks_count, 2)
            ada = lambda x, i: F.layer_norm(x, (hidden,)) * (1 + mods[i]) + mods[i + 1]
            x = self.enter(self.cut(x).view(batch, self.tokens, -1))
            for b in range(self.blocks_count):
                x = x + self.join[b](self.attend(*self.qkv[b](ada(x, 6 * b)).chunk(3, 2)))
                h = ada(x, 6 * b + 2)
                x = h + self.gate[b] * self.cross[b](self.attend(self.query[b](h), *self.keyvalue[b](condition).chunk(2, 2)))
                x = x + self.narrow[b](F.gelu(self.widen[b](ada(x, 6 * b + 4))))
            return self.paste(self.leave(self.head(x)).reshape(batch, -1))

    class Training:
        """AdamW, clip and moving average around a loss."""

        def __init__(self, model, loss, mode):
            self.parameters = list(model.parameters())
            self.average = [p.detach().clone() for p in self.parameters]
            self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=1e-4, fused=True)
            self.loss = torch.compile(loss) if mode == "compile" else loss

        def __call__(self):
            self.optimizer.zero_grad(set_to_none=True)
            self.loss().backward()
            nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
            self.optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 0.001)

    # Signal and noise of the cosine schedule at each of 1,000 timesteps; the schedule's formula does not matter for time.
    angles = (torch.arange(1001) / 1000 * .99 * math.pi / 2).unsqueeze(1)
    signal, noise = angles.cos(), angles.sin()

    def window_step(mode, dim=16, hidden=96, blocks=3, heads=4, contexts=64, entries=48, targets=4):
        model = WindowPrior(dim, hidden, blocks, heads)
        z, items = torch.randn(contexts * targets, dim), torch.randn(contexts, entries + 1, dim)
        label, classes = torch.randint(0, 5, (contexts * targets,)), torch.randint(0, 5, (contexts, entries + 1))
        ages = torch.randint(0, 8, (contexts, entries + 1))
        mask, size = torch.zeros(contexts, 1, 1, entries + 1), torch.full((contexts, 1), math.log1p(entries))
        share = torch.full((contexts, entries + 1), 1 / (entries + 1))
        angle = torch.arange(1001).unsqueeze(1) * 10000 ** -(torch.arange(hidden // 2) / (hidden // 2))
        features = torch.cat([angle.sin(), angle.cos()], 1)

        def loss():
            t = torch.randint(1, 1001, (contexts * targets,))
            x = signal[t] * z + noise[t] * torch.randn_like(z)
            return F.mse_loss(model(x, features[t], label, items, classes, ages, mask, share, size), z)

        return Training(model, loss, mode)

    def paper_inputs(batch):
        return torch.randn(batch, 1024), torch.randint(0, 211, (batch,)), torch.randint(0, 3, (batch,))

    def train_step(mode, batch=64):
        model = PaperPrior()
        z, user, score = paper_inputs(batch)

        def loss():
            t = torch.randint(1, 1001, (batch,))
            x = signal[t] * z + noise[t] * torch.randn_like(z)
            return F.mse_loss(model(x, t, user, score), z)

        return Training(model, loss, mode)

    def forward(batch):
        def case(mode):
            model = PaperPrior().eval().requires_grad_(False)
            if mode == "compile":
                model = torch.compile(model)
            x, user, score = paper_inputs(batch)
            t = torch.full((batch,), 500)

            def run():
                with torch.inference_mode():
                    model(x, t, user, score)

            return run

        return case

    def ancestral_step(mode, batch=25, guidance=5.0):
        """A step of the published sampler: 25 samples of one user, two passes one after the other, no clipping."""
        model = PaperPrior().eval().requires_grad_(False)
        if mode == "compile":
            model = torch.compile(model)
        bars = torch.cat([signal[:1], signal[1:]]).flatten() ** 2
        user, nobody = torch.full((batch,), 7), torch.full((batch,), 210)
        like, none = torch.full((batch,), 1), torch.full((batch,), 2)
        state = {"x": torch.randn(batch, 1024), "t": 1000}

        def run():
            with torch.inference_mode():
                x, t = state["x"], state["t"]
                at = torch.full((batch,), t)
                null = model(x, at, nobody, none)
                x0 = null + guidance * (model(x, at, user, like) - null)
                before, beta = bars[t - 1], 1 - bars[t] / bars[t - 1]
                x = (before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - before) * x) / (1 - bars[t])
                if t > 1:
                    x = x + (beta * (1 - before) / (1 - bars[t])).sqrt() * torch.randn_like(x)
                state.update(x=x, t=t - 1) if t > 1 else state.update(x=torch.randn(batch, 1024), t=1000)

        return run

    cases = {
        "window_step": window_step, "train_step": train_step, "forward1": forward(1), "forward64": forward(64), "ancestral_step": ancestral_step,
    }
    return torch, cases


def serve(threads):
    """Reads requests, one JSON object a line, and answers each by one line.

    {"case": "window_step", "mode": "eager" or "compile", "runs": 10} is answered by {"ms": [a number per run]}. The first request
    of a case in a mode builds and compiles it and makes three runs that are not counted. The first line written tells the version.
    """
    torch, cases = define()
    torch.set_num_threads(threads)
    ready = {}
    answer = lambda **fields: print(json.dumps(fields), flush=True)
    answer(torch=torch.__version__.split("+")[0], threads=torch.get_num_threads())
    for line in sys.stdin:
        request = json.loads(line)
        key = (request["case"], request["mode"])
        if key not in ready:
            torch.manual_seed(1)
            ready[key] = cases[key[0]](key[1])
            for _ in range(3):
                ready[key]()
        times = []
        for _ in range(request["runs"]):
            start = time.perf_counter()
            ready[key]()
            times.append((time.perf_counter() - start) * 1e3)
        answer(ms=times)


if __name__ == "__main__":
    if sys.argv[1:] == ["prepare"]:
        print(prepare())
    elif len(sys.argv) == 3 and sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        sys.exit("usage: bench_prior.py prepare | serve THREADS")
