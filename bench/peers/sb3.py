"""Stable-Baselines3's models from longwave's settings: the same names, spelt as they are there. Used by rl.py and rl_results.py."""

import warnings

warnings.filterwarnings("ignore")
import gymnasium
import sb3_contrib
import stable_baselines3
import torch
from sb3_contrib import TRPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

# More threads are slower for networks of this size.
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
policy_names = {"logStdInit": "log_std_init", "orthogonal": "ortho_init", "hidden": "net_arch"}
activations = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}
# These belong to the batch or are treated by themselves; the KL of TRPO is always a mean there.
others = {"numEnvs", "normalizeObservations", "normalizeRewards", "learningRateSchedule", "clipRangeSchedule", "klReduction", "activation"}


def versions():
    return ", ".join(f"{module.__name__} {module.__version__}" for module in (stable_baselines3, sb3_contrib, gymnasium, torch))


def linear(start):
    return lambda remaining: start * remaining


def make_model(algo, env, options, seed=0, schedules=True, env_options=None):
    """schedules: False keeps rates and clip ranges where they begin."""
    unknown = set(options) - set(names) - set(policy_names) - others
    if unknown:
        raise ValueError(f"no name in Stable-Baselines3 for {sorted(unknown)}")
    batch = make_vec_env(env, options.get("numEnvs", 1), seed=seed, env_kwargs=env_options)
    observations, rewards = (options.get(name, False) for name in ("normalizeObservations", "normalizeRewards"))
    if observations or rewards:
        batch = VecNormalize(batch, norm_obs=observations, norm_reward=rewards, gamma=options.get("gamma", 0.99))
    settings = {names[name]: value for name, value in options.items() if name in names}
    for name in ("learningRate", "clipRange"):
        if schedules and options.get(f"{name}Schedule") == "linear":
            default = {"learningRate": 7e-4 if algo == "a2c" else 3e-4, "clipRange": 0.2}[name]
            settings[names[name]] = linear(options.get(name, default))
    policy = {policy_names[name]: value for name, value in options.items() if name in policy_names}
    if "activation" in options:
        policy["activation_fn"] = activations[options["activation"]]
    return classes[algo]("MlpPolicy", batch, device="cpu", seed=seed, verbose=0, policy_kwargs=policy or None, **settings)
