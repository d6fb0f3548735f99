// The programs of a rollout: a prompt into the cache, and one token for a batch of rows. They end in probabilities under the temperature,
// so that the host has no exponential to compute. Letters: B rows, S tokens of a prompt, V vocabulary.
import { type CachedEmission, decoderCached, emissionFor } from "../../models/decoder/cached.ts";
import type { LoadedDecoder } from "../../models/decoder/checkpoint.ts";
import type { DecoderConfig } from "../../models/decoder/config.ts";
import type { DecoderTensors } from "../../models/decoder/decoder.ts";
import type { Backend } from "../../runtime/backend.ts";
import { allocate, type TensorBuffer, viewOf } from "../../runtime/buffer.ts";
import type { KVCache, LayerCache } from "../../runtime/kv-cache.ts";
import { type BoundProgram, compile, type Program, spec } from "../../runtime/program.ts";
import { mul } from "../../tensor/elementwise.ts";
import type { Dim } from "../../tensor/graph.ts";
import { softmax } from "../../tensor/norm.ts";
import { flatten, mapTree } from "../../tensor/tree.ts";

/** A decoder whose weights change between rollouts. */
export type PolicyDecoder = Pick<LoadedDecoder, "config" | "specs" | "parameters">;

/**
 * How fresh weights enter the programs. bound: as inputs. shared: as initializers that refer to the live memory. packed: as initializers
 * that ONNX Runtime packs, so that the program of all rows is compiled anew for every rollout; the others, which run less, are bound.
 */
export type RolloutWeights = "bound" | "shared" | "packed";

/** What the programs give for each row: probabilities under the temperature, or logits where sampling edits them. */
export interface RolloutOutput {
  kind: "probabilities" | "logits";
  temperature: number;
}

type Inputs = ReturnType<typeof inputSpecs>;
interface Outputs {
  rows: unknown;
  cache: unknown;
}

/** Memory of one bound call. */
export interface RolloutCall {
  readonly bound: BoundProgram<Inputs, Outputs>;
  readonly ids: Int32Array;
  readonly positions: Int32Array;
  readonly lengths: Int32Array;
  readonly total: Int32Array;
  /** [B, V] */
  readonly rows: Float32Array;
}

function inputSpecs({ config, specs }: PolicyDecoder, batch: number, time: Dim, capacity: number) {
  const cache = spec("f32", [batch, config.kvHeads, capacity, config.headWidth]);
  return {
    parameters: mapTree(specs, ({ shape }) => spec("f32", shape)),
    ids: spec("i32", [batch, time]),
    positions: spec("i32", [batch, time]),
    lengths: spec("i32", [batch]),
    total: spec("i32", []),
    rows: spec("i32", [batch]),
    cache: Array.from({ length: config.layers }, () => ({ key: cache, value: cache })),
  };
}

/** Programs by number of rows, compiled when first needed. */
export class RolloutPrograms {
  readonly #backend: Backend;
  readonly #decoder: PolicyDecoder;
  readonly #cache: KVCache;
  readonly #weights: RolloutWeights;
  readonly #output: RolloutOutput;
  readonly #threads: number | undefined;
  readonly #emission: CachedEmission;
  #prompt: Program<Inputs, Outputs> | undefined;
  readonly #steps = new Map<number, { program: Program<Inputs, Outputs>; call: RolloutCall }>();

  /** @param options.threads of the programs' own; undefined: the shared pool. */
  constructor(
    backend: Backend,
    decoder: PolicyDecoder,
    cache: KVCache,
    options: { weights: RolloutWeights; output: RolloutOutput; threads?: number | undefined },
  ) {
    this.#backend = backend;
    this.#decoder = decoder;
    this.#cache = cache;
    this.#weights = options.weights;
    this.#output = options.output;
    this.#threads = options.threads;
    this.#emission = emissionFor(decoder.config);
  }

