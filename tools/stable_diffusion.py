"""Stable Diffusion 1.5 with IP-Adapter as the ONNX files and the manifest that rebeca decodes with (docs/decoders.md).

    python tools/stable_diffusion.py export MODEL ADAPTER OUT    from weights that diffusers loads; --help lists the rest
    python tools/stable_diffusion.py fixtures SIZE OUT           from random weights, with the pictures that diffusers makes of them;
                                                                 small (testdata), full (all levels), real (14 GB of memory, minutes)
    python tools/stable_diffusion.py cost                        parameters and FLOPs of the real size, without any weights

The graphs take and give float32 alone. Their inputs and outputs have fixed names, which sampler/stablediffusion lists; shapes are fixed
but for the batch of the U-Net and of the projection. What a graph can do itself it does: the VAE's scale, the safety checker's resizing
and its thresholds.
"""

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

warnings.filterwarnings("ignore")

OPSET = 18
MANIFEST = "manifest.json"


# --- The graphs --------------------------------------------------------------------------------------------------------------------


class Projection(nn.Module):
    """A CLIP embedding to image tokens."""

    def __init__(self, unet):
        super().__init__()
        self.inner = unet.encoder_hid_proj

    def forward(self, embedding):
        return self.inner([embedding.unsqueeze(1)])[0].squeeze(1)


class Tokens(nn.Module):
    """Stands in for the projection inside the U-Net: the tokens come from outside."""

    def forward(self, tokens):
        return tokens


class Noise(nn.Module):
    """The U-Net; the scale of the image tokens' attention is an input."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, sample, timestep, text, tokens, image_scale):
        for processor in self.unet.attn_processors.values():
            if hasattr(processor, "to_k_ip"):
                processor.scale = [image_scale]
        given = {"image_embeds": [tokens.unsqueeze(1)]}
        text = text.expand(sample.shape[0], -1, -1)
        return self.unet(sample, timestep, encoder_hidden_states=text, added_cond_kwargs=given, return_dict=False)[0]


class Pixels(nn.Module):
    """A latent of the U-Net's scale to pixels in -1..1."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, latent):
        return self.vae.decode(latent / self.vae.config.scaling_factor, return_dict=False)[0]


