"""Stable-Baselines3's side of rl: the same settings under its own names, in the same kind of batch, one torch thread."""

import resource
import time
import warnings

warnings.filterwarnings("ignore")
import gymnasium
import sb3_contrib
import stable_baselines3
import torch
from sb3_contrib import TRPO
from serve import serve
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

torch.set_num_threads(1)
classes = {"ppo": PPO, "a2c": A2C, "trpo": TRPO}
names = {
    "numSteps": "n_steps",
    "gamma": "gamma",
    "gaeLambda": "gae_lambda",
    "learningRate": "learning_rate",
    "batchSize": "batch_size",
    "numEpochs": "n_epochs",
    "entropyCoefficient": "ent_coef",
    "valueCoefficient": "vf_coef",
    "maxGradNorm": "max_grad_norm",
    "clipRange": "clip_range",
    "targetKl": "target_kl",
    "cgMaxSteps": "cg_max_steps",
    "cgDamping": "cg_damping",
    "numCriticUpdates": "n_critic_updates",
    "useSde": "use_sde",
    "sdeSampleFreq": "sde_sample_freq",
}
# What belongs to the batch, or has no counterpart: schedules stay where they begin.
others = {"numEnvs", "normalizeObservations", "normalizeRewards", "learningRateSchedule", "clipRangeSchedule", "klReduction"}
models = {}


def load(name, algo, env, options):
    unknown = set(options) - set(names) - others
    if unknown:
        raise ValueError(f"no name in Stable-Baselines3 for {sorted(unknown)}")
    batch = make_vec_env(env, options.get("numEnvs", 1), seed=0)
    observations, rewards = (options.get(key, False) for key in ("normalizeObservations", "normalizeRewards"))
    if observations or rewards:
        batch = VecNormalize(batch, norm_obs=observations, norm_reward=rewards, gamma=options["gamma"])
    settings = {names[key]: value for key, value in options.items() if key in names}
    models[name] = classes[algo]("MlpPolicy", batch, device="cpu", seed=0, verbose=0, **settings)
    versions = (stable_baselines3, sb3_contrib, gymnasium, torch)
    return ", ".join(f"{module.__name__} {module.__version__}" for module in versions)


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
