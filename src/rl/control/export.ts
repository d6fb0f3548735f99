// A policy as a plain ONNX file that any ONNX Runtime runs: observations as the environment gives them in, actions as it takes them out,
// the normalisation inside. float32; weights are constants of the graph.
import { writeFileAtomic } from "../../base/atomic.ts";
import { isDiscrete } from "../../models/policy/config.ts";
import { policyForward } from "../../models/policy/network.ts";
import type { PolicyParameters } from "../../models/policy/parameters.ts";
import { constant, reshape } from "../../tensor/core.ts";
import { add, cast, clamp, div, maximum, minimum, mul, sub } from "../../tensor/elementwise.ts";
import { Graph, type Tensor } from "../../tensor/graph.ts";
import { toOnnx } from "../../tensor/onnx.ts";
import { mapTree } from "../../tensor/tree.ts";
import { distributionOf } from "./distributions/distribution.ts";
import type { ControlPolicy } from "./policy-file.ts";

/**
 * The model's bytes. Input `observations` [n, F] float32 (discrete observations one-hot); outputs `actions` (int64 [n] or [n, A] for
 * discrete ones, else float32 [n, A] in the bounds), `values` [n], and `logits` [n, K] or `means` [n, A] (before squashing and clipping).
 * Masks of forbidden actions are not inside: apply them to `logits`.
 */
export function policyToOnnx({ policy, actionSpace, normaliser }: ControlPolicy): Uint8Array {
  const { config, parameters } = policy;
  const graph = new Graph();
  const observations = graph.input("observations", "f32", ["n", config.observationSize]);
  const numbers = (shape: readonly number[], values: ArrayLike<number>): Tensor => constant(graph, "f32", shape, Float32Array.from(values));
  const tree = mapTree(policy.specs, (_, path) => {
    const leaf = parameters.leaves.get(path) as NonNullable<ReturnType<typeof parameters.leaves.get>>;
    return numbers(leaf.shape, leaf.data as Float32Array);
  }) as unknown as PolicyParameters<Tensor>;
  let x = observations;
  if (normaliser?.settings.observations) {
    const { observationMoments, settings } = normaliser;
    const size = config.observationSize;
    const deviation = Float64Array.from(observationMoments.variance, (variance) => Math.sqrt(variance + settings.epsilon));
    x = clamp(
      div(sub(x, numbers([size], observationMoments.mean)), numbers([size], deviation)),
      -settings.clipObservation,
      settings.clipObservation,
    );
  }
  const { outputs, values, latent, logStd } = policyForward({ ...config, dtype: "f32" }, tree, x);
  const mode = distributionOf(config.head, { outputs, latent, ...(logStd ? { logStd } : {}) }).mode();
  let actions: Tensor;
  if (actionSpace.kind === "box") {
    const [low, high] = [actionSpace.low, actionSpace.high];
    const size = low.length;
    if ("squash" in config.head && config.head.squash) {
      const half = Float64Array.from(low, (bound, i) => (high[i] - bound) / 2);
      const middle = Float64Array.from(low, (bound, i) => (high[i] + bound) / 2);
      actions = add(mul(mode, numbers([size], half)), numbers([size], middle));
    } else {
      // The largest floats stand for infinite bounds.
      const finite = (bounds: Float64Array): Float64Array => bounds.map((bound) => Math.min(Math.max(bound, -3.4e38), 3.4e38));
      actions = minimum(maximum(mode, numbers([size], finite(low))), numbers([size], finite(high)));
    }
  } else {
    const whole = cast(mode, "i64");
    const start = actionSpace.kind === "discrete" ? actionSpace.start : 0;
    actions = start === 0 ? whole : add(whole, start);
    if (actionSpace.kind === "discrete") actions = reshape(actions, ["n"]);
  }
  const raw = isDiscrete(config.head) || config.head.kind === "bernoulli" ? "logits" : "means";
  return toOnnx(graph, [actions, values, outputs], { inputNames: ["observations"], outputNames: ["actions", "values", raw] }).bytes;
}

/** Writes {@link policyToOnnx} to `path`. @throws CheckpointError when the disk refuses. */
export const exportPolicy = (control: ControlPolicy, path: string): void => writeFileAtomic(path, policyToOnnx(control));
