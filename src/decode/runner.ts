// Runs a decoder over a KV cache: prefill in chunks, one-token steps for one sequence or a batch of unequal lengths.
// Everything that a step needs is bound once; a step writes a few integers, runs, and leaves logits in memory that it owns.
import { BackendError, UsageError } from "../base/errors.ts";
import { type CachedEmission, decoderCached, emissionFor, readsPositions } from "../models/decoder/cached.ts";
import type { DecoderConfig } from "../models/decoder/config.ts";
import { bytesOfTree, type InferenceModel } from "../models/decoder/quantise.ts";
import type { Backend, ProfileEvent } from "../runtime/backend.ts";
import { allocate, type TensorBuffer, viewOf } from "../runtime/buffer.ts";
import { KVCache } from "../runtime/kv-cache.ts";
import { type BoundProgram, compile, type Program, spec } from "../runtime/program.ts";
import type { DType } from "../tensor/dtype.ts";
import type { Dim } from "../tensor/graph.ts";
import { flatten, mapTree } from "../tensor/tree.ts";

export interface RunnerOptions {
  /** Sequences that are decoded together, B. Default 1. */
  batch?: number;
  /** Positions of the cache. Default: the model's context length. */
  capacity?: number;
  /**
   * How weights enter the programs. `packed` (default): read fastest, one packed copy besides the weights, later updates unseen.
   * `shared`: no copy, updates seen at once, slower for several tokens. `bound`: as inputs, like a training program.
   */
  weights?: "packed" | "shared" | "bound";
  /** Tokens of a prompt that run at once. Default 256. */
  prefillChunk?: number;
  /** Attention kernel; default: fused where the head width allows. */
  emission?: CachedEmission;
  /** Record the time of every operator; read it with {@link DecoderRunner.endProfile}. Default false. */
  profile?: boolean;
}

/** Resident bytes. */
export interface RunnerMemory {
  /** The model's own tensors, held once however many programs read them. */
  weights: number;
  /** Copies of the matrices that ONNX Runtime packed for its kernels, about: one for each program compiled so far. */
  packedCopies: number;
  /** Keys and values. */
  cache: number;
}

type Inputs = ReturnType<typeof inputSpecs>;
interface Outputs {
  logits: unknown;
  cache: unknown;
}

function inputSpecs({ config, parameters }: InferenceModel, batch: number, time: Dim, rows: Dim, capacity: number) {
  const layer = () => {
    const shape = [batch, config.kvHeads, capacity, config.headWidth];
    return { key: spec("f32", shape), value: spec("f32", shape) };
  };
  return {
    parameters: mapTree(parameters.tree, (leaf) => spec(leaf.dtype as DType, leaf.shape)),
    ids: spec("i32", [batch, time]),
    positions: spec("i32", [batch, time]),
    lengths: spec("i32", [batch]),
    total: spec("i32", []),
    rows: spec("i32", [rows]),
    cache: Array.from({ length: config.layers }, layer),
  };
}

/** Memory of one bound call: ids in, logits out. */
interface Call {
  bound: BoundProgram<Inputs, Outputs>;
  ids: Int32Array;
  positions: Int32Array;
  lengths: Int32Array;
  total: Int32Array;
  rows: Int32Array;
  logits: Float32Array;
}

export class DecoderRunner {
  readonly config: DecoderConfig;
  readonly cache: KVCache;
  readonly batch: number;
  readonly capacity: number;
  readonly prefillChunk: number;
  readonly #backend: Backend;
  readonly #model: InferenceModel;
  readonly #options: Required<Pick<RunnerOptions, "weights" | "emission" | "profile">>;
  #sequenceProgram: Program<Inputs, Outputs> | undefined;
  #batchProgram: Program<Inputs, Outputs> | undefined;
  readonly #single = new Map<number, Call>();
  readonly #several = new Map<number, Several>();
  #batched: Call | undefined;
  #disposed = false;

  constructor(backend: Backend, model: InferenceModel, options: RunnerOptions = {}) {
    const {
      batch = 1,
      capacity = model.config.contextLength,
      weights = "packed",
      prefillChunk = 256,
      emission = emissionFor(model.config),
      profile = false,
    } = options;
    if (model.config.position === "learned" && capacity > model.config.contextLength) {
      throw new UsageError(
        `capacity: expected at most ${model.config.contextLength} positions, which this model has learned, got ${capacity}`,
      );
    }
    this.#backend = backend;
    this.#model = model;
    this.config = model.config;
    this.batch = batch;
    this.capacity = capacity;
    this.prefillChunk = Math.min(prefillChunk, capacity);
    this.#options = { weights, emission, profile };
    const { layers, kvHeads, headWidth } = model.config;
    this.cache = new KVCache({ layers, batch, kvHeads, capacity, headWidth });
  }

