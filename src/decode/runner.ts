// Runs a decoder over a KV cache: prefill in chunks, one-token steps for one sequence or a batch of unequal lengths, trees of drafts.
// Everything that a step needs is bound once; a step writes a few integers, runs, and leaves logits in memory that it owns.
import { BackendError, UsageError } from "../base/errors.ts";
import { type CachedEmission, emissionFor } from "../models/decoder/cached.ts";
import type { DecoderConfig } from "../models/decoder/config.ts";
import { bytesOfTree, type InferenceModel } from "../models/decoder/quantise.ts";
import type { Backend, ProfileEvent } from "../runtime/backend.ts";
import { KVCache } from "../runtime/kv-cache.ts";
import { RotaryRows } from "./rotary-rows.ts";
import {
  type Call,
  runLater,
  runNow,
  type SequenceCall,
  type Steps,
  type TargetFeatures,
  type TargetRows,
  type TreeCall,
} from "./runner-calls.ts";
import { RunnerPrograms } from "./runner-programs.ts";
import { StepCosts } from "./step-costs.ts";
import type { TreeShape } from "./token-tree.ts";

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
  /**
   * Tokens of every call after the prompt, filled up with ones that do not count: `--exact`. Products of one size round alike, so plain and
   * speculative decoding of chains up to this size give the same bytes. Costs v(exactBlock) a call. Default 0: each call as small as it is.
   */
  exactBlock?: number;
  /** Attention kernel; default: fused where the head width allows. */
  emission?: CachedEmission;
  /** Record the time of every operator; read it with {@link DecoderRunner.endProfile}. Default false. */
  profile?: boolean;
}

/** How a prompt, or a part of one, is read. */
export interface ReadOptions {
  /** Tokens of the whole prompt. Default: up to the end of the part. */
  promptLength?: number;
  /** Stops the reading, also in the middle of a chunk; the row then holds the chunks before. */
  signal?: AbortSignal | undefined;
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

/** Tokens that are read at once. */
const shortPart = 16;

/** Tokens that are written before weights are packed: about as long as packing takes, whatever the size of a model. */
const earlyTokens = 16;

export class DecoderRunner {
  readonly config: DecoderConfig;
  readonly cache: KVCache;
  readonly batch: number;
  readonly capacity: number;
  readonly prefillChunk: number;
  /** Tokens of every call after the prompt; 0: as many as there are. */
  readonly exactBlock: number;
  /** What calls cost, learnt while speculating; kept from one request to the next. */
  readonly costs = new StepCosts();
  readonly #model: InferenceModel;
  readonly #rotary: RotaryRows | undefined;
  readonly #programs: RunnerPrograms;
  readonly #single = new Map<number, Call>();
  readonly #several = new Map<number, SequenceCall>();
  readonly #trees = new Map<number, TreeCall>();
  #early: SequenceCall | undefined;
  #earlyTokens = 0;
  #earlyPrompts = 0;
  /** The next token was prepared for without packed weights. */
  #isTokenEarly = false;
  #batched: Call | undefined;
  #blockIds: Int32Array | undefined;
  /** An asynchronous call is on its way. */
  #reading = false;

  constructor(backend: Backend, model: InferenceModel, options: RunnerOptions = {}) {
    const {
      batch = 1,
      capacity = model.config.contextLength,
      weights = "packed",
      prefillChunk = 256,
      emission = emissionFor(model.config),
      profile = false,
      exactBlock = 0,
    } = options;
    if (model.config.position === "learned" && capacity > model.config.contextLength) {
      throw new UsageError(
        `capacity: expected at most ${model.config.contextLength} positions, which this model has learned, got ${capacity}`,
      );
    }
    this.#model = model;
    this.config = model.config;
    this.batch = batch;
    if (exactBlock > 0 && batch > 1)
      throw new UsageError(`exactBlock: expected a runner of batch 1, got ${batch}`, { hint: "Exact decoding runs one sequence." });
    this.capacity = capacity;
    this.exactBlock = exactBlock;
    // What fills up a block lies behind the tokens that count.
    const positions = capacity + Math.max(0, exactBlock - 1);
    this.prefillChunk = Math.max(Math.min(prefillChunk, capacity), exactBlock);
    const { layers, kvHeads, headWidth } = model.config;
    this.cache = new KVCache({ layers, batch, kvHeads, capacity: positions, headWidth });
    this.#rotary = RotaryRows.of(model.config, batch);
    this.#programs = new RunnerPrograms(backend, model, this.cache, this.#rotary, { weights, emission, profile, batch, positions });
  }

