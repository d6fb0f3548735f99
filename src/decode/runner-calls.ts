// The bound calls of a runner: memory that a step writes its integers into and reads its rows from. A call whose number of tokens varies
// keeps views of one memory for each size that occurs, so that a step of a known size makes nothing anew.
import type { DecoderConfig } from "../models/decoder/config.ts";
import { allocate, type TensorBuffer, viewOf } from "../runtime/buffer.ts";
import type { BoundProgram } from "../runtime/program.ts";
import type { RotaryMemory, RotaryRows } from "./rotary-rows.ts";
import type { TreeShape } from "./token-tree.ts";

/** What drafters read of the target, besides logits. */
export interface TargetFeatures {
  /** Rows after the final norm, which the output matrix reads. Default false. */
  hidden?: boolean;
  /** Rows as they enter these layers. Default none. */
  layers?: readonly number[];
}

/** Rows of one call, one for each of the tokens asked for. Views that the next call overwrites. */
export interface TargetRows {
  /** [rows, V] */
  readonly logits: Float32Array;
  /** [rows, C], when the runner provides it. */
  readonly hidden?: Float32Array;
  /** By number of the layer, [rows, C], when the runner provides it. */
  readonly layers?: ReadonlyMap<number, Float32Array>;
}

/** A bound program of any signature: a call sets its inputs and outputs by name. */
export interface BoundCall extends Pick<BoundProgram<unknown, unknown>, "run" | "runAsync" | "setInput" | "setOutput"> {
  readonly inputs: unknown;
}

/** Calls of a work that is done in several: whoever drives it runs each that it yields before it asks for the next. */
export type Steps<T> = Generator<BoundCall, T, void>;

/** Runs all calls at once. */
export function runNow<T>(steps: Steps<T>): T {
  for (;;) {
    const next = steps.next();
    if (next.done) return next.value;
    next.value.run();
  }
}

/** Runs them while the event loop goes on. @throws the signal's reason when it is aborted: also in the middle of a call. */
export async function runLater<T>(steps: Steps<T>, signal?: AbortSignal): Promise<T> {
  for (;;) {
    signal?.throwIfAborted();
    const next = steps.next();
    if (next.done) return next.value;
    try {
      await next.value.runAsync(signal);
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    }
  }
}

/** Outputs by name, and the rows that a caller sees of them. */
export interface RowBuffers {
  readonly buffers: ReadonlyMap<string, TensorBuffer<"f32">>;
  readonly rows: TargetRows;
}

export function allocateRows({ vocabSize, width }: DecoderConfig, { hidden, layers = [] }: TargetFeatures, count: number): RowBuffers {
  const buffers = new Map<string, TensorBuffer<"f32">>([["logits", allocate("f32", [count, vocabSize])]]);
  if (hidden) buffers.set("hidden", allocate("f32", [count, width]));
  for (const layer of layers) buffers.set(`layers.${layer}`, allocate("f32", [count, width]));
  const data = (name: string): Float32Array => (buffers.get(name) as TensorBuffer<"f32">).data;
  return {
    buffers,
    rows: {
      logits: data("logits"),
      ...(hidden ? { hidden: data("hidden") } : {}),
      ...(layers.length > 0 ? { layers: new Map(layers.map((layer) => [layer, data(`layers.${layer}`)])) } : {}),
    },
  };
}

/** Memory of one bound call: ids in, rows out. */
export interface Call {
  bound: BoundCall;
  ids: Int32Array;
  positions: Int32Array;
  lengths: Int32Array;
  total: Int32Array;
  rows: TargetRows;
  /** Where the program reads them. */
  rotary?: RotaryMemory;
}

/** The call of a sequence whose number of new tokens varies. */
export class SequenceCall {
  readonly call: Call;
  /** Which of the new tokens get rows: to be filled after `resize`. */
  wanted: Int32Array;
  readonly #makeRows: (count: number) => RowBuffers;
  readonly #positioned: boolean;
  readonly #ids: TensorBuffer;
  readonly #positions: TensorBuffer;
  readonly #views = new Map<number, { ids: TensorBuffer; positions: TensorBuffer; rotary?: RotaryMemory }>();
  readonly #outputs = new Map<number, { wanted: TensorBuffer<"i32">; made: RowBuffers }>();
  #time = -1;
  #count = -1;

  /** @param positioned whether the program reads positions. */
  constructor(call: Call, makeRows: (count: number) => RowBuffers, positioned: boolean) {
    this.call = call;
    this.wanted = new Int32Array(0);
    this.#makeRows = makeRows;
    this.#positioned = positioned;
    const inputs = call.bound.inputs as { ids: TensorBuffer; positions: TensorBuffer };
    this.#ids = inputs.ids;
    this.#positions = inputs.positions;
  }