  /**
   * Appends tokens to a sequence and returns the logits after the last of them, [V]: a view that the next call overwrites.
   * @throws UsageError when the cache is full.
   */
  append(row: number, ids: ArrayLike<number>): Float32Array {
    this.#refuseDisposed();
    const start = this.cache.lengths[row];
    if (ids.length === 0) throw new UsageError("append: expected at least one token, got none");
    this.#reserve(start + ids.length);
    if (ids.length === 1) return this.#one(row, ids[0]);
    let logits: Float32Array | undefined;
    for (let from = 0; from < ids.length; from += this.prefillChunk) {
      const count = Math.min(this.prefillChunk, ids.length - from);
      logits = this.#chunk(row, ids, from, count, [count - 1]);
    }
    return logits as Float32Array;
  }

  /**
   * Appends tokens and returns logits after each of them, [tokens, V] row by row: for scoring, and for verifying drafts.
   * At most `prefillChunk` tokens. The result is a view that the next call overwrites.
   */
  appendAll(row: number, ids: ArrayLike<number>): Float32Array {
    this.#refuseDisposed();
    if (ids.length === 0 || ids.length > this.prefillChunk)
      throw new UsageError(`appendAll: expected 1 to ${this.prefillChunk} tokens, got ${ids.length}`);
    this.#reserve(this.cache.lengths[row] + ids.length);
    return this.#chunk(
      row,
      ids,
      0,
      ids.length,
      Array.from({ length: ids.length }, (_, i) => i),
    );
  }

  /**
   * One token for every sequence at once: ids [B] → logits [B, V]. Sequences with `active` 0 stay as they are; their logits mean nothing.
   */
  step(ids: ArrayLike<number>, active?: ArrayLike<number>): Float32Array {
    this.#refuseDisposed();
    if (this.batch === 1) return this.append(0, [ids[0]]);
    const call = (this.#batched ??= this.#bindBatch());
    const { lengths } = this.cache;
    let total = 0;
    for (let row = 0; row < this.batch; row++) {
      // An idle row computes at a position that it may overwrite: the first one beyond its tokens, or its last.
      const position = Math.min(lengths[row], this.capacity - 1);
      if (!active || active[row]) this.#reserve(lengths[row] + 1);
      call.ids[row] = ids[row];
      call.positions[row] = position;
      call.lengths[row] = position;
      total = Math.max(total, position + 1);
    }
    call.total[0] = total;
    call.bound.run();
    for (let row = 0; row < this.batch; row++) if (!active || active[row]) lengths[row]++;
    return call.logits;
  }

  /** Empties a sequence. */
  reset(row: number): void {
    this.cache.truncate(row, 0);
  }

  get memory(): RunnerMemory {
    const { tree } = this.#model.parameters;
    const { embedding, ...read } = tree;
    // What is gathered from is never packed; a tied embedding is the head's matrix as well.
    const packed = bytesOfTree(read) + (tree.head ? 0 : bytesOfTree(embedding.tokens));
    const programs = [this.#sequenceProgram, this.#batchProgram].filter(Boolean).length;
    return {
      weights: bytesOfTree(tree),
      packedCopies: this.#options.weights === "packed" ? programs * packed : 0,
      cache: this.cache.bytes,
    };
  }

  /** Times of every operator since the programs were compiled; needs the option `profile`. Ends profiling. */
  endProfile(): ProfileEvent[] {
    this.#refuseDisposed();
    return [this.#sequenceProgram, this.#batchProgram].flatMap((program) => program?.endProfile() ?? []);
  }

  dispose(): void {
    this.#disposed = true;
    this.#sequenceProgram?.dispose();
    this.#batchProgram?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #refuseDisposed(): void {
    if (this.#disposed) throw new BackendError("DecoderRunner: this runner was disposed");
  }

  #reserve(length: number): void {
    if (length > this.capacity) {
      throw new UsageError(`cache: expected at most ${this.capacity} tokens in a sequence, got ${length}`, {
        hint: "Give a larger capacity, a shorter prompt or fewer new tokens.",
      });
    }
  }

  #one(row: number, id: number): Float32Array {
    let call = this.#single.get(row);
    if (!call) {
      call = this.#bindSequence(row, 1, 1);
      this.#single.set(row, call);
    }
    const position = this.cache.lengths[row];
    call.ids[0] = id;
    call.positions[0] = position;
    call.lengths[0] = position;
    call.total[0] = position + 1;
    call.bound.run();
    this.cache.lengths[row] = position + 1;
    return call.logits;
  }

  #chunk(row: number, ids: ArrayLike<number>, from: number, count: number, wanted: readonly number[]): Float32Array {
    let several = this.#several.get(row);
    if (!several) {
      const positioned = readsPositions(this.config, this.#options.emission);
      several = new Several(this.#bindSequence(row, this.prefillChunk, 1), this.config.vocabSize, positioned);
      this.#several.set(row, several);
    }
    const start = this.cache.lengths[row];
    const { call } = several;
    const logits = several.resize(count, wanted.length);
    for (let i = 0; i < count; i++) {
      call.ids[i] = ids[from + i];
      call.positions[i] = start + i;
    }
    call.lengths[0] = start + count - 1;
    call.total[0] = start + count;
    several.rows.set(wanted);
    call.bound.run();
    this.cache.lengths[row] = start + count;
    return logits;
  }

  #compile(batch: number, time: Dim, rows: Dim): Program<Inputs, Outputs> {
    const specs = inputSpecs(this.#model, batch, time, rows, this.capacity);
    const { weights, emission, profile } = this.#options;
    const leaves = flatten<TensorBuffer>(this.#model.parameters.tree as never).map(([path, leaf]) => [`parameters.${path}`, leaf] as const);
    return compile(
      this.#backend,
      ({ parameters, ...inputs }) => decoderCached(this.config, parameters as never, inputs as never, emission) as Outputs,
      specs,
      {
        name: batch === 1 ? "decode" : `decode x ${batch}`,
        profile,
        ...(weights === "bound" ? {} : { weights: new Map(leaves), prepack: weights === "packed" }),
      },
    );
  }

  #bindSequence(row: number, time: number, rows: number): Call {
    this.#sequenceProgram ??= this.#compile(1, "S", "R");
    return this.#bind(this.#sequenceProgram, this.cache.row(row), 1, time, rows);
  }

  #bindBatch(): Call {
    this.#batchProgram ??= this.#compile(this.batch, 1, this.batch);
    return this.#bind(this.#batchProgram, this.cache.layers, this.batch, 1, this.batch);
  }

  #bind(
    program: Program<Inputs, Outputs>,
    cache: readonly { key: TensorBuffer; value: TensorBuffer }[],
    batch: number,
    time: number,
    rows: number,
  ): Call {
    const ids = allocate("i32", [batch, time]);
    const positions = allocate("i32", [batch, time]);
    const lengths = allocate("i32", [batch]);
    const total = allocate("i32", []);
    const rowIndices = allocate("i32", [rows]);
    for (let i = 0; i < rows; i++) rowIndices.data[i] = i;
    const logits = allocate("f32", [rows, this.config.vocabSize]);
    const parameters = this.#options.weights === "bound" ? { parameters: this.#model.parameters.tree } : {};
    const bound = program.bind(
      { ...parameters, ids, positions, lengths, total, rows: rowIndices, cache } as never,
      { logits, cache } as never,
    );
    return {
      bound,
      ids: ids.data,
      positions: positions.data,
      lengths: lengths.data,
      total: total.data,
      rows: rowIndices.data,
      logits: logits.data,
    };
  }
}

