// Between what a policy draws and what an environment takes: the head that fits an action space, and the transform of its actions.
import { UsageError } from "../../base/errors.ts";
import type { PolicyHead, PolicySettings } from "../../models/policy/config.ts";
import { describeSpace, type Space, valueSize } from "./spaces.ts";

/**
 * The action distribution for a space: categorical, multi-categorical, Bernoulli; Gaussian, squashed or with gSDE as the settings say.
 * @throws UsageError for squashing into a Box without bounds, and for gSDE with discrete actions.
 */
export function headFor(
  space: Space,
  settings: Pick<PolicySettings, "squash" | "useSde" | "fullStd" | "useExpln" | "learnFeatures">,
): PolicyHead {
  const { squash, useSde, fullStd, useExpln, learnFeatures } = settings;
  if (space.kind !== "box" && useSde)
    throw new UsageError(`useSde: expected continuous actions, got ${describeSpace(space)}`, { hint: "Leave useSde out." });
  switch (space.kind) {
    case "discrete":
      return { kind: "categorical", n: space.n };
    case "multi-discrete":
      return { kind: "multi-categorical", dims: space.dims };
    case "multi-binary":
      return { kind: "bernoulli", n: space.n };
    case "box": {
      const size = valueSize(space);
      const isBounded = space.low.every(Number.isFinite) && space.high.every(Number.isFinite);
      if (squash && !isBounded)
        throw new UsageError(`squash: expected actions with bounds, got ${describeSpace(space)} with infinite ones`, {
          hint: "Leave squash out: actions are then unbounded, or clipped.",
        });
      return useSde ? { kind: "gsde", size, squash, fullStd, useExpln, learnFeatures } : { kind: "gaussian", size, squash };
    }
  }
}

/** Turns an action of the policy into one of the environment; `from` and `to` may be the same array. */
export type ActionTransform = (from: ArrayLike<number>, fromOffset: number, to: Float32Array | Float64Array, toOffset: number) => void;

/** Discrete actions get their `start`; continuous ones are squashed into the bounds, or clipped to them. */
export function actionTransform(space: Space, head: PolicyHead): ActionTransform {
  const size = valueSize(space);
  if (space.kind === "box") {
    const { low, high } = space;
    if ("squash" in head && head.squash)
      return (from, fromOffset, to, toOffset) => {
        for (let i = 0; i < size; i++) to[toOffset + i] = low[i] + 0.5 * (Math.tanh(from[fromOffset + i]) + 1) * (high[i] - low[i]);
      };
    return (from, fromOffset, to, toOffset) => {
      for (let i = 0; i < size; i++) to[toOffset + i] = Math.min(Math.max(from[fromOffset + i], low[i]), high[i]);
    };
  }
  const start = space.kind === "discrete" ? space.start : 0;
  return (from, fromOffset, to, toOffset) => {
    for (let i = 0; i < size; i++) to[toOffset + i] = from[fromOffset + i] + start;
  };
}
