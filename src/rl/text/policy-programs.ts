// Programs over a batch of completions: loss and gradients, and log-probabilities alone (old policy, reference). Right-padded; only the
// positions that predict a token of a completion get logits. One compiled program for each bucket of sizes.
// Letters: R rows (completions), T tokens of the longest prompt with its completion but for its last token, C tokens of the longest completion.
import { type DecoderTensors, decoderForward, decoderLogits } from "../../models/decoder/decoder.ts";
import type { Backend } from "../../runtime/backend.ts";
import type { TensorBuffer } from "../../runtime/buffer.ts";
import type { FlatBuffer } from "../../runtime/flat.ts";
import { type BoundProgram, compile, type Program, spec, type TensorSpec } from "../../runtime/program.ts";
import { reshape } from "../../tensor/core.ts";
import { mul } from "../../tensor/elementwise.ts";
import { gather } from "../../tensor/gather.ts";
import { gradients } from "../../tensor/gradient.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { labelLogProbs } from "../../tensor/loss.ts";
import { entropyFromLogits } from "../../tensor/norm.ts";
import { mapTree } from "../../tensor/tree.ts";
import { type PolicyLossOptions, policyLoss } from "../core/policy-loss.ts";
import type { PolicyDecoder } from "./rollout-programs.ts";

export interface GridSize {
  readonly rows: number;
  readonly time: number;
  readonly columns: number;
}

/**
 * Sizes grow by an eighth or less from bucket to bucket (by 8 at least), up to the limit, so that few programs are compiled and little
 * is padded.
 */
export function bucketOf(size: number, limit: number): number {
  const step = Math.max(8, 2 ** (Math.floor(Math.log2(Math.max(size, 1))) - 3));
  return Math.min(limit, Math.ceil(size / step) * step);
}

/** Inputs of the loss beside the tokens; all [R, C] float32. */
export type LossInput = "advantages" | "weights" | "mask" | "oldLogProbs" | "refLogProbs" | "factors" | "entropyWeights";

interface TokenBuffers {
  /** [R, T] */
  readonly ids: TensorBuffer<"i32">;
  /** [R·C]: where in [R·T] a token of a completion is predicted. */
  readonly places: TensorBuffer<"i32">;
  /** [R, C] */
  readonly targets: TensorBuffer<"i32">;
}

/** A batch in memory: write tokens and loss inputs, run, read the outputs. */
export interface TrainingCall {
  readonly size: GridSize;
  readonly tokens: TokenBuffers;
  readonly inputs: Partial<Record<LossInput, Float32Array>>;
  run(signal?: AbortSignal): Promise<void>;
  /** Scalars. */
  readonly loss: Float32Array;
  readonly policyLoss: Float32Array;
  /** [R, C] */
  readonly logProbs: Float32Array;
  readonly entropies: Float32Array | undefined;
  readonly kl: Float32Array | undefined;
  /** [R, C], or [R] for ratios of sequences. */
  readonly clippedLow: Float32Array;
  readonly clippedHigh: Float32Array;
}

export interface ScoringCall {
  readonly size: GridSize;
  readonly tokens: TokenBuffers;
  run(signal?: AbortSignal): Promise<void>;
  readonly logProbs: Float32Array;
  readonly entropies: Float32Array | undefined;
}

export interface ProgramOptions {
  loss: PolicyLossOptions;
  temperature: number;
  /** Which of the optional inputs the loss takes. */
  inputs: readonly LossInput[];
  /** Compute the entropy of every distribution (a pass over the logits). */
  withEntropy: boolean;
}

interface Entry {
  readonly program: Program<unknown, unknown>;
  readonly calls: Map<FlatBuffer<unknown>, BoundProgram<unknown, unknown>>;
}

/** Programs kept at a time: each holds the memory of its activations. */
const maxPrograms = 4;

export class PolicyPrograms {
  readonly #backend: Backend;
  readonly #decoder: PolicyDecoder;
  readonly #gradients: FlatBuffer<unknown>;
  readonly #options: ProgramOptions;
  readonly #entries = new Map<string, Entry>();

  /** @param gradients receives the gradients of every training call. */
  constructor(backend: Backend, decoder: PolicyDecoder, gradients: FlatBuffer<unknown>, options: ProgramOptions) {
    this.#backend = backend;
    this.#decoder = decoder;
    this.#gradients = gradients;
    this.#options = options;
  }

