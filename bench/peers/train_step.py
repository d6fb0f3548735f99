"""PyTorch's side of train-step: the same GPT from the same weights, eager with SDPA and fused AdamW, compiled, or under bf16 autocast."""

import contextlib
import os
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from serve import serve

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
state = {}


def forward(p, ids, labels, heads, layers):
    batch, length = ids.shape
    norm = lambda x, name: F.layer_norm(x, x.shape[-1:], p[name + ".scale"], p[name + ".bias"], 1e-5)
    linear = lambda x, name: F.linear(x, p[name + ".weight"], p[name + ".bias"])
    x = p["embedding.tokens"][ids] + p["embedding.positions"][:length]
    for layer in range(layers):
        at = f"layers.{layer}."
        q, k, v = linear(norm(x, at + "attentionNorm"), at + "attention.qkv").chunk(3, -1)
        split = lambda t: t.view(batch, length, heads, -1).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(split(q), split(k), split(v), is_causal=True)
        x = x + linear(mixed.transpose(1, 2).reshape(batch, length, -1), at + "attention.output")
        inner = F.gelu(linear(norm(x, at + "mlpNorm"), at + "mlp.up"), approximate="tanh")
        x = x + linear(inner, at + "mlp.down")
    logits = F.linear(norm(x, "norm"), p["embedding.tokens"])
    return F.cross_entropy(logits.view(-1, logits.shape[-1]), labels.reshape(-1))


def start():
    """Fresh weights and moments."""
    s = state["settings"]
    parameters = {name: value.clone().requires_grad_() for name, value in state["weights"].items()}
    decayed = [value for name, value in parameters.items() if value.dim() >= 2 and name != "embedding.positions"]
    plain = [value for name, value in parameters.items() if value.dim() < 2 or name == "embedding.positions"]
    groups = [{"params": decayed, "weight_decay": s["weightDecay"]}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=s["learningRate"], betas=(s["beta1"], s["beta2"]), eps=s["epsilon"], fused=True)
    return parameters, optimizer


def load(weights, ids, batch, time, heads, layers, **settings):
    sequence = torch.tensor(ids).view(batch, time + 1)
    state.update(weights=load_file(weights), ids=sequence[:, :-1].contiguous(), labels=sequence[:, 1:].contiguous())
    state.update(heads=heads, layers=layers, settings=settings, runs={})
    return torch.__version__


def one_step(mode):
    if mode not in state["runs"]:
        function = torch.compile(forward) if mode == "compiled" else forward
        state["runs"][mode] = (*start(), function)
    parameters, optimizer, function = state["runs"][mode]
    cast = torch.autocast("cpu", torch.bfloat16) if mode == "bf16" else contextlib.nullcontext()
    with cast:
        loss = function(parameters, state["ids"], state["labels"], state["heads"], state["layers"])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters.values(), state["settings"]["maxNorm"])
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def step(mode, steps):
    start = time.perf_counter()
    for _ in range(steps):
        one_step(mode)
    return (time.perf_counter() - start) * 1000 / steps


serve({"load": load, "losses": lambda steps: [one_step("fp32") for _ in range(steps)], "step": step})
