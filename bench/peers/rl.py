"""Stable-Baselines3's side of rl: the same settings, in the same kind of batch, one torch thread."""

import resource
import time

from sb3 import make_model, versions
from serve import serve

models = {}


def load(name, algo, env, options):
    models[name] = make_model(algo, env, options, schedules=False)
    return versions()


def sample(name, steps):
    model = models[name]
    before = model.num_timesteps
    used, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    # The number is added to the steps so far.
    model.learn(steps, reset_num_timesteps=False)
    ms = (time.perf_counter() - start) * 1000
    now = resource.getrusage(resource.RUSAGE_SELF)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    returns = [episode["r"] for episode in model.ep_info_buffer]
    mean = sum(returns) / len(returns) if returns else 0.0
    return {"ms": ms, "cpuMs": cpu * 1000, "steps": model.num_timesteps - before, "meanReturn": mean}


serve({"load": load, "sample": sample})