class States(nn.Module):
    """Token ids, as floats, to the states that the U-Net attends to."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, ids):
        return self.encoder(ids.long())[0]


class Concern(nn.Module):
    """CLIP's input to the largest of the checker's scores, in thousandths; above 0 a picture is withheld."""

    def __init__(self, checker):
        super().__init__()
        self.checker = checker

    def forward(self, pixels):
        c = self.checker
        seen = nn.functional.normalize(c.visual_projection(c.vision_model(pixels)[1]))
        cosine = lambda concepts: seen @ nn.functional.normalize(concepts).t()
        special = torch.round((cosine(c.special_care_embeds) - c.special_care_embeds_weights) * 1000)
        adjustment = (special > 0).any(1, keepdim=True) * 10.0
        scores = torch.round((cosine(c.concept_embeds) - c.concept_embeds_weights) * 1000 + adjustment)
        return scores.amax(1)


def write(module, path, inputs, outputs, free=()):
    """Exports a module; inputs is a dict of examples, free the names with a free first dimension."""
    with torch.no_grad(), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        raw = Path(folder) / path.name
        torch.onnx.export(module.eval(), tuple(inputs.values()), str(raw), dynamo=False, opset_version=OPSET, do_constant_folding=True,
                          input_names=list(inputs), output_names=outputs, dynamic_axes={name: {0: "batch"} for name in free})
        save(onnx.load(raw), path)


def save(model, path):
    """One file, or above what protobuf can hold one more beside it for the weights."""
    for node in model.graph.node:
        node.doc_string = ""
    data = path.name + ".data"
    (path.parent / data).unlink(missing_ok=True)
    if sum(len(t.raw_data) for t in model.graph.initializer) > 1_900_000_000:
        onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data, size_threshold=1024)
    else:
        onnx.save(model, path)


def write_checker(checker, extractor, height, width, path):
    """The safety checker from the picture, values in 0..1: CLIP's own preprocessing is part of the graph."""
    shortest, crop = extractor.size["shortest_edge"], (extractor.crop_size["height"], extractor.crop_size["width"])
    size = (shortest, int(shortest * width / height)) if height <= width else (int(shortest * height / width), shortest)
    top, left = (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2
    write(Concern(checker), path, {"pixels": torch.zeros(1, 3, *crop)}, ["concern"])
    network = onnx.load(path)
    channel = lambda name, values: helper.make_tensor(name, TensorProto.FLOAT, [1, 3, 1, 1], values)
    number = lambda name, value: helper.make_tensor(name, TensorProto.FLOAT, [], [value])
    row = lambda name, values: helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
    nodes = [
        ("Clip", ["image", "zero", "one"], "clipped", {}),
        ("Mul", ["clipped", "levels"], "scaled", {}),
        ("Round", ["scaled"], "bytes", {}),
        ("Resize", ["bytes", "", "", "size"], "resized", {"mode": "cubic", "cubic_coeff_a": -0.5, "antialias": 1, "exclude_outside": 1}),
        ("Round", ["resized"], "rounded", {}),
        ("Clip", ["rounded", "zero", "levels"], "whole", {}),
        ("Slice", ["whole", "from", "to", "axes"], "cropped", {}),
        ("Div", ["cropped", "levels"], "unit", {}),
        ("Sub", ["unit", "mean"], "centred", {}),
        ("Div", ["centred", "std"], "prepared", {}),
    ]
    before = helper.make_graph(
        [helper.make_node(op, ins, [out], **more) for op, ins, out, more in nodes], "preprocessing",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info("prepared", TensorProto.FLOAT, [1, 3, *crop])],
        [number("zero", 0), number("one", 1), number("levels", 255), row("size", [1, 3, *size]), row("from", [top, left]),
         row("to", [top + crop[0], left + crop[1]]), row("axes", [2, 3]), channel("mean", extractor.image_mean), channel("std", extractor.image_std)])
    before = helper.make_model(before, opset_imports=network.opset_import, ir_version=network.ir_version)
    before = onnx.compose.add_prefix(before, "before/", rename_inputs=False, rename_outputs=False)
    save(onnx.compose.merge_models(before, network, [("prepared", "pixels")]), path)


# --- A pipeline to files -----------------------------------------------------------------------------------------------------------


def scheduler_of(config, kind, steps):
    """The manifest's words for a diffusers scheduler config."""
    if config.get("prediction_type", "epsilon") != "epsilon":
        sys.exit(f"the model predicts {config['prediction_type']}; epsilon is what sd15-ip-adapter is")
    if config.get("trained_betas") is not None or config["beta_schedule"] not in ("linear", "scaled_linear"):
        sys.exit(f"the noise schedule {config['beta_schedule']} is not linear or scaled_linear")
    return {
        "kind": kind, "steps": steps, "timesteps": config["num_train_timesteps"], "beta_schedule": config["beta_schedule"],
        "beta_start": config["beta_start"], "beta_end": config["beta_end"], "spacing": config.get("timestep_spacing", "leading"),
        "steps_offset": config.get("steps_offset", 0), "final_alpha_one": bool(config.get("set_alpha_to_one", False)),
    }


def empty_prompt(pipe):
    ids = pipe.tokenizer("", padding="max_length", max_length=pipe.tokenizer.model_max_length, truncation=True).input_ids
    with torch.no_grad():
        return ids, pipe.text_encoder(torch.tensor([ids]))[0]


