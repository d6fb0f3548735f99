// Small environments with known results, and ones that misbehave; also imported by worker threads of tests.
import type { Environment } from "../environment.ts";
import { Box, Discrete } from "../spaces.ts";

export interface CounterOptions {
  /** Steps of an episode; default 3. */
  length?: number;
  /** What goes wrong, at which step of the episode, and in which environment. */
  fault?: { kind: "throw" | "exit" | "nan" | "sleep"; step: number; index: number };
  /** Milliseconds that each step takes. */
  delay?: number;
}

/** Observes [index, seed, steps of the episode]; the reward is the action; ends after `length` steps, by truncation in odd rows. */
export function counter(index: number, { length = 3, fault, delay = 0 }: CounterOptions = {}): Environment {
  const observation = new Float32Array(3);
  observation[0] = index;
  const pause = (milliseconds: number): void => {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
  };
  return {
    observationSpace: Box(Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, [3]),
    actionSpace: Discrete(4),
    reset({ seed } = {}) {
      if (seed !== undefined) observation[1] = seed;
      observation[2] = 0;
      return observation;
    },
    step(action) {
      observation[2]++;
      const isFaulty = fault?.index === index && fault.step === observation[2];
      if (isFaulty && fault.kind === "throw") throw new RangeError("the wheel came off");
      if (isFaulty && fault.kind === "exit") process.exit(7);
      if (isFaulty && fault.kind === "sleep") pause(5000);
      if (delay) pause(delay);
      const ended = observation[2] >= length;
      const reward = isFaulty && fault.kind === "nan" ? Number.NaN : (action as number);
      return { observation, reward, terminated: ended && index % 2 === 0, truncated: ended && index % 2 === 1 };
    },
    saveState: () => ({ observation: [...observation] }),
    restoreState: (state) => observation.set(state.observation as number[]),
  };
}