/** The call of a sequence whose number of new tokens varies: views of one memory for each size that occurs. */
class Several {
  readonly call: Call;
  rows: Int32Array;
  readonly #vocabSize: number;
  readonly #positioned: boolean;
  readonly #ids: TensorBuffer;
  readonly #positions: TensorBuffer;
  readonly #views = new Map<number, { ids: TensorBuffer; positions: TensorBuffer }>();
  readonly #outputs = new Map<number, { rows: TensorBuffer<"i32">; logits: TensorBuffer<"f32"> }>();
  #time = -1;
  #wanted = -1;

  /** @param positioned whether the program reads positions. */
  constructor(call: Call, vocabSize: number, positioned: boolean) {
    this.call = call;
    this.#positioned = positioned;
    this.rows = call.rows;
    this.#vocabSize = vocabSize;
    const inputs = call.bound.inputs as unknown as { ids: TensorBuffer; positions: TensorBuffer };
    this.#ids = inputs.ids;
    this.#positions = inputs.positions;
  }

  /** Sets the sizes of the next run and returns its logits. */
  resize(time: number, wanted: number): Float32Array {
    const { bound } = this.call;
    if (time !== this.#time) {
      let view = this.#views.get(time);
      if (!view) {
        view = { ids: viewOf(this.#ids, [1, time]), positions: viewOf(this.#positions, [1, time]) };
        this.#views.set(time, view);
      }
      bound.setInput("ids", view.ids);
      if (this.#positioned) bound.setInput("positions", view.positions);
      this.#time = time;
    }
    let output = this.#outputs.get(wanted);
    if (!output) {
      output = { rows: allocate("i32", [wanted]), logits: allocate("f32", [wanted, this.#vocabSize]) };
      this.#outputs.set(wanted, output);
    }
    if (wanted !== this.#wanted) {
      bound.setInput("rows", output.rows);
      bound.setOutput("logits", output.logits);
      this.#wanted = wanted;
    }
    this.rows = output.rows.data;
    return output.logits.data;
  }
}
