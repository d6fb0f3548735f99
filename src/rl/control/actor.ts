// A policy at work: one small program for a fixed number of states, whose outputs the host draws actions from. Bound to the live
// parameters, so that updates are seen at once.

import { policyForward } from "../../models/policy/network.ts";
import type { Policy, PolicyParameters } from "../../models/policy/parameters.ts";
import type { Backend } from "../../runtime/backend.ts";
import type { TensorBuffer } from "../../runtime/buffer.ts";
import { type BoundProgram, compile, type Program, spec } from "../../runtime/program.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { mapTree } from "../../tensor/tree.ts";
import { type HostDistribution, hostDistribution, type NoiseKey } from "./distributions/host.ts";

type Floats = Float32Array | Float64Array;

export class Actor {
  readonly numRows: number;
  /** [N, F]: write states here, then `run`. */
  readonly observations: Floats;
  /** [N] after `run`. */
  readonly values: Floats;
  /** [N, K] after `run`: what the network gives for each state. */
  readonly outputs: Floats;
  /** [N, K] where actions are masked: write 0 and 1 here. */
  readonly masks?: Uint8Array;
  readonly distribution: HostDistribution;
  readonly #program: Program<unknown, Record<string, Tensor>>;
  readonly #bound: BoundProgram<unknown, Record<string, Tensor>>;

  constructor(backend: Backend, policy: Policy, numRows: number, key: NoiseKey, maskSize = 0) {
    const { config, specs, parameters } = policy;
    const inputs = {
      parameters: mapTree(specs, ({ dtype, shape }) => spec(dtype as "f32", shape)),
      observations: spec(config.dtype, [numRows, config.observationSize]),
    };
    this.numRows = numRows;
    const usesLatent = config.head.kind === "gsde";
    this.#program = compile(
      backend,
      (traced: { parameters: PolicyParameters<Tensor>; observations: Tensor }) => {
        const { outputs, values, latent } = policyForward(config, traced.parameters, traced.observations);
        return { outputs, values, ...(usesLatent ? { latent } : {}) };
      },
      inputs as never,
      { name: `policy for ${numRows}`, threads: 1 },
    ) as unknown as Program<unknown, Record<string, Tensor>>;
    this.#bound = this.#program.bind({ parameters: parameters.tree } as never);
    const { observations } = this.#bound.inputs as unknown as { observations: TensorBuffer<"f32"> };
    const { outputs, values, latent } = this.#bound.outputs as unknown as Record<string, TensorBuffer<"f32">>;
    this.observations = observations.data;
    this.outputs = outputs.data;
    this.values = values.data;
    if (maskSize > 0) this.masks = new Uint8Array(numRows * maskSize).fill(1);
    this.distribution = hostDistribution(
      config.head,
      {
        outputs: outputs.data,
        ...(latent ? { latent: latent.data } : {}),
        ...(parameters.leaves.has("actor.logStd") ? { logStd: parameters.leaves.get("actor.logStd")?.data as Float32Array } : {}),
        ...(this.masks ? { masks: this.masks } : {}),
      },
      key,
    );
  }

  /** Computes outputs and values of the observations. */
  run(): void {
    this.#bound.run();
  }

  dispose(): void {
    this.#program.dispose();
  }
}