  /**
   * Compiles ahead what the first call needs (rows of a single sequence), while the event loop goes on. Packing the weights of a large model
   * takes most of a second: where they are float32, the first prompts are read and the first tokens written without, while they are packed
   * behind them; {@link DecoderRunner.prepare} begins and awaits that. Weights must not change before it has. Calls that it was not asked for
   * compile for themselves.
   * @param options.drafts whether drafts will follow the first prompt: weights are packed while it is read. Default false.
   */
  compileAhead({ drafts = false }: { drafts?: boolean } = {}): Promise<void> {
    return this.#programs.compileAhead(this.batch === 1 && this.exactBlock === 0, drafts);
  }

  /**
   * Appends tokens to a sequence and returns the logits after the last of them, [V]: a view that the next call overwrites.
   * @throws UsageError when the cache is full.
   */
  append(row: number, ids: ArrayLike<number>): Float32Array {
    return runNow(this.#append(row, ids, this.#enter(row, ids)));
  }

  /** {@link DecoderRunner.append} while the event loop goes on (more than 16 tokens). Until it is done every other call is refused. @throws the signal's reason. */
  async appendAsync(row: number, ids: ArrayLike<number>, options: ReadOptions = {}): Promise<Float32Array> {
    const length = this.#enter(row, ids, options);
    const isPrompt = ids.length > 1 || options.promptLength !== undefined;
    const waits = this.#beginPrompt(row, options);
    if (waits) await this.#alone(waits);
    return await this.#read(ids.length, this.#append(row, ids, length, isPrompt), options);
  }

  /** @param isPrompt whether these are tokens of a prompt, also where it is one. */
  *#append(row: number, ids: ArrayLike<number>, length: number, isPrompt = ids.length > 1): Steps<Float32Array> {
    if (!isPrompt && !this.#isTokenEarly) this.#endEarly();
    this.#isTokenEarly = false;
    yield* this.#settle(row, length);
    const last = ids.length - 1;
    if (last === 0 && this.#programs.isEarly) return (yield* this.#chunk(row, ids, 0, 1, false)).logits;
    if (this.exactBlock > 0) {
      yield* this.#chunks(row, ids, last);
      return this.#block(row, ids, last, 1).logits.subarray(0, this.config.vocabSize);
    }
    const tail = last % this.prefillChunk;
    if (last === 0) {
      yield* this.#chunks(row, ids, last);
      return this.#one(row, ids[last]).logits;
    }
    yield* this.#chunks(row, ids, last - tail);
    return (yield* this.#chunk(row, ids, last - tail, tail + 1, false)).logits;
  }

  /**
   * Appends the first `length` tokens for what they leave in the cache, in chunks.
   * @throws UsageError when the cache is full.
   */
  prefill(row: number, ids: ArrayLike<number>, length = ids.length): void {
    this.#refuseUse();
    const end = this.cache.lengths[row] + length;
    this.#reserve(end);
    runNow(this.#prefill(row, ids, length, end));
  }

  /** {@link DecoderRunner.prefill} while the event loop goes on. Until it is done every other call is refused. @throws the signal's reason. */
  async prefillAsync(row: number, ids: ArrayLike<number>, options: ReadOptions = {}): Promise<void> {
    const length = this.#enter(row, ids, options);
    const waits = this.#beginPrompt(row, options);
    if (waits) await this.#alone(waits);
    await this.#read(ids.length, this.#prefill(row, ids, ids.length, length), options);
  }

  /** The first prompt may be the only call; while the second one is read, weights are packed; others have packed ones. */
  #beginPrompt(row: number, options: ReadOptions): Promise<void> | undefined {
    if (!this.#programs.isEarly) return undefined;
    this.#earlyPrompts++;
    const packed = this.#earlyPrompts > 1 ? this.#programs.packed() : undefined;
    return this.#earlyPrompts > 2 && packed ? this.#prepareWeights(packed, row, options) : undefined;
  }

  *#prefill(row: number, ids: ArrayLike<number>, count: number, length: number): Steps<void> {
    this.#isTokenEarly = false;
    yield* this.#settle(row, length);
    yield* this.#chunks(row, ids, count);
  }

  *#chunks(row: number, ids: ArrayLike<number>, length: number): Steps<void> {
    for (let from = 0; from < length; from += this.prefillChunk) {
      const count = Math.min(this.prefillChunk, length - from);
      yield* this.#chunk(row, ids, from, count, false);
    }
  }

  /** Positions that depend on the length of the sequence are set for `length` tokens; what the row holds is computed again where it must. */
  *#settle(row: number, length: number): Steps<void> {
    const again = this.#rotary?.settle(this.cache, row, length);
    if (again) yield* this.#chunks(row, again, again.length);
  }

  /**
   * What the next token of a row needs beforehand: weights that are being packed, and its tokens read again, where their positions depend on
   * the length (longrope, at the original length). Other calls do that themselves, at once. Undefined where there is nothing to do.
   * @param options.drafts whether more than one token comes next, which is fast with packed weights alone. Default false.
   */
  prepare(row: number, options: Pick<ReadOptions, "signal"> & { drafts?: boolean } = {}): Promise<void> | undefined {
    this.#refuseUse();
    const packed = this.#programs.packed();
    if (packed === undefined) return this.#prepareLength(row, options);
    if (!options.drafts && this.#earlyTokens < earlyTokens) {
      this.#earlyTokens++;
      this.#isTokenEarly = true;
      return this.#prepareLength(row, options);
    }
    return this.#prepareWeights(packed, row, options);
  }

  async #prepareWeights(packed: Promise<void>, row: number, options: Pick<ReadOptions, "signal">): Promise<void> {
    const { signal } = options;
    let stop = (): void => {};
    const aborted = new Promise<never>((_, reject) => {
      stop = () => reject(signal?.reason);
      signal?.addEventListener("abort", stop);
    });
    try {
      signal?.throwIfAborted();
      await Promise.race([packed, aborted]);
      this.#endEarly();
    } catch (error) {
      if (signal?.aborted) throw error;
      // Packing failed: the next call tries for itself, and tells why it cannot.
      this.#endEarly();
    } finally {
      signal?.removeEventListener("abort", stop);
    }
    await this.#prepareLength(row, options);
  }

