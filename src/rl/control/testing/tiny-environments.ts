// Environments that are learned in a second, with known answers.
import type { Environment } from "../environment.ts";
import { Box, Discrete, MultiBinary, MultiDiscrete } from "../spaces.ts";
import { timeLimit } from "../wrappers/time-limit.ts";

/** Reward 1 for ever, whatever is done; four states in a circle; only a time limit ends an episode. Its value is 1 / (1 − γ). */
export function endless(limit = 8): Environment {
  let state = 0;
  const environment: Environment = {
    observationSpace: Discrete(4),
    actionSpace: Discrete(4),
    reset: () => (state = 0),
    step: () => ({ observation: (state = (state + 1) % 4), reward: 1, terminated: false, truncated: false }),
    saveState: () => ({ state }),
    restoreState: (saved) => {
      state = Number(saved.state);
    },
  };
  return timeLimit(environment, limit);
}

export type TinyKind = "discrete" | "box" | "multi-discrete" | "multi-binary" | "masked";

/**
 * One step an episode: the observation is a sign, ±1; the action that fits it has reward 1, the opposite one 0, those of a Box in between.
 * Its own random numbers are part of its state.
 */
export function signs(kind: TinyKind, { start = 0 }: { start?: number } = {}): Environment {
  let counter = 1;
  const observation = new Float32Array(1);
  const next = (): Float32Array => {
    counter = (Math.imul(counter, 1103515245) + 12345) >>> 0;
    observation[0] = (counter >>> 16) & 1 ? 1 : -1;
    return observation;
  };
  const rewardOf = (action: unknown): number => {
    const wanted = observation[0] > 0 ? 1 : 0;
    switch (kind) {
      case "discrete":
      case "masked":
        return (action as number) - start === wanted ? 1 : 0;
      case "box":
        return 1 - Math.abs((action as ArrayLike<number>)[0] - observation[0]) / 4;
      default:
        return Array.from(action as ArrayLike<number>).filter((value) => value === wanted).length / 2;
    }
  };
  return {
    observationSpace: Box(-1, 1, [1]),
    actionSpace:
      kind === "box"
        ? Box(-2, 2, [1])
        : kind === "multi-discrete"
          ? MultiDiscrete([2, 3])
          : kind === "multi-binary"
            ? MultiBinary(2)
            : Discrete(kind === "masked" ? 3 : 2, start),
    reset({ seed } = {}) {
      if (seed !== undefined) counter = (seed % 2 ** 31) + 1;
      return next();
    },
    step(action) {
      const reward = rewardOf(action);
      return { observation: next(), reward, terminated: true, truncated: false };
    },
    // The third action is never allowed; the environment's batch refuses it.
    ...(kind === "masked" ? { actionMask: () => [1, 1, 0] } : {}),
    saveState: () => ({ counter, sign: observation[0] }),
    restoreState: (saved) => {
      counter = Number(saved.counter);
      observation[0] = Number(saved.sign);
    },
  };
}
