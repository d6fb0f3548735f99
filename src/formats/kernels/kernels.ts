// WebAssembly for what is done to every byte of a weight file: it runs at the speed of memory from its first call, where a loop in JavaScript
// is interpreted first and handles a value at a time. Its memory is a window of fixed size that data passes through in chunks; whoever
// calls fills the input, runs a kernel and copies the result out before the next call. kernels.wat has the source.
import { kernelBytes } from "./bytes.ts";

/** Bytes of a chunk: input and output stay in the second-level cache. */
export const inputBytes = 1 << 18;
const outputStart = inputBytes;
const outputBytes = inputBytes * 2;
const scalesStart = outputStart + outputBytes;
/** A block of 18 bytes is the smallest with a scale of its own. */
const maxScales = 1 << 14;

export interface Kernels {
  /** Filled with stored bytes before a kernel runs. */
  readonly input: Uint8Array<ArrayBuffer>;
  /** 8-bit and 4-bit levels, as bytes. */
  readonly packed: Uint8Array<ArrayBuffer>;
  /** Widened numbers: the same memory as `packed`. */
  readonly floats: Float32Array<ArrayBuffer>;
  /** A scale, and an offset where there is one, for each block. */
  readonly scales: Float32Array<ArrayBuffer>;
  readonly offsets: Float32Array<ArrayBuffer>;
  /** The first `count` stored numbers to `floats`, exactly. */
  widen(type: "f16" | "bf16", count: number): void;
  /** The first `blocks` stored blocks to `packed`, `scales` and, for Q4_1, `offsets`, as MatMulNBits has them. */
  repack(type: RepackedType, blocks: number): void;
}

/** Types of GGUF, in blocks of 32 values. */
export const repackedTypes = ["Q8_0", "Q4_0", "Q4_1"] as const;
export type RepackedType = (typeof repackedTypes)[number];

/** What is used of it; the compiler's library has it only for browsers. */
declare const WebAssembly:
  | { readonly Module: new (bytes: Uint8Array) => object; readonly Instance: new (module: object) => { readonly exports: unknown } }
  | undefined;

interface Exports {
  memory: { readonly buffer: ArrayBuffer };
  f16(from: number, to: number, count: number): void;
  bf16(from: number, to: number, count: number): void;
  q8_0(from: number, packed: number, scales: number, offsets: number, blocks: number): void;
  q4_0(from: number, packed: number, scales: number, offsets: number, blocks: number): void;
  q4_1(from: number, packed: number, scales: number, offsets: number, blocks: number): void;
}

let made: { readonly kernels: Kernels | undefined } | undefined;

/**
 * The kernels, made once; undefined where there is no WebAssembly (`node --jitless`), no vector instructions, or no address space for its
 * memory (V8 reserves 10 GB of addresses, which `ulimit -v` may refuse).
 */
export function kernels(): Kernels | undefined {
  made ??= { kernels: make() };
  return made.kernels;
}

function make(): Kernels | undefined {
  let exported: Exports;
  try {
    if (typeof WebAssembly === "undefined") return undefined;
    const module = new WebAssembly.Module(Buffer.from(kernelBytes, "base64"));
    exported = new WebAssembly.Instance(module).exports as Exports;
  } catch {
    return undefined;
  }
  const { memory, ...run } = exported;
  const { buffer } = memory;
  const offsetsStart = scalesStart + maxScales * 4;
  const byType = { Q8_0: run.q8_0, Q4_0: run.q4_0, Q4_1: run.q4_1 };
  return {
    input: new Uint8Array(buffer, 0, inputBytes),
    packed: new Uint8Array(buffer, outputStart, outputBytes),
    floats: new Float32Array(buffer, outputStart, outputBytes / 4),
    scales: new Float32Array(buffer, scalesStart, maxScales),
    offsets: new Float32Array(buffer, offsetsStart, maxScales),
    // Eight at a time; what is computed beyond the count is never read.
    widen: (type, count) => run[type](0, outputStart, (count + 7) & ~7),
    repack: (type, blocks) => byType[type](0, outputStart, scalesStart, offsetsStart, blocks),
  };
}