  #prepareLength(row: number, options: Pick<ReadOptions, "signal">): Promise<void> | undefined {
    const length = this.cache.lengths[row] + 1;
    if (!this.#rotary || length === 1 || this.#rotary.maxDepth(length - 1) !== 0) return undefined;
    return this.#later(this.#settle(row, length), options);
  }

  /** How deep a tree may be that comes next: where positions depend on the length of a sequence, one call has those of its root. */
  maxTreeDepth(row: number): number {
    return this.#rotary?.maxDepth(this.cache.lengths[row] + 1) ?? Number.POSITIVE_INFINITY;
  }

  /** Leading tokens of a prompt that a row holds and that need not be read again: at most all but the last. */
  heldLength(row: number, ids: ArrayLike<number>): number {
    const held = this.cache.tokensOf(row);
    const most = Math.min(this.cache.lengths[row], ids.length - 1);
    let length = 0;
    while (length < most && held[length] === ids[length]) length++;
    return this.isReusable(row, ids.length) ? length : 0;
  }

  /** Whether what a row holds is what a prompt of this length would give: not always, where positions depend on it. */
  isReusable(row: number, promptLength: number): boolean {
    return this.#rotary?.isReusable(this.cache, row, promptLength) ?? true;
  }

  /**
   * Appends tokens and returns logits after each of them, [tokens, V] row by row: for scoring, and for verifying drafts.
   * At most `prefillChunk` tokens. The result is a view that the next call overwrites.
   */
  appendAll(row: number, ids: ArrayLike<number>): Float32Array {
    return runNow(this.#appendRows(row, ids, this.#enterChunk(row, ids))).logits;
  }

  /**
   * All rows of a part of a prompt, at most `prefillChunk` tokens, while the event loop goes on. Until it is done every other call is refused.
   * @throws the signal's reason.
   */
  async appendRowsAsync(row: number, ids: ArrayLike<number>, options: ReadOptions = {}): Promise<TargetRows> {
    const length = this.#enterChunk(row, ids, options);
    return await this.#read(ids.length, this.#appendRows(row, ids, length), options);
  }

  *#appendRows(row: number, ids: ArrayLike<number>, length: number): Steps<TargetRows> {
    yield* this.#settle(row, length);
    this.#endEarly();
    return yield* this.#chunk(row, ids, 0, ids.length, true);
  }

