// A session and its bindings over onnxruntime-node's addon. The addon copies: weights into the model, outputs into fresh memory
// after each run; here they are copied once more into the bound buffers, so that programs see the same memory on either backend.
import { AbortedError, BackendError } from "../../base/errors.ts";
import type { Binding, ProfileEvent, Session, SessionOptions } from "../backend.ts";
import type { TensorBuffer } from "../buffer.ts";
import { checkComplete, checkFits, checkMemory, checkNoPassThrough, type Declared, lookUp } from "../declared.ts";
import { checkInitializers } from "../initializers.ts";
import { logFatal, type optimizationLevels, runtimeError } from "../ort.ts";
import { ProfileFolder } from "../profile.ts";
import type { Addon, AddonSession, AddonTensor } from "./addon.ts";
import { inlineInitializers } from "./inline.ts";

const levelNames: Record<keyof typeof optimizationLevels, string> = { none: "disabled", basic: "basic", extended: "extended", all: "all" };

export class AddonBackedSession implements Session {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  /** @internal */ readonly inputs: ReadonlyMap<string, Declared>;
  /** @internal */ readonly outputs: ReadonlyMap<string, Declared>;
  /** @internal */ readonly addon: Addon;
  private readonly session: AddonSession;
  private readonly bindings = new Set<CopyingBinding>();
  private readonly onDispose: (session: AddonBackedSession) => void;
  private profile: ProfileFolder | undefined;
  private disposed = false;

  /** @internal */
  constructor(
    addon: Addon,
    model: Uint8Array,
    options: SessionOptions & { threads: number },
    onDispose: (session: AddonBackedSession) => void,
  ) {
    this.addon = addon;
    this.onDispose = onDispose;
    checkInitializers(model, options.initializers ?? new Map());
    const bytes = options.initializers?.size ? inlineInitializers(model, options.initializers) : model;
    if (options.profile) this.profile = new ProfileFolder();
    this.session = addon.createSession();
    try {
      this.session.loadModel(bytes.buffer, bytes.byteOffset, bytes.byteLength, {
        graphOptimizationLevel: levelNames[options.optimization ?? "all"],
        executionMode: "sequential",
        intraOpNumThreads: options.threads,
        interOpNumThreads: 1,
        enableCpuMemArena: options.arena ?? true,
        logSeverityLevel: logFatal,
        enableProfiling: this.profile !== undefined,
        profileFilePrefix: this.profile?.prefix,
      });
    } catch (error) {
      this.profile?.remove();
      throw translated("createSession", error);
    }
    this.inputs = declared(this.session.inputMetadata);
    this.outputs = declared(this.session.outputMetadata);
    try {
      checkNoPassThrough(this.inputs, this.outputs);
    } catch (error) {
      this.dispose();
      throw error;
    }
    this.inputNames = [...this.inputs.keys()];
    this.outputNames = [...this.outputs.keys()];
  }

  bind(inputs: ReadonlyMap<string, TensorBuffer>, outputs: ReadonlyMap<string, TensorBuffer>): Binding {
    this.refuseWhenDisposed();
    const binding = new CopyingBinding(this, inputs, outputs, () => this.bindings.delete(binding));
    this.bindings.add(binding);
    return binding;
  }

  endProfile(): ProfileEvent[] {
    this.refuseWhenDisposed();
    if (this.profile === undefined) {
      throw new BackendError("endProfile: expected a session made with { profile: true }, got none in progress");
    }
    this.session.endProfiling();
    const events = this.profile.read();
    this.profile.remove();
    this.profile = undefined;
    return events;
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    for (const binding of [...this.bindings]) binding.dispose();
    this.session.dispose();
    this.profile?.remove();
    this.onDispose(this);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** @internal Every output in fresh memory. */
  run(feeds: Record<string, AddonTensor>, fetches: Record<string, null>): Record<string, AddonTensor> {
    try {
      return this.session.run(feeds, fetches, { logSeverityLevel: logFatal });
    } catch (error) {
      throw translated("run", error);
    }
  }

  private refuseWhenDisposed(): void {
    if (this.disposed) throw new BackendError("Session: this session was disposed");
  }
}

class CopyingBinding implements Binding {
  private readonly session: AddonBackedSession;
  private readonly feeds: Record<string, AddonTensor> = {};
  private readonly fetches: Record<string, null>;
  private readonly outputs = new Map<string, TensorBuffer>();
  private readonly bound = new Map<string, TensorBuffer>();
  private readonly onDispose: () => void;
  private running = false;
  private disposed = false;

  constructor(
    session: AddonBackedSession,
    inputs: ReadonlyMap<string, TensorBuffer>,
    outputs: ReadonlyMap<string, TensorBuffer>,
    onDispose: () => void,
  ) {
    this.session = session;
    this.onDispose = onDispose;
    checkComplete("input", session.inputs, inputs);
    checkComplete("output", session.outputs, outputs);
    for (const [name, buffer] of inputs) this.setInput(name, buffer);
    for (const [name, buffer] of outputs) this.setOutput(name, buffer);
    this.fetches = Object.fromEntries(session.outputNames.map((name) => [name, null]));
  }

  setInput(name: string, buffer: TensorBuffer): void {
    this.refuseUnlessReady();
    const declared = lookUp("input", this.session.inputs, name);
    if (this.bound.get(name) === buffer) return;
    checkFits("input", declared, buffer);
    checkMemory(`input ${name}`, buffer);
    this.feeds[name] = this.session.addon.tensor(buffer);
    this.bound.set(name, buffer);
  }

  setOutput(name: string, buffer: TensorBuffer): void {
    this.refuseUnlessReady();
    checkFits("output", lookUp("output", this.session.outputs, name), buffer);
    checkMemory(`output ${name}`, buffer);
    this.outputs.set(name, buffer);
  }

  run(): void {
    this.refuseUnlessReady();
    const results = this.session.run(this.feeds, this.fetches);
    for (const [name, { data, shape }] of this.outputs) {
      const result = results[name];
      if (result.dims.length !== shape.length || result.dims.some((dimension, axis) => dimension !== shape[axis])) {
        throw new BackendError(`run: output ${name}: expected a buffer of shape [${result.dims.join(", ")}], got [${shape.join(", ")}]`, {
          hint: "Bind an output buffer of the computed shape.",
        });
      }
      // Both hold the same dtype, checked when it was bound.
      (data as Float32Array).set(result.data as Float32Array);
    }
  }

  /**
   * Runs on a later turn of the event loop, but on the calling thread: the addon has no other way. The signal is seen before the
   * run starts, not during it; a binding disposed in the meantime is not run.
   */
  async runAsync(signal?: AbortSignal): Promise<void> {
    this.refuseUnlessReady();
    this.running = true;
    await new Promise(setImmediate);
    this.running = false;
    if (signal?.aborted) throw new AbortedError("run: stopped by its AbortSignal", { cause: signal.reason });
    this.run();
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.onDispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  private refuseUnlessReady(): void {
    if (this.disposed) throw new BackendError("Binding: this binding was disposed");
    if (this.running) {
      throw new BackendError("Binding: expected no run in flight, got a second call", { hint: "Await runAsync, or bind once more." });
    }
  }
}

function declared(metadata: AddonSession["inputMetadata"]): Map<string, Declared> {
  return new Map(
    metadata.map(({ name, isTensor, shape, type }) => [
      name,
      { name, elementType: isTensor ? type : 0, shape: isTensor ? shape : undefined },
    ]),
  );
}

function translated(doing: string, error: unknown): BackendError {
  return error instanceof BackendError ? error : runtimeError(doing, error instanceof Error ? error.message : String(error));
}