def export(pipe, out, name, height, width, kind="pndm", steps=50, guidance=5.0, scale=1.0, text_encoder=False):
    """Writes the files of a pipeline with its IP-Adapter loaded, and their manifest. The pipeline cannot be used afterwards."""
    out.mkdir(parents=True, exist_ok=True)
    unet, vae = pipe.unet, pipe.vae
    dim = unet.encoder_hid_proj.image_projection_layers[0].image_embeds.in_features
    channels, h, w = unet.config.in_channels, height // pipe.vae_scale_factor, width // pipe.vae_scale_factor
    ids, states = empty_prompt(pipe)
    files = {"image_projection": "image_projection.onnx", "unet": "unet.onnx", "vae_decoder": "vae_decoder.onnx"}
    manifest = {
        "kind": "sd15-ip-adapter", "width": width, "height": height, "latent": [channels, h, w], "text": list(states.shape[1:]),
        "guidance": guidance, "image_scale": scale, "scheduler": scheduler_of(pipe.scheduler.config, kind, steps), "files": files,
    }
    projection = Projection(unet)
    with torch.no_grad():
        tokens = projection(torch.zeros(2, dim))
    manifest["tokens"] = list(tokens.shape[1:])
    write(projection, out / files["image_projection"], {"embedding": torch.zeros(2, dim)}, ["tokens"], ["embedding", "tokens"])
    unet.encoder_hid_proj = Tokens()
    inputs = {"sample": torch.zeros(2, channels, h, w), "timestep": torch.tensor([500.0]), "text": states, "tokens": tokens,
              "image_scale": torch.tensor([scale])}
    write(Noise(unet), out / files["unet"], inputs, ["noise"], ["sample", "tokens", "noise"])
    write(Pixels(vae), out / files["vae_decoder"], {"latent": torch.zeros(1, channels, h, w)}, ["image"])
    if text_encoder:
        files["text_encoder"], manifest["prompt"] = "text_encoder.onnx", ids
        write(States(pipe.text_encoder), out / files["text_encoder"], {"ids": torch.tensor([ids], dtype=torch.float32)}, ["states"])
    else:
        files["text_states"] = "text_states.f32"
        (out / files["text_states"]).write_bytes(states.numpy().astype("<f4").tobytes())
    if pipe.safety_checker is not None:
        files["safety_checker"] = "safety_checker.onnx"
        write_checker(pipe.safety_checker, pipe.feature_extractor, height, width, out / files["safety_checker"])
    (out / MANIFEST).write_text(json.dumps({"format": 1, "name": name, "dim": dim, "stable_diffusion": manifest}, indent=2) + "\n")


def export_command(a):
    from diffusers import StableDiffusionPipeline

    folder, _, weight = a.adapter.rpartition("/")
    place = (a.adapter_repository, folder) if a.adapter_repository else (folder or ".", "")
    pipe = StableDiffusionPipeline.from_pretrained(a.model, torch_dtype=torch.float32)
    pipe.load_ip_adapter(place[0], subfolder=place[1], weight_name=weight, image_encoder_folder=None)
    if a.no_safety_checker:
        pipe.safety_checker = None
    export(pipe, Path(a.out), a.name, a.height, a.width, a.scheduler, a.steps, a.guidance, a.image_scale, a.text_encoder)


# --- Random weights ----------------------------------------------------------------------------------------------------------------

# Of Stable Diffusion 1.5, but for the text encoder and the safety checker, whose depth does not matter here.
REAL = dict(
    unet=dict(block_out_channels=(320, 640, 1280, 1280), layers_per_block=2, norm_num_groups=32, attention_head_dim=8),
    vae=dict(block_out_channels=(128, 256, 512, 512), layers_per_block=2, norm_num_groups=32), cross=768, dim=1024, side=512, words=77,
    text=dict(hidden_size=768, intermediate_size=64, num_hidden_layers=1, num_attention_heads=12), vocab=4,
    vision=dict(hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4, image_size=224, patch_size=14),
    concepts=32,
)
SIZES = {
    "small": dict(
        unet=dict(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=2,
                  down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")),
        vae=dict(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4), cross=12, dim=6, side=16, words=5,
        text=dict(hidden_size=12, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2), vocab=4,
        vision=dict(hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=12, patch_size=6),
        concepts=8,
    ),
    "full": dict(
        unet=dict(block_out_channels=(32, 64, 64, 64), layers_per_block=2, norm_num_groups=8, attention_head_dim=4),
        vae=dict(block_out_channels=(16, 32, 32, 32), layers_per_block=2, norm_num_groups=8), cross=64, dim=1024, side=128, words=77,
        text=dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4), vocab=4,
        vision=dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=224, patch_size=14),
        concepts=32,
    ),
    "real": REAL,
}
SD15 = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, steps_offset=1)


def make_unet(size):
    from diffusers import UNet2DConditionModel

    # The ladder of blocks, where size does not say, is that of the class, which is Stable Diffusion 1.5's.
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=size["cross"], **size["unet"])


