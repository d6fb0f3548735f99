// Programs that several tests of the backends share, and a shorthand for binding by object.
import type { Backend, Binding, Session, SessionOptions } from "../backend.ts";
import type { TensorBuffer } from "../buffer.ts";
import { type ModelSpec, onnxModel } from "./onnx.ts";

export type Buffers = Record<string, TensorBuffer>;

export function sessionOf(backend: Backend, spec: ModelSpec, options?: SessionOptions): Session {
  return backend.createSession(onnxModel(spec), options);
}

export function bindTo(session: Session, inputs: Buffers, outputs: Buffers): Binding {
  return session.bind(new Map(Object.entries(inputs)), new Map(Object.entries(outputs)));
}

/** Makes a session, runs it once over the buffers and releases it. */
export function runOnce(backend: Backend, spec: ModelSpec, inputs: Buffers, outputs: Buffers, options?: SessionOptions): void {
  const session = sessionOf(backend, spec, options);
  bindTo(session, inputs, outputs).run();
  session.dispose();
}

/** z = x + y over vectors of any length. */
export const addition: ModelSpec = {
  inputs: { x: { shape: ["N"] }, y: { shape: ["N"] } },
  outputs: { z: { shape: ["N"] } },
  nodes: [{ op: "Add", inputs: ["x", "y"], outputs: ["z"] }],
};

/** z = x · w with w [k, n] as a shared initializer. */
export const sharedProduct = (k: number, n: number): ModelSpec => ({
  inputs: { x: { shape: ["N", k] } },
  shared: { w: { shape: [k, n] } },
  outputs: { z: { shape: ["N", n] } },
  nodes: [{ op: "MatMul", inputs: ["x", "w"], outputs: ["z"] }],
});

/** A chain of square products: about 2 · size³ · count operations, to have a run that can be interrupted. */
export const longProduct = (size: number, count: number): ModelSpec => ({
  inputs: { x: { shape: [size, size] } },
  outputs: { z: { shape: [size, size] } },
  nodes: Array.from({ length: count }, (_, i) => ({
    op: "MatMul",
    inputs: [i === 0 ? "x" : `h${i}`, "x"],
    outputs: [i === count - 1 ? "z" : `h${i + 1}`],
  })),
});
