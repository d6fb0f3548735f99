"""The quickstart in PyTorch: the same decoder, optimiser and schedule on the same batches, written without longwave.

Reads a folder that quickstart-twin.mjs wrote: settings.json, batches.safetensors, validation.safetensors, and model/ (config.json and
model.safetensors of a Hugging Face Llama: sizes, and with --same-start the initial weights). Prints one JSON line a step, and a last one.
"""

import argparse
import json
import math
import os
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


def initial_weights(c, seed):
    """Normal weights of standard deviation 0.02; matrices that write to the residual stream have it divided by sqrt(2 layers)."""
    generator = torch.Generator().manual_seed(seed)
    residual = 0.02 / math.sqrt(2 * c["num_hidden_layers"])
    matrix = lambda rows, columns, std=0.02: torch.randn(rows, columns, generator=generator) * std
    width, inner, vocabulary = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    weights = {"model.embed_tokens.weight": matrix(vocabulary, width), "model.norm.weight": torch.ones(width)}
    for layer in range(c["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj"):
            weights[f"{at}self_attn.{name}.weight"] = matrix(width, width)
        weights[at + "self_attn.o_proj.weight"] = matrix(width, width, residual)
        weights[at + "mlp.gate_proj.weight"] = matrix(inner, width)
        weights[at + "mlp.up_proj.weight"] = matrix(inner, width)
        weights[at + "mlp.down_proj.weight"] = matrix(width, inner, residual)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[at + name + ".weight"] = torch.ones(width)
    return weights


def rotary_tables(c, length):
    """Cosines and sines [T, D]; feature i is rotated with feature i + D/2."""
    width = c["hidden_size"] // c["num_attention_heads"]
    frequencies = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies).repeat(1, 2)
    return angles.cos().float(), angles.sin().float()


def rotate(x, cosines, sines):
    low, high = x.chunk(2, -1)
    return x * cosines + torch.cat((-high, low), -1) * sines


def log_probabilities(p, c, tables, ids, targets):
    """log p of every target, [B, T]."""
    batch, length = ids.shape
    norm = lambda x, name: F.rms_norm(x, x.shape[-1:], p[name + ".weight"], 1e-5)
    linear = lambda x, name: F.linear(x, p[name + ".weight"])
    split = lambda x: x.view(batch, length, c["num_attention_heads"], -1).transpose(1, 2)
    x = p["model.embed_tokens.weight"][ids]
    for layer in range(c["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        normed = norm(x, at + "input_layernorm")
        q, k, v = (split(linear(normed, f"{at}self_attn.{name}_proj")) for name in "qkv")
        mixed = F.scaled_dot_product_attention(rotate(q, *tables), rotate(k, *tables), v, is_causal=True)
        x = x + linear(mixed.transpose(1, 2).reshape(batch, length, -1), at + "self_attn.o_proj")
        normed = norm(x, at + "post_attention_layernorm")
        x = x + linear(F.silu(linear(normed, at + "mlp.gate_proj")) * linear(normed, at + "mlp.up_proj"), at + "mlp.down_proj")
    logits = F.linear(norm(x, "model.norm"), p["model.embed_tokens.weight"])
    return -F.cross_entropy(logits.flatten(0, 1), targets.flatten().long(), reduction="none").view(batch, length)


def orthogonalised(gradient, coefficients, steps, epsilon):
    """What torch.optim.Muon does in bfloat16, for which most CPUs have no products, in float32: as fast as it can be here, and comparable."""
    a, b, c = coefficients
    x = gradient.T if gradient.size(0) > gradient.size(1) else gradient
    x = x / x.norm().clamp(min=epsilon)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if gradient.size(0) > gradient.size(1) else x


torch.optim._muon._zeropower_via_newtonschulz = orthogonalised


def learning_rate(step, steps, base, warmup, floor):
    """Linear warm-up whose first step is base / warmup, then half a cosine that reaches floor * base on the last step."""
    if step < warmup:
        return base * (step + 1) / max(1, warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup + 1) / max(1, steps - warmup)))
    return base * (floor + (1 - floor) * max(0.0, cosine))


def weighted_loss(log_probs, weights):
    return -(log_probs * weights).sum() / weights.sum()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--same-start", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    path = lambda *names: os.path.join(arguments.folder, *names)
    with open(path("settings.json")) as file:
        s = json.load(file)
    with open(path("model", "config.json")) as file:
        c = json.load(file)
    batches, validation = load_file(path("batches.safetensors")), load_file(path("validation.safetensors"))
    weights = load_file(path("model", "model.safetensors"))
    if not arguments.same_start:
        own = initial_weights(c, arguments.seed)
        assert {n: w.shape for n, w in own.items()} == {n: w.shape for n, w in weights.items()}, "the models differ in their parameters"
        weights = own
    p = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    tables = rotary_tables(c, batches["inputs"].shape[-1])

    embedding = p["model.embed_tokens.weight"]
    adamw = {"betas": (s["beta1"], s["beta2"]), "eps": s["epsilon"], "fused": True}
    optimizers = [
        torch.optim.Muon(
            [w for w in p.values() if w.dim() == 2 and w is not embedding],
            lr=s["learningRate"],
            weight_decay=s["muonWeightDecay"],
            momentum=s["momentum"],
            nesterov=s["nesterov"],
            adjust_lr_fn="original",
        ),
        torch.optim.AdamW(
            [{"params": [embedding], "weight_decay": s["weightDecay"]}, {"params": [w for w in p.values() if w.dim() == 1], "weight_decay": 0.0}],
            lr=s["learningRate"],
            **adamw,
        ),
    ]
    seconds = 0.0
    for step in range(s["steps"]):
        start = time.perf_counter()
        log_probs = log_probabilities(p, c, tables, batches["inputs"][step], batches["targets"][step])
        loss = weighted_loss(log_probs, batches["weights"][step])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(p.values(), s["maxGradientNorm"])
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, s["steps"], s["learningRate"], s["warmupSteps"], s["minRatio"])
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seconds += time.perf_counter() - start
        print(json.dumps({"step": step, "loss": loss.item(), "gradientNorm": norm.item()}), flush=True)

    total, count = 0.0, 0.0
    with torch.no_grad():
        for inputs, targets, mask in zip(*(validation[name].split(s["batchSize"]) for name in ("inputs", "targets", "weights"))):
            total -= (log_probabilities(p, c, tables, inputs, targets) * mask).double().sum().item()
            count += mask.double().sum().item()
    print(json.dumps({"validation": total / count, "tokens": count, "seconds": seconds, "torch": torch.__version__}), flush=True)


main()