  /** Loss and gradients of the decoder's live weights. */
  training(size: GridSize): TrainingCall {
    const bound = this.#bound("training", size, this.#decoder.parameters);
    const inputs = bound.inputs as unknown as TokenBuffers & Record<LossInput, TensorBuffer<"f32"> | undefined>;
    const outputs = bound.outputs as unknown as Record<string, TensorBuffer<"f32"> | undefined>;
    const output = (name: string): Float32Array => outputs[name]?.data ?? new Float32Array();
    return {
      size,
      tokens: inputs,
      inputs: Object.fromEntries(this.#options.inputs.map((name) => [name, inputs[name]?.data])),
      run: (signal) => bound.runAsync(signal),
      loss: output("loss"),
      policyLoss: output("policyLoss"),
      logProbs: output("logProbs"),
      entropies: outputs.entropies?.data,
      kl: outputs.kl?.data,
      clippedLow: output("clippedLow"),
      clippedHigh: output("clippedHigh"),
    };
  }

  /** Log-probabilities under some weights: the live ones or a reference. */
  scoring(size: GridSize, parameters: FlatBuffer<unknown>): ScoringCall {
    const bound = this.#bound("scoring", size, parameters);
    const outputs = bound.outputs as unknown as Record<string, TensorBuffer<"f32"> | undefined>;
    return {
      size,
      tokens: bound.inputs as unknown as TokenBuffers,
      run: (signal) => bound.runAsync(signal),
      logProbs: outputs.logProbs?.data ?? new Float32Array(),
      entropies: outputs.entropies?.data,
    };
  }

  dispose(): void {
    for (const { program } of this.#entries.values()) program.dispose();
    this.#entries.clear();
  }

  #bound(kind: "training" | "scoring", size: GridSize, parameters: FlatBuffer<unknown>): BoundProgram<unknown, unknown> {
    const key = `${kind} ${size.rows} x ${size.time} / ${size.columns}`;
    let entry = this.#entries.get(key);
    if (!entry) {
      entry = { program: this.#compile(kind, size, key), calls: new Map() };
      for (const [oldest, { program }] of this.#entries) {
        if (this.#entries.size < maxPrograms) break;
        program.dispose();
        this.#entries.delete(oldest);
      }
    } else this.#entries.delete(key);
    // The last used one is the last to go.
    this.#entries.set(key, entry);
    let call = entry.calls.get(parameters);
    if (!call) {
      const outputs = kind === "training" ? { gradients: this.#gradients.tree } : {};
      call = entry.program.bind({ parameters: parameters.tree } as never, outputs as never);
      entry.calls.set(parameters, call);
    }
    return call;
  }

  #compile(kind: "training" | "scoring", size: GridSize, name: string): Program<unknown, unknown> {
    const { rows, time, columns } = size;
    const { config, specs } = this.#decoder;
    const { inputs, temperature, withEntropy, loss: lossOptions } = this.#options;
    const grid = spec("f32", [rows, columns]);
    const declared = {
      parameters: mapTree(specs, ({ shape }) => spec("f32", shape)) as unknown as TensorSpec,
      ids: spec("i32", [rows, time]),
      places: spec("i32", [rows * columns]),
      targets: spec("i32", [rows, columns]),
      ...(kind === "training" ? Object.fromEntries(inputs.map((input) => [input, grid])) : {}),
    };
    return compile(
      this.#backend,
      (traced) => {
        const { parameters, ids, places, targets, ...given } = traced as unknown as Record<
          "ids" | "places" | "targets" | LossInput,
          Tensor
        > & {
          parameters: DecoderTensors;
        };
        const { hidden } = decoderForward(config, parameters, ids);
        const logits = mul(decoderLogits(config, parameters, gather(hidden, places)), 1 / temperature);
        const onGrid = (values: Tensor): Tensor => reshape(values, [rows, columns]);
        const logProbs = onGrid(labelLogProbs(logits, reshape(targets, [-1])));
        const entropies = withEntropy ? onGrid(entropyFromLogits(logits)) : undefined;
        const told = { logProbs, ...(entropies ? { entropies } : {}) };
        if (kind === "scoring") return told;
        const { loss, policyLoss: policy, kl, clippedLow, clippedHigh } = policyLoss({ ...given, ...told }, lossOptions);
        const outputs = { loss, policyLoss: policy, clippedLow, clippedHigh, ...told, ...(kl ? { kl } : {}) };
        return { ...outputs, gradients: gradients(loss, parameters as never) };
      },
      declared as unknown,
      { name },
    ) as Program<unknown, unknown>;
  }
}