def make_vae(size):
    from diffusers import AutoencoderKL

    blocks = len(size["vae"]["block_out_channels"])
    return AutoencoderKL(latent_channels=4, scaling_factor=0.18215, down_block_types=("DownEncoderBlock2D",) * blocks,
                         up_block_types=("UpDecoderBlock2D",) * blocks, **size["vae"])


def adapter_weights(unet, dim, tokens=4):
    """An IP-Adapter's state dict for a U-Net, drawn at random."""
    cross = unet.config.cross_attention_dim
    draw = lambda rows, columns: torch.randn(rows, columns) / columns**0.5
    projection = {"proj.weight": draw(tokens * cross, dim), "proj.bias": 0.1 * torch.randn(tokens * cross),
                  "norm.weight": 1 + 0.1 * torch.randn(cross), "norm.bias": 0.1 * torch.randn(cross)}
    attention, number = {}, 1
    for name in unet.attn_processors:
        if name.endswith("attn1.processor"):
            continue
        hidden = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for part in ("to_k_ip", "to_v_ip"):
            attention[f"{number}.{part}.weight"] = 2 * draw(hidden, cross)
        number += 2
    return {"image_proj": projection, "ip_adapter": attention}


def make_pipeline(size):
    """A pipeline with random weights, every part of it. Cross-attention is made loud, so that a picture depends on its inputs."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import (CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig,
                              CLIPVisionModelWithProjection)

    unet, vae = make_unet(size), make_vae(size)
    with torch.no_grad():
        for name, p in unet.named_parameters():
            if "attn2" in name or "time_emb" in name:
                p.mul_(2)
    end = size["vocab"] - 1
    text = CLIPTextModel(CLIPTextConfig(vocab_size=size["vocab"], max_position_embeddings=size["words"], bos_token_id=end - 1, eos_token_id=end,
                                        pad_token_id=end, **size["text"]))
    vision = size["vision"]
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(projection_dim=size["dim"], **vision))
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=dict(vision, projection_dim=size["concepts"]), projection_dim=size["concepts"]))
    with torch.no_grad():
        for p in (checker.concept_embeds, checker.special_care_embeds):
            p.copy_(torch.randn_like(p))
        checker.concept_embeds_weights.fill_(0.6)
        checker.special_care_embeds_weights.fill_(0.5)
    tokenizer = CLIPTokenizer(vocab={"a</w>": 0, "<|startoftext|>": end - 1, "<|endoftext|>": end}, model_max_length=size["words"])
    side = vision["image_size"]
    extractor = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    pipe = StableDiffusionPipeline(vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet,
                                   scheduler=PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=False, **SD15), safety_checker=checker,
                                   feature_extractor=extractor, image_encoder=encoder)
    for part in (unet, vae, text, encoder, checker):
        part.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


# --- Pictures to hold the Go pipeline against --------------------------------------------------------------------------------------

CASES = [
    # name, scheduler, steps, guidance, scale of the image tokens, what differs from Stable Diffusion 1.5's noise schedule
    ("pndm", "pndm", 10, 5, 1, {}),
    ("pndm of 1 step", "pndm", 1, 5, 1, {}),
    ("pndm of 2 steps", "pndm", 2, 5, 1, {}),
    ("pndm of 3 steps, trailing", "pndm", 3, 7.5, 1, {"timestep_spacing": "trailing"}),
    ("pndm of 7 steps, linspace", "pndm", 7, 2, 1, {"timestep_spacing": "linspace"}),
    ("pndm without guidance", "pndm", 5, 1, 1, {"set_alpha_to_one": True}),
    ("ddim", "ddim", 8, 5, 1, {}),
    ("ddim of 3 steps, trailing", "ddim", 3, 5, 0.4, {"timestep_spacing": "trailing"}),
    ("ddim, linspace, linear", "ddim", 5, 5, 1, {"timestep_spacing": "linspace", "beta_schedule": "linear", "set_alpha_to_one": True}),
    ("dpm++2m", "dpm++2m", 8, 5, 1, {}),
    ("dpm++2m of 1 step", "dpm++2m", 1, 5, 1, {}),
    ("dpm++2m of 2 steps, linspace", "dpm++2m", 2, 5, 1, {"timestep_spacing": "linspace"}),
    ("dpm++2m of 20 steps, trailing", "dpm++2m", 20, 7.5, 0.7, {"timestep_spacing": "trailing"}),
    ("dpm++2m without guidance", "dpm++2m", 6, 1, 1, {"steps_offset": 0}),
]


def make_scheduler(kind, more):
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler

    config = {"timestep_spacing": "leading", "set_alpha_to_one": False, **SD15, **more}
    if kind == "pndm":
        return PNDMScheduler(skip_prk_steps=True, **config)
    if kind == "ddim":
        return DDIMScheduler(clip_sample=False, **config)
    config.pop("set_alpha_to_one")
    return DPMSolverMultistepScheduler(**config)


def draw(pipe, side, case, embedding, image=None):
    """What StableDiffusionPipeline makes of one embedding, or of one image by its own encoder; values in 0..1 [3, side, side]."""
    name, kind, steps, guidance, scale, more = case
    pipe.scheduler = make_scheduler(kind, more)
    pipe.set_ip_adapter_scale(scale)
    down = side // pipe.vae_scale_factor
    noise = torch.randn(1, pipe.unet.config.in_channels, down, down)
    if image is None:
        given = embedding[None, None]
        if guidance > 1:
            given = torch.cat([torch.zeros_like(given), given])
        given = {"ip_adapter_image_embeds": [given]}
    else:
        given = {"ip_adapter_image": image}
    out = pipe(prompt="", negative_prompt="", height=side, width=side, num_inference_steps=steps, guidance_scale=guidance, latents=noise,
               output_type="pt", **given)
    scheduler = scheduler_of(pipe.scheduler.config, kind, steps)
    return noise[0], out.images[0], {"name": name, "scheduler": scheduler, "guidance": guidance, "image_scale": scale}


def flat(tensor):
    return [float(f"{v:.7g}") for v in tensor.flatten().tolist()]


def judge(pipe, pictures):
    """The safety checker's view of each picture: its scores, as Concern gives them, and whether diffusers withholds it."""
    from diffusers.image_processor import VaeImageProcessor

    checker, care, concern = pipe.safety_checker, [], []
    pil = [VaeImageProcessor.numpy_to_pil(p.permute(1, 2, 0).numpy())[0] for p in pictures]
    seen = pipe.feature_extractor(pil, return_tensors="pt").pixel_values
    embeds = nn.functional.normalize(checker.visual_projection(checker.vision_model(seen)[1]))
    middle = lambda v: (lambda at: (v[at] + v[at + 1]) / 2)(int((v[1:] - v[:-1])[2:-2].argmax()) + 2)
    split = lambda concepts: middle((embeds @ nn.functional.normalize(concepts).t()).amax(1).sort().values)
    with torch.no_grad():  # so that the checker says yes to some and no to others, each with the widest margin
        checker.special_care_embeds_weights.fill_(split(checker.special_care_embeds))
        checker.concept_embeds_weights.fill_(split(checker.concept_embeds))
        return Concern(checker)(seen).tolist(), checker(seen, [p.clone() for p in pictures])[1]


