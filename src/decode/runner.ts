// Runs a decoder over a KV cache: prefill in chunks, one-token steps for one sequence or a batch of unequal lengths, trees of drafts.
// Everything that a step needs is bound once; a step writes a few integers, runs, and leaves logits in memory that it owns.
import { BackendError, UsageError } from "../base/errors.ts";
import {
  type CachedEmission,
  decoderCached,
  emissionFor,
  readsPositions,
  readsRotary,
  treeEmissionFor,
  treeReadsPositions,
} from "../models/decoder/cached.ts";
import { type DecoderConfig, rotaryWidth } from "../models/decoder/config.ts";
import { bytesOfTree, type InferenceModel } from "../models/decoder/quantise.ts";
import { floatMatrices, hasBytesAlone } from "../models/decoder/quantised-float.ts";
import type { Backend, ProfileEvent } from "../runtime/backend.ts";
import { allocate, type TensorBuffer } from "../runtime/buffer.ts";
import { KVCache } from "../runtime/kv-cache.ts";
import { describeMachine } from "../runtime/machine.ts";
import { compile, type Program, spec } from "../runtime/program.ts";
import type { DType } from "../tensor/dtype.ts";
import type { Dim } from "../tensor/graph.ts";
import { flatten, mapTree } from "../tensor/tree.ts";
import { floatPromptDefault } from "./float-prompt.ts";
import { RotaryRows } from "./rotary-rows.ts";
import {
  allocateRows,
  type Call,
  type RowBuffers,
  runLater,
  runNow,
  SequenceCall,
  type Steps,
  type TargetFeatures,
  type TargetRows,
  TreeCall,
} from "./runner-calls.ts";
import { StepCosts } from "./step-costs.ts";
import { TreeShape } from "./token-tree.ts";

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
  /**
   * Tokens from which a call of the prompt computes with float32 copies of 8-bit matrices, made anew one at a time in each call, instead of
   * rounding activations to 8 bits. Default: 32 on x86 with AVX2 and no instruction for products of 8 bits, as far as the system tells;
   * never (Infinity) elsewhere. Models with 4-bit matrices or experts do not have this form.
   */
  floatPromptFrom?: number;
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

type Inputs = ReturnType<typeof inputSpecs>;
interface Outputs {
  logits?: unknown;
  hidden?: unknown;
  layers?: unknown;
  cache: unknown;
}
type AnyProgram = Program<Inputs, Outputs>;

/** Inputs of a program over S new tokens with R rows; those of a tree besides. */
function inputSpecs({ config, parameters }: InferenceModel, batch: number, time: Dim, rows: Dim, capacity: number, isTree: boolean) {
  const layer = () => {
    const shape = [batch, config.kvHeads, capacity, config.headWidth];
    return { key: spec("f32", shape), value: spec("f32", shape) };
  };
  const turns = () => spec("f32", [batch, time, rotaryWidth(config) / 2]);
  return {
    parameters: mapTree(parameters.tree, (leaf) => spec(leaf.dtype as DType, leaf.shape)),
    ids: spec("i32", [batch, time]),
    positions: spec("i32", [batch, time]),
    lengths: spec("i32", [batch]),
    total: spec("i32", []),
    rows: spec("i32", [rows]),
    cache: Array.from({ length: config.layers }, layer),
    ...(readsRotary(config) ? { rotary: { cosines: turns(), sines: turns() } } : {}),
    ...(isTree
      ? {
          tree: { bias: spec("f32", [1, 1, time, time]), slots: spec("i32", [1, time]), before: spec("i64", [2]), after: spec("i64", [2]) },
        }
      : {}),
  };
}

/** Tokens that are read at once. */
const shortPart = 16;

