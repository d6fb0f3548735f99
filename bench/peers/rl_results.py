"""One training run with Stable-Baselines3, for scripts/control-results.mjs --peer: a JSON object comes in, another goes out."""

import json
import resource
import sys
import time

import numpy as np
from sb3 import make_model, versions
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

points = 40


class Curve(BaseCallback):
    """[steps, mean return of the last 100 episodes] at the end of rollouts."""

    def __init__(self, total):
        super().__init__()
        self.every, self.next, self.points = total / points, 0, []

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        returns = [episode["r"] for episode in self.model.ep_info_buffer]
        if returns and self.num_timesteps >= self.next:
            self.next = self.num_timesteps + self.every
            self.points.append([self.num_timesteps, round(float(np.mean(returns)), 2)])


def evaluate(model, env, env_options, episodes, seed):
    """Every environment plays its share: the first episodes to end would be the short ones."""
    batch = make_vec_env(env, 10, seed=seed, env_kwargs=env_options)
    trained = model.get_vec_normalize_env()
    if trained is not None:
        normalised = VecNormalize(batch, training=False, norm_obs=trained.norm_obs, norm_reward=False)
        normalised.obs_rms = trained.obs_rms
        batch = normalised
    left, results, observations = [episodes // 10] * 10, [], batch.reset()
    while any(left):
        actions, _ = model.predict(observations, deterministic=True)
        observations, _, dones, infos = batch.step(actions)
        for i in np.flatnonzero(dones):
            if left[i] > 0:
                left[i] -= 1
                results.append((infos[i]["episode"]["r"], infos[i]["episode"]["l"]))
    return results


job = json.load(sys.stdin)
env_options = job["environment"] or None
model = make_model(job["algo"], job["env"], job["options"], seed=job["seed"], env_options=env_options)
curve = Curve(job["steps"])
start, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
model.learn(job["steps"], callback=curve)
now = resource.getrusage(resource.RUSAGE_SELF)
seconds = time.perf_counter() - start
episodes = evaluate(model, job["env"], env_options, job["episodes"], job["evaluationSeed"])
returns = [float(r) for r, _ in episodes]
json.dump(
    {
        "steps": model.num_timesteps,
        "evaluation": {
            "episodes": len(returns),
            "mean": round(float(np.mean(returns)), 2),
            "std": round(float(np.std(returns)), 2),
            "length": round(float(np.mean([length for _, length in episodes])), 1),
        },
        "trainingReturn": curve.points[-1][1] if curve.points else None,
        "curve": curve.points,
        "seconds": round(seconds, 1),
        "cpuSeconds": round(now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime, 1),
        "versions": versions(),
    },
    sys.stdout,
)