  /** Checks a part of a prompt; the length that its tokens have. */
  #enter(row: number, ids: ArrayLike<number>, { promptLength }: ReadOptions = {}): number {
    this.#refuseUse();
    if (ids.length === 0) throw new UsageError("append: expected at least one token, got none");
    const end = this.cache.lengths[row] + ids.length;
    this.#reserve(end);
    return Math.max(end, promptLength ?? 0);
  }

  #enterChunk(row: number, ids: ArrayLike<number>, options: ReadOptions = {}): number {
    if (ids.length === 0 || ids.length > this.prefillChunk)
      throw new UsageError(`appendAll: expected 1 to ${this.prefillChunk} tokens, got ${ids.length}`);
    return this.#enter(row, ids, options);
  }

  /** A part that is about as long as a step of decoding, which holds the event loop as well, is not worth another thread's time. */
  async #read<T>(count: number, steps: Steps<T>, options: ReadOptions): Promise<T> {
    if (count > shortPart) return await this.#later(steps, options);
    options.signal?.throwIfAborted();
    return runNow(steps);
  }

  #later<T>(steps: Steps<T>, { signal }: ReadOptions): Promise<T> {
    return this.#alone(runLater(steps, signal));
  }

  /** Every other call is refused until the work is done. */
  async #alone<T>(work: Promise<T>): Promise<T> {
    this.#reading = true;
    try {
      return await work;
    } finally {
      this.#reading = false;
    }
  }

  /** Makes these rows part of what {@link DecoderRunner.appendTree} returns. Programs without them are compiled anew. */
  provide({ hidden = false, layers = [] }: TargetFeatures): void {
    this.#refuseUse();
    const wrong = layers.find((layer) => !(Number.isInteger(layer) && layer >= 0 && layer < this.config.layers));
    if (wrong !== undefined)
      throw new UsageError(`provide: expected layers 0 to ${this.config.layers - 1}, got ${wrong}`, {
        hint: "The drafter was made for a deeper model.",
      });
    const had = this.#programs.features;
    const all = [...new Set([...(had.layers ?? []), ...layers])].sort((a, b) => a - b);
    if ((had.hidden || !hidden) && all.length === (had.layers?.length ?? 0)) return;
    this.#programs.provide({ hidden: had.hidden || hidden, layers: all });
    this.#early = undefined;
    for (const calls of [this.#single, this.#several, this.#trees]) calls.clear();
  }

  /**
   * Appends a tree of tokens, each of which sees the cache and its ancestors, and returns rows for all N of them in the order of the
   * nodes. The cache then holds all N: keep those of a path with `cache.gatherRows(row, start, path)`, start being the length before.
   * At most `prefillChunk` tokens. The result is a view that the next call overwrites.
   * @param ids [at least N]
   * @throws UsageError when the cache is full, or a path is longer than the window of a sliding layer or than {@link maxTreeDepth}.
   */
  appendTree(row: number, shape: TreeShape, ids: ArrayLike<number>): TargetRows {
    this.#refuseUse();
    const { size } = shape;
    if (size > this.prefillChunk)
      throw new UsageError(`appendTree: expected at most ${this.prefillChunk} tokens, got ${size}`, { hint: "Draft fewer tokens." });
    const start = this.cache.lengths[row];
    this.#reserve(start + size);
    const deepest = this.maxTreeDepth(row);
    if (shape.maxDepth > deepest)
      throw new UsageError(`appendTree: expected paths of at most ${deepest} tokens behind the root, got ${shape.maxDepth}`, {
        hint: "Positions change for the whole text at the model's original length: draft up to there, and go on behind it.",
      });
    runNow(this.#settle(row, start + 1));
    this.#endEarly();
    if (shape.isChain && size <= this.exactBlock) return this.#block(row, ids, 0, size);
    if (size === 1) return this.#one(row, ids[0]);
    if (shape.isChain) return runNow(this.#chunk(row, ids, 0, size, true));
    let call = this.#trees.get(row);
    if (!call) {
      call = this.#programs.tree(row);
      this.#trees.set(row, call);
    }
    if (shape.maxDepth >= (this.config.window ?? Number.POSITIVE_INFINITY))
      throw new UsageError(`appendTree: expected paths shorter than the window of ${this.config.window}, got ${shape.maxDepth}`);
    this.#note(row, ids, 0, size);
    const rows = call.run(shape, ids, start);
    this.cache.lengths[row] = start + size;
    return rows;
  }

  /**
   * One token for every sequence at once: ids [B] → logits [B, V]. Sequences with `active` 0 stay as they are; their logits mean nothing.
   */
  step(ids: ArrayLike<number>, active?: ArrayLike<number>): Float32Array {
    this.#refuseUse();
    if (this.batch === 1) return this.append(0, [ids[0]]);
    this.#endEarly();
    const call = (this.#batched ??= this.#programs.batched());
    const { lengths } = this.cache;
    // Before ids are written: what is computed again goes through other calls.
    for (let row = 0; row < this.batch; row++)
      if ((!active || active[row]) && lengths[row] < this.capacity) runNow(this.#settle(row, lengths[row] + 1));
    let total = 0;
    for (let row = 0; row < this.batch; row++) {
      // An idle row computes at a position that it may overwrite: the first one beyond its tokens, or its last.
      const position = Math.min(lengths[row], this.capacity - 1);
      if (!active || active[row]) this.#reserve(lengths[row] + 1);
      this.cache.tokensOf(row)[position] = ids[row];
      call.ids[row] = ids[row];
      call.positions[row] = position;
      call.lengths[row] = position;
      if (call.rotary) this.#rotary?.write(call.rotary, row, row, [position]);
      total = Math.max(total, position + 1);
    }
    call.total[0] = total;
    call.bound.run();
    for (let row = 0; row < this.batch; row++) if (!active || active[row]) lengths[row]++;
    return call.rows.logits;
  }

  /** Empties a sequence. */
  reset(row: number): void {
    this.#refuseUse();
    this.cache.truncate(row, 0);
  }

  get memory(): RunnerMemory {
    return { weights: bytesOfTree(this.#model.parameters.tree), packedCopies: this.#programs.packedBytes, cache: this.cache.bytes };
  }

  /** Times of every operator since the programs were compiled; needs the option `profile`. Ends profiling. */
  endProfile(): ProfileEvent[] {
    this.#refuseUse();
    return this.#programs.endProfile();
  }

  dispose(): void {
    this.#programs.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #refuseUse(): void {
    this.#programs.refuseDisposed();
    if (this.#reading)
      throw new BackendError("DecoderRunner: expected no other call while a prompt is read, got one", { hint: "Await the first one." });
  }

  #reserve(length: number): void {
    if (length > this.capacity) {
      throw new UsageError(`cache: expected at most ${this.capacity} tokens in a sequence, got ${length}`, {
        hint: "Give a larger capacity, a shorter prompt or fewer new tokens.",
      });
    }
  }

  #one(row: number, id: number): TargetRows {
    this.#endEarly();
    let call = this.#single.get(row);
    if (!call) {
      call = this.#programs.sequence(row, 1, 1);
      this.#single.set(row, call);
    }
    const position = this.cache.lengths[row];
    call.ids[0] = id;
    call.positions[0] = position;
    call.lengths[0] = position;
    call.total[0] = position + 1;
    this.cache.tokensOf(row)[position] = id;
    if (call.rotary) this.#rotary?.write(call.rotary, 0, row, call.positions);
    call.bound.run();
    this.cache.lengths[row] = position + 1;
    return call.rows;
  }

  /** Tokens in a call of `exactBlock` ones: the first `count` count. Rows of all of them. */
  #block(row: number, ids: ArrayLike<number>, from: number, count: number): TargetRows {
    const filled = (this.#blockIds ??= new Int32Array(this.exactBlock));
    filled.fill(0);
    for (let i = 0; i < count; i++) filled[i] = ids[from + i];
    const start = this.cache.lengths[row];
    const rows = runNow(this.#chunk(row, filled, 0, filled.length, true));
    this.cache.truncate(row, start + count);
    return rows;
  }

  /** @param all rows of every token, or of the last one alone. */
  *#chunk(row: number, ids: ArrayLike<number>, from: number, count: number, all: boolean): Steps<TargetRows> {
    const several = this.#severalOf(row);
    const rows = several.resize(count, all ? count : 1);
    if (all) for (let i = 0; i < count; i++) several.wanted[i] = i;
    else several.wanted[0] = count - 1;
    const { call } = several;
    const start = this.cache.lengths[row];
    for (let i = 0; i < count; i++) {
      call.ids[i] = ids[from + i];
      // Learned positions end with the context; what fills up a block may lie behind.
      call.positions[i] = Math.min(start + i, this.capacity - 1);
    }
    this.#note(row, ids, from, count);
    if (call.rotary) this.#rotary?.write(call.rotary, 0, row, call.positions.subarray(0, count));
    call.lengths[0] = start + count - 1;
    call.total[0] = start + count;
    yield call.bound;
    this.cache.lengths[row] = start + count;
    return rows;
  }

  /** Whatever is neither a prompt nor one of the first tokens needs packed weights. */
  #endEarly(): void {
    this.#isTokenEarly = false;
    this.#early = undefined;
    this.#programs.endEarly();
  }

  #severalOf(row: number): SequenceCall {
    this.#early ??= this.#programs.early(row, this.prefillChunk);
    if (this.#early) return this.#early;
    let several = this.#several.get(row);
    if (!several) {
      several = this.#programs.several(row, this.prefillChunk);
      this.#several.set(row, several);
    }
    return several;
  }

  /** Notes which tokens the next rows of a sequence are of. */
  #note(row: number, ids: ArrayLike<number>, from: number, count: number): void {
    const tokens = this.cache.tokensOf(row);
    const start = this.cache.lengths[row];
    for (let i = 0; i < count; i++) tokens[start + i] = ids[from + i];
  }
}