const noRows: RowBuffers = { buffers: new Map(), rows: { logits: new Float32Array(0) } };

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
  /** Positions in memory. */
  readonly #positions: number;
  readonly #backend: Backend;
  readonly #model: InferenceModel;
  readonly #rotary: RotaryRows | undefined;
  readonly #options: Required<Pick<RunnerOptions, "weights" | "emission" | "profile">>;
  #sequenceProgram: AnyProgram | undefined;
  #batchProgram: AnyProgram | undefined;
  #treeProgram: AnyProgram | undefined;
  /** Reads prompts, and writes nothing but the cache. */
  #promptProgram: AnyProgram | undefined;
  readonly #floatPromptFrom: number;
  readonly #prompts = new Map<number, SequenceCall>();
  readonly #single = new Map<number, Call>();
  readonly #several = new Map<number, SequenceCall>();
  readonly #trees = new Map<number, TreeCall>();
  #batched: Call | undefined;
  #blockIds: Int32Array | undefined;
  #features: TargetFeatures = {};
  #disposed = false;
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
      floatPromptFrom,
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
    if (exactBlock > 0 && batch > 1)
      throw new UsageError(`exactBlock: expected a runner of batch 1, got ${batch}`, { hint: "Exact decoding runs one sequence." });
    this.capacity = capacity;
    this.exactBlock = exactBlock;
    // What fills up a block lies behind the tokens that count.
    this.#positions = capacity + Math.max(0, exactBlock - 1);
    this.prefillChunk = Math.max(Math.min(prefillChunk, capacity), exactBlock);
    this.#options = { weights, emission, profile };
    const never = Number.POSITIVE_INFINITY;
    this.#floatPromptFrom = hasBytesAlone(model) ? (floatPromptFrom ?? floatPromptDefault(describeMachine())) : never;
    const { layers, kvHeads, headWidth } = model.config;
    this.cache = new KVCache({ layers, batch, kvHeads, capacity: this.#positions, headWidth });
    this.#rotary = RotaryRows.of(model.config, batch);
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
    return await this.#read(ids.length, this.#append(row, ids, length), options);
  }

  *#append(row: number, ids: ArrayLike<number>, length: number): Steps<Float32Array> {
    yield* this.#settle(row, length);
    const last = ids.length - 1;
    if (this.exactBlock > 0) {
      yield* this.#chunks(row, ids, last);
      return this.#block(row, ids, last, 1).logits.subarray(0, this.config.vocabSize);
    }
    const tail = last % this.prefillChunk;
    if (last === 0 || tail >= this.#floatPromptFrom) {
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
    await this.#read(ids.length, this.#prefill(row, ids, ids.length, length), options);
  }

  *#prefill(row: number, ids: ArrayLike<number>, count: number, length: number): Steps<void> {
    yield* this.#settle(row, length);
    yield* this.#chunks(row, ids, count);
  }

  *#chunks(row: number, ids: ArrayLike<number>, length: number): Steps<void> {
    for (let from = 0; from < length; from += this.prefillChunk) {
      const count = Math.min(this.prefillChunk, length - from);
      if (count >= this.#floatPromptFrom) yield* this.#promptChunk(row, ids, from, count);
      else yield* this.#chunk(row, ids, from, count, false);
    }
  }

  /** Positions that depend on the length of the sequence are set for `length` tokens; what the row holds is computed again where it must. */
  *#settle(row: number, length: number): Steps<void> {
    const again = this.#rotary?.settle(this.cache, row, length);
    if (again) yield* this.#chunks(row, again, again.length);
  }

  /**
   * What the next token of a row needs beforehand: its tokens read again, where their positions depend on the length (longrope, at the
   * original length). Other calls do that themselves, at once. Undefined where there is nothing to do.
   */
  prepare(row: number, options: Pick<ReadOptions, "signal"> = {}): Promise<void> | undefined {
    this.#refuseUse();
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

  async #later<T>(steps: Steps<T>, { signal }: ReadOptions): Promise<T> {
    this.#reading = true;
    try {
      return await runLater(steps, signal);
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
    const had = this.#features;
    const all = [...new Set([...(had.layers ?? []), ...layers])].sort((a, b) => a - b);
    if ((had.hidden || !hidden) && all.length === (had.layers?.length ?? 0)) return;
    this.#features = { hidden: had.hidden || hidden, layers: all };
    this.#sequenceProgram?.dispose();
    this.#treeProgram?.dispose();
    this.#sequenceProgram = undefined;
    this.#treeProgram = undefined;
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
    if (shape.isChain && size <= this.exactBlock) return this.#block(row, ids, 0, size);
    if (size === 1) return this.#one(row, ids[0]);
    if (shape.isChain) return runNow(this.#chunk(row, ids, 0, size, true));
    let call = this.#trees.get(row);
    if (!call) {
      call = this.#bindTree(row);
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
    const call = (this.#batched ??= this.#bindBatch());
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
    const { tree } = this.#model.parameters;
    const { embedding, ...read } = tree;
    // What is gathered from is never packed; a tied embedding is the head's matrix as well.
    const packed = bytesOfTree(read) + (tree.head ? 0 : bytesOfTree(embedding.tokens));
    // That of prompts reads the blocks where they are.
    const programs = this.#programs().filter((program) => program !== this.#promptProgram).length;
    return {
      weights: bytesOfTree(tree),
      packedCopies: this.#options.weights === "packed" ? programs * packed : 0,
      cache: this.cache.bytes,
    };
  }

  /** Times of every operator since the programs were compiled; needs the option `profile`. Ends profiling. */
  endProfile(): ProfileEvent[] {
    this.#refuseUse();
    return this.#programs().flatMap((program) => program.endProfile());
  }

  dispose(): void {
    this.#disposed = true;
    for (const program of this.#programs()) program.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #programs(): AnyProgram[] {
    return [this.#sequenceProgram, this.#batchProgram, this.#treeProgram, this.#promptProgram].filter((program) => program !== undefined);
  }

  #refuseUse(): void {
    this.#refuseDisposed();
    if (this.#reading)
      throw new BackendError("DecoderRunner: expected no other call while a prompt is read, got one", { hint: "Await the first one." });
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

  #one(row: number, id: number): TargetRows {
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
    let several = this.#several.get(row);
    if (!several) {
      several = this.#sequenceCall(this.#bindSequence(row, this.prefillChunk, 1));
      this.#several.set(row, several);
    }
    const rows = several.resize(count, all ? count : 1);
    if (all) for (let i = 0; i < count; i++) several.wanted[i] = i;
    else several.wanted[0] = count - 1;
    yield* this.#runChunk(several.call, row, ids, from, count);
    return rows;
  }

  /** Tokens of a prompt for the cache alone, with float32 copies of the matrices. */
  *#promptChunk(row: number, ids: ArrayLike<number>, from: number, count: number): Steps<void> {
    let call = this.#prompts.get(row);
    if (!call) {
      this.#promptProgram ??= this.#compile(1, "S", "R", "prompt");
      call = this.#sequenceCall(this.#bind(this.#promptProgram, this.cache.row(row), 1, this.prefillChunk, noRows));
      this.#prompts.set(row, call);
    }
    call.resizeTime(count);
    yield* this.#runChunk(call.call, row, ids, from, count);
  }

  *#runChunk(call: Call, row: number, ids: ArrayLike<number>, from: number, count: number): Steps<void> {
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
  }

  /** Notes which tokens the next rows of a sequence are of. */
  #note(row: number, ids: ArrayLike<number>, from: number, count: number): void {
    const tokens = this.cache.tokensOf(row);
    const start = this.cache.lengths[row];
    for (let i = 0; i < count; i++) tokens[start + i] = ids[from + i];
  }

  readonly #makeRows = (count: number): RowBuffers => allocateRows(this.config, this.#features, count);

  #sequenceCall(call: Call): SequenceCall {
    return new SequenceCall(call, this.#makeRows, readsPositions(this.config, this.#options.emission));
  }

  #compile(batch: number, time: Dim, rows: Dim, kind?: "tree" | "prompt"): AnyProgram {
    // In the middle of a prompt: nobody would dispose of the program.
    this.#refuseDisposed();
    const isTree = kind === "tree";
    const specs = inputSpecs(this.#model, batch, time, rows, this.#positions, isTree);
    const { weights, profile } = this.#options;
    const emission = isTree ? treeEmissionFor(this.config, this.#options.emission) : this.#options.emission;
    const features = batch === 1 ? this.#features : {};
    const leaves = flatten<TensorBuffer>(this.#model.parameters.tree as never).map(([path, leaf]) => [`parameters.${path}`, leaf] as const);
    if (kind === "prompt") {
      const prompt = ({ parameters, ...inputs }: Record<string, unknown>): Outputs => {
        const matrices = floatMatrices(this.config, parameters as never);
        return { cache: decoderCached(this.config, matrices, inputs as never, emission).cache };
      };
      return compile(this.#backend, prompt as never, specs, { name: "decode prompt", profile });
    }
    return compile(
      this.#backend,
      ({ parameters, ...inputs }) => decoderCached(this.config, parameters as never, inputs as never, emission, features) as Outputs,
      specs,
      {
        name: isTree ? "decode tree" : batch === 1 ? "decode" : `decode x ${batch}`,
        profile,
        ...(weights === "bound" ? {} : { weights: new Map(leaves), prepack: weights === "packed" }),
      },
    );
  }

  #bindSequence(row: number, time: number, rows: number): Call {
    this.#sequenceProgram ??= this.#compile(1, "S", "R");
    return this.#bind(this.#sequenceProgram, this.cache.row(row), 1, time, this.#makeRows(rows));
  }

  #bindBatch(): Call {
    this.#batchProgram ??= this.#compile(this.batch, 1, this.batch);
    return this.#bind(this.#batchProgram, this.cache.layers, this.batch, 1, allocateRows(this.config, {}, this.batch));
  }

  #bindTree(row: number): TreeCall {
    this.#treeProgram ??= this.#compile(1, "S", "R", "tree");
    const tree = {
      bias: TreeShape.chain(0).bias,
      slots: allocate("i32", [1, 1]),
      before: allocate("i64", [2]),
      after: allocate("i64", [2]),
    };
    const call = this.#bind(this.#treeProgram, this.cache.row(row), 1, 1, this.#makeRows(1), { tree });
    const emission = treeEmissionFor(this.config, this.#options.emission);
    const positioned = treeReadsPositions(this.config, emission);
    const rotary = this.#rotary && { rows: this.#rotary, row };
    return new TreeCall(call.bound, this.#makeRows, this.#positions, emission === "composed", positioned, rotary);
  }

  #bind(
    program: AnyProgram,
    cache: readonly { key: TensorBuffer; value: TensorBuffer }[],
    batch: number,
    time: number,
    { buffers, rows }: RowBuffers,
    extra: Readonly<Record<string, unknown>> = {},
  ): Call {
    const ids = allocate("i32", [batch, time]);
    const positions = allocate("i32", [batch, time]);
    const lengths = allocate("i32", [batch]);
    const total = allocate("i32", []);
    const count = buffers.get("logits")?.shape[0] ?? 0;
    const wanted = allocate("i32", [count]);
    for (let i = 0; i < count; i++) wanted.data[i] = i;
    const isBound = this.#options.weights === "bound" || program === this.#promptProgram;
    const parameters = isBound ? { parameters: this.#model.parameters.tree } : {};
    const layers = Object.fromEntries((this.#features.layers ?? []).map((layer) => [layer, buffers.get(`layers.${layer}`)]));
    const rotary = this.#rotary?.allocate(batch, time);
    const bound = program.bind(
      { ...parameters, ids, positions, lengths, total, rows: wanted, cache, ...(rotary ? { rotary } : {}), ...extra } as never,
      {
        ...(buffers.has("logits") ? { logits: buffers.get("logits") } : {}),
        cache,
        ...(buffers.has("hidden") ? { hidden: buffers.get("hidden") } : {}),
        ...(Object.values(layers).some(Boolean) ? { layers } : {}),
      } as never,
    );
    return {
      bound,
      ids: ids.data,
      positions: positions.data,
      lengths: lengths.data,
      total: total.data,
      rows,
      ...(rotary ? { rotary } : {}),
    };
  }
}
