"""PyTorch's side of fisher-vector-product: the gradient of the KL is built once and kept; each product differentiates it again."""

import os
import time

import torch
from serve import serve

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
problems = {}


def load(batch, widths, policy, observations, vector):
    shapes = [shape for i in range(3) for shape in ((widths[i + 1], widths[i]), (widths[i + 1],))] + [(widths[-1],)]
    flat, parameters = torch.tensor(policy), []
    for shape in shapes:
        count = torch.Size(shape).numel()
        parameters.append(flat[:count].view(shape).clone().requires_grad_())
        flat = flat[count:]
    x = torch.tensor(observations).view(batch, widths[0])
    for i in range(3):
        x = torch.nn.functional.linear(x, parameters[2 * i], parameters[2 * i + 1])
        x = torch.tanh(x) if i < 2 else x
    log_std = parameters[-1]
    # KL(old || new) of diagonal Gaussians, summed over actions, averaged over the batch, at old = new.
    old_mean, old_log_std = x.detach(), log_std.detach()
    kl = log_std - old_log_std + ((2 * old_log_std).exp() + (old_mean - x) ** 2) / (2 * (2 * log_std).exp()) - 0.5
    gradient = torch.autograd.grad(kl.sum(-1).mean(), parameters, create_graph=True)
    flat_gradient = torch.cat([g.reshape(-1) for g in gradient])
    problems[batch] = (parameters, flat_gradient, torch.tensor(vector))
    return product(batch).tolist()


def product(batch):
    parameters, gradient, vector = problems[batch]
    result = torch.autograd.grad(gradient @ vector, parameters, retain_graph=True)
    return torch.cat([g.reshape(-1) for g in result])


def sample(batch, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        product(batch)
    return (time.perf_counter() - start) * 1000 / repeats


serve({"load": load, "sample": sample})
