"""The priors in PyTorch, written from their description (arXiv 2502.18477; prior/*.go), to hold the Go engine against.

Reference and Simulation are modules whose state dicts `rebeca prior import` reads: their attribute names are the names in that
file. mlp and transformer are functions of a dict of tensors under the names and in the shapes of a rebeca checkpoint, where a map is
x @ weight + bias.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

CLASSES = 4  # of entries; labels have one more, 0, the null label
AGES = 6


# --- The published prior -----------------------------------------------------------------------------------------------------------


def ada_norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-5)


class Modulation(nn.Module):
    """layernorm(x)·(1 + scale(c)) + shift(c), starting as the identity."""

    def __init__(self, hidden):
        super().__init__()
        self.scale, self.shift = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        for part in (self.scale, self.shift):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)

    def forward(self, x, c):
        return ada_norm(x) * (1 + self.scale(c).unsqueeze(1)) + self.shift(c).unsqueeze(1)


class GatedCrossAttention(nn.Module):
    """Returns its own input plus what it saw, so the residual stream continues from the normalized input."""

    def __init__(self, hidden, heads):
        super().__init__()
        self.attn = nn.MultiheadAttention(hidden, heads, batch_first=True)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x, condition):
        return x + self.gate * self.attn(x, condition, condition, need_weights=False)[0]


class Block(nn.Module):
    def __init__(self, hidden, heads):
        super().__init__()
        self.ada1, self.ada2, self.ada3 = Modulation(hidden), Modulation(hidden), Modulation(hidden)
        self.self_attn = nn.MultiheadAttention(hidden, heads, batch_first=True)
        self.cross = GatedCrossAttention(hidden, heads)
        self.mlp = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))
        nn.init.zeros_(self.mlp[2].weight)
        nn.init.zeros_(self.mlp[2].bias)

    def forward(self, x, c, condition):
        h = self.ada1(x, c)
        x = x + self.self_attn(h, h, h, need_weights=False)[0]
        x = self.cross(self.ada2(x, c), condition)
        return x + self.mlp(self.ada3(x, c))


class Tokenizer(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.to_tokens, self.from_tokens = nn.Linear(dim, dim), nn.Linear(dim, dim)


class Reference(nn.Module):
    """x [B, dim], t [B] from 0, user [B] with `users` for nobody, score [B]: 0 dislike, 1 like, 2 none."""

    def __init__(self, dim, tokens, hidden, blocks, heads, users):
        super().__init__()
        self.tokens = tokens
        self.tok = Tokenizer(dim)
        self.in_proj = nn.Linear(dim // tokens, hidden)
        self.user_emb, self.score_emb = nn.Embedding(users + 1, hidden), nn.Embedding(3, hidden)
        self.t_embed = nn.Sequential(nn.Linear(256, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.cond_mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.blocks = nn.ModuleList(Block(hidden, heads) for _ in range(blocks))
        self.head, self.out_proj = nn.Linear(hidden, hidden), nn.Linear(hidden, dim // tokens)

    def forward(self, x, t, user, score):
        frequencies = torch.exp(torch.linspace(math.log(1.0), math.log(10000.0), 128))
        angle = t.float().unsqueeze(1) * frequencies
        time = self.t_embed(torch.cat([angle.sin(), angle.cos()], 1))
        condition = torch.stack([self.user_emb(user), self.score_emb(score), time], 1)
        c = self.cond_mlp(condition.mean(1))
        y = self.in_proj(self.tok.to_tokens(x).view(len(x), self.tokens, -1))
        for block in self.blocks:
            y = block(y, c, condition)
        return self.tok.from_tokens(self.out_proj(self.head(y)).flatten(1))


# --- The published prior of the synthetic study ------------------------------------------------------------------------------------


class Affine(nn.Module):
    """A batch normalization folded to scale and shift."""

    def __init__(self, norm):
        super().__init__()
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        self.weight, self.bias = nn.Parameter(scale.detach()), nn.Parameter((norm.bias - scale * norm.running_mean).detach())

    def forward(self, x):
        return x * self.weight + self.bias


class ResBlock(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.fc1, self.bn1 = nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden)
        self.fc2, self.bn2 = nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden)

    def forward(self, x):
        return F.gelu(x + self.bn2(self.fc2(F.gelu(self.bn1(self.fc1(x))))))


class Simulation(nn.Module):
    """x [B, dim], t [B] from 0, user [B], score [B]: 0 dislike, 1 like."""

    def __init__(self, dim, hidden, blocks, users):
        super().__init__()
        self.user_emb, self.score_emb = nn.Embedding(users, dim), nn.Embedding(2, dim)
        self.fc_in, self.bn_in = nn.Linear(3 * dim + 100, hidden), nn.BatchNorm1d(hidden)
        self.blocks = nn.ModuleList(ResBlock(hidden) for _ in range(blocks))
        self.fc_out = nn.Linear(hidden, dim)

    def forward(self, x, t, user, score):
        frequencies = torch.exp(torch.arange(50) * (-math.log(10000.0) / 49))
        angle = t.float().unsqueeze(1) * frequencies
        y = torch.cat([x, self.user_emb(user), angle.sin(), angle.cos(), self.score_emb(score)], 1)
        y = F.gelu(self.bn_in(self.fc_in(y)))
        for block in self.blocks:
            y = block(y)
        return x + self.fc_out(y)

    def fold(self):
        """Replaces the norms by their inference form; they are then two parameters each and nothing else."""
        self.bn_in = Affine(self.bn_in)
        for block in self.blocks:
            block.bn1, block.bn2 = Affine(block.bn1), Affine(block.bn2)


# --- The priors that read windows --------------------------------------------------------------------------------------------------


def linear(w, name, x):
    return x @ w[name + ".weight"] + w[name + ".bias"]


def waves(t, width):
    """Sines, then cosines, of t/10000^(i/half)."""
    angle = t.double().unsqueeze(1) * 10000.0 ** (-torch.arange(width // 2).double() / (width // 2))
    return torch.cat([angle.sin(), angle.cos()], 1).float()


def age(rank):
    return min(rank.bit_length(), AGES - 1)


def marks(classes, older):
    """Rows of 0 and 1 [C, 1+K, 12] for classes [C, K], 0 where there is no entry, and marks of older likes."""
    contexts, entries = classes.shape
    out = torch.zeros(contexts, 1 + entries, CLASSES + AGES + 2)
    out[:, 0, -1] = 1
    for c in range(contexts):
        rank = 0
        for k in range(entries):
            if not classes[c, k]:
                continue
            out[c, k + 1, classes[c, k] - 1] = 1
            if older[c, k]:
                out[c, k + 1, CLASSES + AGES] = 1
            else:
                out[c, k + 1, CLASSES + age(rank)] = 1
                rank += 1
    return out


def history(w, window):
    """Tokens [C, S, H], which of them are there [C, S], user embeddings [C, H] and ln(1 + entries) [C, 1]."""
    there = torch.cat([torch.ones(len(window["classes"]), 1, dtype=torch.bool), window["classes"] > 0], 1)
    items = F.pad(window["items"], (0, 0, 1, 0))  # the null token has no item
    tokens = linear(w, "token.out", F.gelu(linear(w, "token.in", items))) + window["marks"] @ w["token.mark"]
    weight = there.float() / there.sum(1, keepdim=True)
    mean = (weight.unsqueeze(2) * tokens).sum(1)
    return tokens, there, ada_norm(mean), torch.log(there.sum(1, keepdim=True).float())


def mlp(w, config, x, t, label, window):
    hidden, blocks, targets = config["hidden"], config["blocks"], config["targets"]
    tokens, there, user, size = history(w, window)
    features = torch.cat([waves(t, hidden), F.one_hot(label, CLASSES + 1).float()], 1)
    of_user = user @ w["condition.user.weight"] + size @ w["condition.size.weight"]
    c = F.silu(linear(w, "condition.in", features) + of_user.repeat_interleave(targets, 0))
    mods = linear(w, "modulation", F.silu(linear(w, "condition.out", c))).split(hidden, 1)
    ada = lambda y, i: ada_norm(y) * (1 + mods[i]) + mods[i + 1]
    y = linear(w, "in", x)
    for b in range(blocks):
        p = f"block.{b}."
        q = torch.einsum("rh,nhd->rnd", ada(y, 4 * b), w[p + "query.weight"]) + w[p + "query.bias"].squeeze(1)
        key = torch.einsum("csh,ndh->cnsd", tokens, w[p + "key.weight"])
        value = torch.einsum("csh,nhd->cnsd", tokens, w[p + "value.weight"])
        q = q.unflatten(0, (-1, targets)).transpose(1, 2)
        seen = F.scaled_dot_product_attention(q, key, value, attn_mask=there[:, None, None])
        y = y + torch.einsum("cntd,ndh->cth", seen, w[p + "attention.weight"]).flatten(0, 1) + w[p + "attention.bias"]
        y = y + linear(w, p + "mlp.out", F.gelu(linear(w, p + "mlp.in", ada(y, 4 * b + 2))))
    return linear(w, "out", ada(y, 4 * blocks))


def transformer(w, config, x, t, label, window):
    hidden, blocks, heads, parts = config["hidden"], config["blocks"], config["heads"], config["tokens"]
    tokens, there, user, size = history(w, window)
    row = torch.arange(len(x)) // config["targets"]  # the context of each row
    label = F.one_hot(label, CLASSES + 1).float() @ w["label.weight"]
    time = linear(w, "time.out", F.silu(linear(w, "time.in", waves(t, hidden))))
    own = linear(w, "user", user)
    c = (label + time + (own + size * w["size.weight"])[row]) / 3
    c = F.silu(linear(w, "condition.out", F.silu(linear(w, "condition.in", c))))
    mods = linear(w, "modulation", c).unsqueeze(1).split(hidden, 2)
    ada = lambda y, i: ada_norm(y) * (1 + mods[i]) + mods[i + 1]
    # What each row attends to: the user, the window, the label and the time.
    condition = torch.cat([own[row].unsqueeze(1), tokens[row], label.unsqueeze(1), time.unsqueeze(1)], 1)
    visible = F.pad(F.pad(there[row], (1, 0), value=True), (0, 2), value=True)[:, None, None]
    memory = linear(w, "memory", condition).split(hidden, 2)
    split = lambda y: y.unflatten(2, (heads, -1)).transpose(1, 2)
    join = lambda y: y.transpose(1, 2).flatten(2)
    y = linear(w, "in.token", linear(w, "in.whole", x).view(len(x), parts, -1)) + w["in.position"]
    for b in range(blocks):
        p = f"block.{b}."
        q, k, v = linear(w, p + "self.in", ada(y, 6 * b)).split(hidden, 2)
        y = y + linear(w, p + "self.out", join(F.scaled_dot_product_attention(split(q), split(k), split(v))))
        q = split(linear(w, p + "cross.query", ada(y, 6 * b + 2)))
        seen = F.scaled_dot_product_attention(q, split(memory[2 * b]), split(memory[2 * b + 1]), attn_mask=visible)
        y = y + w[p + "cross.gate"] * linear(w, p + "cross.out", join(seen))
        y = y + linear(w, p + "mlp.out", F.gelu(linear(w, p + "mlp.in", ada(y, 6 * b + 4))))
    return linear(w, "out.whole", linear(w, "out.token", ada(y, 6 * blocks)).flatten(1))


def layout(kind, config):
    """Names and shapes of a rebeca checkpoint's parameters."""
    dim, h, blocks, heads = config["dim"], config["hidden"], config["blocks"], config["heads"]
    out = {}

    def add_linear(name, inputs, outputs):
        out[name + ".weight"], out[name + ".bias"] = (inputs, outputs), (outputs,)

    add_linear("token.in", dim, 2 * h)
    add_linear("token.out", 2 * h, h)
    out["token.mark"] = (CLASSES + AGES + 2, h)
    if kind == "mlp":
        out["condition.user.weight"], out["condition.size.weight"] = (h, 2 * h), (1, 2 * h)
        add_linear("condition.in", h + CLASSES + 1, 2 * h)
        add_linear("condition.out", 2 * h, h)
        add_linear("modulation", h, (4 * blocks + 2) * h)
        add_linear("in", dim, h)
        add_linear("out", h, dim)
        for b in range(blocks):
            p, d = f"block.{b}.", h // heads
            out[p + "query.weight"], out[p + "query.bias"] = (heads, h, d), (heads, 1, d)
            out[p + "key.weight"], out[p + "value.weight"] = (heads, d, h), (heads, h, d)
            out[p + "attention.weight"], out[p + "attention.bias"] = (heads, d, h), (h,)
            add_linear(p + "mlp.in", h, 4 * h)
            add_linear(p + "mlp.out", 4 * h, h)
        return out
    part = dim // config["tokens"]
    out["size.weight"], out["label.weight"], out["in.position"] = (1, h), (CLASSES + 1, h), (config["tokens"], h)
    for name in ("user", "time.in", "time.out", "condition.in", "condition.out"):
        add_linear(name, h, h)
    add_linear("modulation", h, (6 * blocks + 2) * h)
    add_linear("memory", h, 2 * blocks * h)
    for name, inputs, outputs in (("in.whole", dim, dim), ("in.token", part, h), ("out.token", h, part), ("out.whole", dim, dim)):
        add_linear(name, inputs, outputs)
    for b in range(blocks):
        p = f"block.{b}."
        for name, inputs, outputs in (
            ("self.in", h, 3 * h), ("self.out", h, h), ("cross.query", h, h), ("cross.out", h, h),
            ("mlp.in", h, 4 * h), ("mlp.out", 4 * h, h),
        ):
            add_linear(p + name, inputs, outputs)
        out[p + "cross.gate"] = (1,)
    return out
