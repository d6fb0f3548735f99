// The part of onnxruntime-node's addon that the fallback uses: the synchronous session class behind its public API.
import { createRequire } from "node:module";
import { isMainThread } from "node:worker_threads";
import { BackendError } from "../../base/errors.ts";
import { type DType, onnxType } from "../../tensor/dtype.ts";
import type { TensorBuffer } from "../buffer.ts";
import { logFatal } from "../ort.ts";
import { disableTelemetry } from "../telemetry.ts";

/** onnxruntime-common's Tensor: `data` is the array that it was made from, or that a run has filled. */
export interface AddonTensor {
  readonly data: TensorBuffer["data"];
  readonly dims: readonly number[];
}

interface ValueMetadata {
  name: string;
  isTensor: boolean;
  shape: number[];
  type: number;
}

export interface AddonSession {
  loadModel(memory: ArrayBufferLike, byteOffset: number, byteLength: number, options: Record<string, unknown>): void;
  readonly inputMetadata: ValueMetadata[];
  readonly outputMetadata: ValueMetadata[];
  run(feeds: Record<string, AddonTensor>, fetches: Record<string, null>, options: Record<string, unknown>): Record<string, AddonTensor>;
  endProfiling(): void;
  dispose(): void;
}

export interface Addon {
  readonly version: string;
  createSession(): AddonSession;
  /** A tensor over the buffer's memory; made once, it sees later changes. @throws BackendError for bf16. */
  tensor(buffer: TensorBuffer): AddonTensor;
}

/** onnxruntime-common's names; it has none for bf16. */
const tensorTypes: Partial<Record<DType, string>> = {
  f32: "float32",
  f64: "float64",
  i32: "int32",
  i64: "int64",
  i8: "int8",
  u8: "uint8",
  bool: "bool",
  f16: "float16",
};

/** @throws Error when onnxruntime-node or its addon does not load. */
export function loadAddon(): Addon {
  const require = createRequire(import.meta.url);
  const manifest = require.resolve("onnxruntime-node/package.json");
  const { version } = require(manifest) as { version: string };
  disableTelemetry();
  const { binding } = require("onnxruntime-node/dist/binding.js") as {
    binding: {
      InferenceSession: new () => AddonSession;
      initOrtOnce(logLevel: number, tensor: unknown, isMainThread: boolean): void;
    };
  };
  // The copy that onnxruntime-node itself sees: the addon makes its results with the class that it is given here.
  const { Tensor } = createRequire(manifest)("onnxruntime-common") as {
    Tensor: new (type: string, data: unknown, dims: readonly number[]) => AddonTensor;
  };
  binding.initOrtOnce(logFatal, Tensor, isMainThread);
  return {
    version,
    createSession: () => new binding.InferenceSession(),
    tensor({ dtype, data, shape }) {
      const type = tensorTypes[dtype];
      if (type === undefined) {
        throw new BackendError(`binding backend: expected a dtype of onnxruntime-node, got ${dtype} (${onnxType[dtype]})`, {
          hint: "Use the native backend.",
        });
      }
      return new Tensor(type, data, shape);
    },
  };
}