  get #config(): DecoderConfig {
    return this.#decoder.config;
  }

  /** Runs a whole prompt into one row of the empty cache and returns what follows its last token, [V]: valid until the next call. */
  prefill(row: number, ids: ArrayLike<number>): Float32Array {
    this.#prompt ??= this.#compile(1, "S");
    const call = this.#bind(this.#prompt, this.#cache.row(row), 1, ids.length);
    try {
      call.ids.set(ids as Int32Array);
      for (let i = 0; i < ids.length; i++) call.positions[i] = i;
      call.lengths[0] = ids.length - 1;
      call.total[0] = ids.length;
      (call.bound.inputs as unknown as { rows: TensorBuffer<"i32"> }).rows.data[0] = ids.length - 1;
      call.bound.run();
      this.#cache.lengths[row] = ids.length;
      return call.rows;
    } finally {
      call.bound.dispose();
    }
  }

  /** The call of one token for each of the first `batch` rows of the cache. */
  step(batch: number): RolloutCall {
    let entry = this.#steps.get(batch);
    if (!entry) {
      const program = this.#compile(batch, 1);
      const { batch: all, kvHeads, capacity, headWidth } = this.#cache.shape;
      const first = (buffer: TensorBuffer<"f32">) => viewOf(buffer, [batch, kvHeads, capacity, headWidth]);
      const layers =
        batch === all ? this.#cache.layers : this.#cache.layers.map(({ key, value }) => ({ key: first(key), value: first(value) }));
      const call = this.#bind(program, layers, batch, 1);
      const rows = (call.bound.inputs as unknown as { rows: TensorBuffer<"i32"> }).rows.data;
      for (let i = 0; i < batch; i++) rows[i] = i;
      entry = { program, call };
      this.#steps.set(batch, entry);
    }
    return entry.call;
  }

  /** To be called when the weights have changed: packed copies are of the old ones. */
  refresh(): void {
    const { batch } = this.#cache.shape;
    if (this.#weights !== "packed") return;
    this.#steps.get(batch)?.program.dispose();
    this.#steps.delete(batch);
  }

  dispose(): void {
    this.#prompt?.dispose();
    this.#prompt = undefined;
    for (const { program } of this.#steps.values()) program.dispose();
    this.#steps.clear();
  }

  #compile(batch: number, time: Dim): Program<Inputs, Outputs> {
    const { kind, temperature } = this.#output;
    const weights = this.#weightsFor(batch, time);
    const leaves = flatten<TensorBuffer>(this.#decoder.parameters.tree as never).map(
      ([path, leaf]) => [`parameters.${path}`, leaf] as const,
    );
    return compile(
      this.#backend,
      ({ parameters, ...inputs }): Outputs => {
        const { logits, cache } = decoderCached(this.#config, parameters as unknown as DecoderTensors, inputs as never, this.#emission);
        return { rows: kind === "logits" ? logits : softmax(mul(logits, 1 / temperature)), cache };
      },
      inputSpecs(this.#decoder, batch, time, this.#cache.shape.capacity),
      {
        name: time === 1 ? `rollout x ${batch}` : "rollout prompt",
        threads: this.#threads,
        ...(weights === "bound" ? {} : { weights: new Map(leaves), prepack: weights === "packed" }),
      },
    );
  }

  #weightsFor(batch: number, time: Dim): RolloutWeights {
    const isWhole = batch === this.#cache.shape.batch && time === 1;
    return this.#weights === "packed" && !isWhole ? "bound" : this.#weights;
  }

  #bind(program: Program<Inputs, Outputs>, cache: readonly LayerCache[], batch: number, time: number): RolloutCall {
    // A prompt of one token has the shape of a step of one row, which is another program.
    const weights = this.#weightsFor(batch, program === this.#prompt ? "S" : 1);
    const [ids, positions] = [allocate("i32", [batch, time]), allocate("i32", [batch, time])];
    const [lengths, total, rowIndices] = [allocate("i32", [batch]), allocate("i32", []), allocate("i32", [batch])];
    const rows = allocate("f32", [batch, this.#config.vocabSize]);
    const parameters = weights === "bound" ? { parameters: this.#decoder.parameters.tree } : {};
    const bound = program.bind(
      { ...parameters, ids, positions, lengths, total, rows: rowIndices, cache } as never,
      { rows, cache } as never,
    );
    return { bound, ids: ids.data, positions: positions.data, lengths: lengths.data, total: total.data, rows: rows.data };
  }
}