ADAPTER = "adapter.safetensors"


def fixtures(size_name, out):
    """The export is that of the weights as they are found on a disk, so that it is held against diffusers too."""
    with tempfile.TemporaryDirectory() as folder:
        fixtures_by_way_of(Path(folder), size_name, out)


def fixtures_by_way_of(folder, size_name, out):
    from safetensors.torch import save_file

    size, side = SIZES[size_name], SIZES[size_name]["side"]
    torch.manual_seed(15)
    pipe = make_pipeline(size)
    weights = adapter_weights(pipe.unet, size["dim"])
    save_file({f"{part}.{name}": t.contiguous() for part, tensors in weights.items() for name, t in tensors.items()}, folder / ADAPTER)
    pipe.load_ip_adapter(str(folder), subfolder="", weight_name=ADAPTER, image_encoder_folder=None)
    checker, pipe.safety_checker = pipe.safety_checker, None  # judged below, once there is something to judge
    cases, pictures, few = [], [], size is REAL  # minutes each, of one or two steps
    for number, case in enumerate(CASES if not few else [c for c in CASES if c[2] <= 2 and c[0] != "dpm++2m of 1 step"]):
        image, embedding = None, torch.randn(size["dim"])
        if number == 0 and not few:
            from PIL import Image

            image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8))
            with torch.no_grad():
                embedding = pipe.image_encoder(pipe.feature_extractor(image, return_tensors="pt").pixel_values).image_embeds[0]
        noise, picture, record = draw(pipe, side, case, embedding, image)
        pictures.append(picture)
        cases.append({**record, "embedding": flat(embedding), "noise": flat(noise), "image": flat(picture)})
    pipe.scheduler = make_scheduler("pndm", {})
    if not few:
        pipe.register_modules(safety_checker=checker)
        for case, concern, withheld in zip(cases, *judge(pipe, pictures)):
            case.update(concern=concern, withheld=bool(withheld))
    out.mkdir(parents=True, exist_ok=True)
    _, states = empty_prompt(pipe)
    (out / "references.json").write_text(json.dumps({"text_states": flat(states), "cases": cases}, separators=(",", ":")) + "\n")
    pipe.unload_ip_adapter()
    pipe.save_pretrained(folder)
    wanted = ["export", "--name", "tiny", "--width", str(side), "--height", str(side), str(folder), str(folder / ADAPTER), str(out)]
    for more in [], ["--text-encoder"]:  # the second leaves the states of the first beside its own manifest
        command(wanted + more)


