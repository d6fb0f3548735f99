// What a compute backend must offer. Everything above this file is written against these interfaces only.
// native.ts: ONNX Runtime's C API through koffi (the default). binding.ts: onnxruntime-node's addon (the fallback).
import type { TensorBuffer } from "./buffer.ts";

export interface BackendOptions {
  /** Threads of the one pool that all sessions share. Default: physical cores. */
  threads?: number;
  /**
   * Kernels of longwave's own beside ONNX Runtime's: false for none, true wherever the processor can run them, "avx2" for the form without
   * AVX-512. Default: where they are faster (x86 with AVX2 alone or with AVX-512 VNNI, on Linux), or what LONGWAVE_KERNELS says (on, off, avx2).
   */
  ownKernels?: boolean | "avx2";
}

export type OptimizationLevel = "none" | "basic" | "extended" | "all";

export interface SessionOptions {
  /** Default "all". */
  optimization?: OptimizationLevel;
  /**
   * Weights that the graph declares as initializers with external data (location ".", offset 0, length in bytes). The session refers to this memory and never copies it
   * (the binding backend does copy). With `prepack` it also holds its own packed copy, and updates of the buffer go unseen.
   */
  initializers?: ReadonlyMap<string, TensorBuffer>;
  /** Pack the weights for speed. Default true. Without it a session costs nothing to make and sees updated weights at once. */
  prepack?: boolean;
  /**
   * Keep the memory of intermediate results from run to run. Default true. False gives it back after each run: slower, for
   * programs that run rarely or with one very large shape.
   */
  arena?: boolean;
  /** Record a per-operator profile; read it with `Session.endProfile`. Default false. */
  profile?: boolean;
  /** The model has operators of the domain "longwave"; see {@link Backend.operators}. Default false. */
  ownOperators?: boolean;
  /** Threads for this session alone (1 for tiny programs that must not wake the pool). Default: the shared pool. */
  threads?: number;
}

export interface Backend extends Disposable {
  readonly name: "native" | "binding";
  /** Version of ONNX Runtime. */
  readonly version: string;
  readonly threads: number;
  /** Operators beyond ONNX Runtime's that its sessions know, all of the domain "longwave". */
  readonly operators: ReadonlySet<string>;
  /** Why kernels of our own that are meant for this machine did not load; ONNX Runtime's do their work, slower. */
  readonly operatorsFailure?: string;
  /** @throws BackendError with ONNX Runtime's message. */
  createSession(model: Uint8Array, options?: SessionOptions): Session;
  /**
   * {@link Backend.createSession} on a pool thread (native backend): packing the weights of a large model takes most of a second.
   * A backend that is disposed of meanwhile releases the session and rejects.
   */
  createSessionAsync(model: Uint8Array, options?: SessionOptions): Promise<Session>;
  /** Releases every live session and binding, then the environment. Afterwards every entry throws BackendError. */
  dispose(): void;
}

export interface Session extends Disposable {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  /** Fixes the memory of all inputs and outputs once. The same buffer may be an input and an output (in-place update). */
  bind(inputs: ReadonlyMap<string, TensorBuffer>, outputs: ReadonlyMap<string, TensorBuffer>): Binding;
  /** Ends profiling: the rows of ONNX Runtime's trace. */
  endProfile(): ProfileEvent[];
  /** Releases its bindings first. */
  dispose(): void;
}

export interface Binding extends Disposable {
  /** Replaces the memory behind one input (another shape is allowed where the program has a symbolic dimension). */
  setInput(name: string, buffer: TensorBuffer): void;
  setOutput(name: string, buffer: TensorBuffer): void;
  /** Runs on the calling thread and the pool; returns when the outputs are written. */
  run(): void;
  /** Runs on a pool thread; the event loop stays free. An aborted signal stops the run in flight: AbortedError. */
  runAsync(signal?: AbortSignal): Promise<void>;
  /** Waits for a run in flight. */
  dispose(): void;
}

export interface ProfileEvent {
  /** ONNX operator type, or the session's own phase. */
  operator: string;
  /** Node name. */
  name: string;
  microseconds: number;
}