  /** Sets the number of tokens of the next run. */
  resizeTime(time: number): void {
    const { bound } = this.call;
    if (time !== this.#time) {
      let view = this.#views.get(time);
      if (!view) {
        const { rotary } = this.call;
        const rows = (buffer: TensorBuffer<"f32">) => viewOf(buffer, [1, time, buffer.shape[2]]) as TensorBuffer<"f32">;
        view = {
          ids: viewOf(this.#ids, [1, time]),
          positions: viewOf(this.#positions, [1, time]),
          ...(rotary ? { rotary: { cosines: rows(rotary.cosines), sines: rows(rotary.sines) } } : {}),
        };
        this.#views.set(time, view);
      }
      bound.setInput("ids", view.ids);
      if (this.#positioned) bound.setInput("positions", view.positions);
      if (view.rotary) setRotary(bound, view.rotary);
      this.#time = time;
    }
  }

  /** Sets the sizes of the next run and returns its rows. */
  resize(time: number, count: number): TargetRows {
    const { bound } = this.call;
    this.resizeTime(time);
    let output = this.#outputs.get(count);
    if (!output) {
      output = { wanted: allocate("i32", [count]), made: this.#makeRows(count) };
      this.#outputs.set(count, output);
    }
    if (count !== this.#count) {
      bound.setInput("rows", output.wanted);
      for (const [name, buffer] of output.made.buffers) bound.setOutput(name, buffer);
      this.#count = count;
    }
    this.wanted = output.wanted.data;
    return output.made.rows;
  }
}

function setRotary(bound: BoundCall, { cosines, sines }: RotaryMemory): void {
  bound.setInput("rotary.cosines", cosines);
  bound.setInput("rotary.sines", sines);
}

/** Inputs of a tree of one size. */
interface TreeMemory {
  rotary?: RotaryMemory;
  ids: TensorBuffer<"i32">;
  positions: TensorBuffer<"i32">;
  slots: TensorBuffer<"i32">;
  wanted: TensorBuffer<"i32">;
  made: RowBuffers;
}

/** The call of a sequence whose new tokens are a tree; every node gets its row. */
export class TreeCall {
  readonly #bound: BoundCall;
  readonly #makeRows: (count: number) => RowBuffers;
  readonly #composed: boolean;
  readonly #lengths: Int32Array;
  readonly #total: Int32Array;
  /** Low words of 64-bit numbers. */
  readonly #before: Int32Array;
  readonly #after: Int32Array;
  readonly #capacity: number;
  readonly #memories = new Map<number, TreeMemory>();
  readonly #positioned: boolean;
  readonly #rotary: { rows: RotaryRows; row: number } | undefined;
  #memory: TreeMemory | undefined;
  #shape: TreeShape | undefined;

  /**
   * @param composed whether attention is composed of plain operators, which then read `slots`.
   * @param positioned whether the program reads positions.
   */
  constructor(
    bound: BoundCall,
    makeRows: (count: number) => RowBuffers,
    capacity: number,
    composed: boolean,
    positioned: boolean,
    rotary?: { rows: RotaryRows; row: number },
  ) {
    this.#positioned = positioned;
    this.#rotary = rotary;
    this.#bound = bound;
    this.#makeRows = makeRows;
    this.#composed = composed;
    this.#capacity = capacity;
    const { lengths, total, tree } = bound.inputs as {
      lengths: TensorBuffer<"i32">;
      total: TensorBuffer<"i32">;
      tree: { before: TensorBuffer<"i64">; after: TensorBuffer<"i64"> };
    };
    this.#lengths = lengths.data;
    this.#total = total.data;
    this.#before = wordsOf(tree.before);
    this.#after = wordsOf(tree.after);
  }

  /** Runs the tree behind `start` cached tokens. */
  run(shape: TreeShape, ids: ArrayLike<number>, start: number): TargetRows {
    const { size, depths } = shape;
    if (shape !== this.#shape) this.#use(shape);
    const memory = this.#memory as TreeMemory;
    const [target, positions, slots] = [memory.ids.data, memory.positions.data, memory.slots.data];
    for (let node = 0; node < size; node++) {
      target[node] = ids[node];
      positions[node] = start + depths[node];
      slots[node] = start + node;
    }
    if (memory.rotary) this.#rotary?.rows.write(memory.rotary, 0, this.#rotary.row, positions);
    this.#lengths[0] = start + size - 1;
    this.#total[0] = start + size;
    this.#before[0] = start;
    this.#after[2] = this.#capacity - start - size;
    this.#bound.run();
    return memory.made.rows;
  }

  #use(shape: TreeShape): void {
    const bound = this.#bound;
    let memory = this.#memories.get(shape.size);
    if (!memory) {
      const { size } = shape;
      memory = {
        ids: allocate("i32", [1, size]),
        positions: allocate("i32", [1, size]),
        slots: allocate("i32", [1, size]),
        wanted: allocate("i32", [size]),
        made: this.#makeRows(size),
        ...(this.#rotary ? { rotary: this.#rotary.rows.allocate(1, size) } : {}),
      };
      for (let i = 0; i < size; i++) memory.wanted.data[i] = i;
      this.#memories.set(size, memory);
    }
    bound.setInput("ids", memory.ids);
    if (this.#positioned) bound.setInput("positions", memory.positions);
    if (memory.rotary) setRotary(bound, memory.rotary);
    if (this.#composed) bound.setInput("tree.slots", memory.slots);
    bound.setInput("rows", memory.wanted);
    bound.setInput("tree.bias", shape.bias);
    for (const [name, buffer] of memory.made.buffers) bound.setOutput(name, buffer);
    this.#memory = memory;
    this.#shape = shape;
  }
}

const wordsOf = ({ data }: TensorBuffer<"i64">): Int32Array => new Int32Array(data.buffer, data.byteOffset, data.length * 2);