# --- What the real size costs ------------------------------------------------------------------------------------------------------


def cost():
    """Parameters and FLOPs (a multiplication and an addition are two) of each part, from the classes, on no device."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import CLIPVisionConfig, CLIPVisionModel

    with torch.device("meta"):
        unet, vae = make_unet(REAL), make_vae(REAL)
        tower = CLIPVisionModel(CLIPVisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14))
        text = torch.empty(1, REAL["words"] + 4, REAL["cross"])  # the image tokens beside it
        counts = {}
        for name, module, run in [
            ("U-Net, one row", unet, lambda: unet(torch.empty(1, 4, 64, 64), torch.empty(1), text)),
            ("safety checker, ViT-L/14", tower, lambda: tower(torch.empty(1, 3, 224, 224))),
            ("VAE decoder", vae.decoder, lambda: vae.decoder(torch.empty(1, 4, 64, 64))),
        ]:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                run()
            counts[name] = (sum(p.numel() for p in module.parameters()), counter.get_total_flops())
    for name, (parameters, flops) in counts.items():
        print(f"{name}: {parameters / 1e6:.0f} M parameters, {flops / 1e12:.3f} TFLOP")


def command(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    e = commands.add_parser("export", help="weights that diffusers loads to ONNX files and a manifest")
    e.add_argument("model", help="folder or hub id of a Stable Diffusion 1.5")
    e.add_argument("adapter", help="path of an IP-Adapter's weights, such as models/ip-adapter_sd15.safetensors")
    e.add_argument("out", help="folder for the files")
    e.add_argument("--name", default="sd15-ip-adapter")
    e.add_argument("--adapter-repository", default="", help="hub id that the adapter's path is in; empty: a file here")
    e.add_argument("--scheduler", choices=["pndm", "ddim", "dpm++2m"], default="pndm")
    e.add_argument("--steps", type=int, default=50)
    e.add_argument("--guidance", type=float, default=5.0)
    e.add_argument("--image-scale", type=float, default=1.0)
    e.add_argument("--width", type=int, default=512)
    e.add_argument("--height", type=int, default=512)
    e.add_argument("--text-encoder", action="store_true", help="export the text encoder too, in place of the empty prompt's states")
    e.add_argument("--no-safety-checker", action="store_true")
    e.set_defaults(run=export_command)
    f = commands.add_parser("fixtures", help="random weights and the pictures that diffusers makes of them")
    f.add_argument("size", choices=list(SIZES))
    f.add_argument("out")
    f.set_defaults(run=lambda a: fixtures(a.size, Path(a.out)))
    commands.add_parser("cost", help="parameters and FLOPs of the real size").set_defaults(run=lambda a: cost())
    a = parser.parse_args(arguments)
    a.run(a)


if __name__ == "__main__":
    command(sys.argv[1:])
