// One compiled program: ONNX bytes in, bindings out. Weights handed over as shared initializers are referred to, never copied.
import { BackendError } from "../../base/errors.ts";
import type { Binding, ProfileEvent, Session, SessionOptions } from "../backend.ts";
import type { TensorBuffer } from "../buffer.ts";
import type { Declared } from "../declared.ts";
import { logFatal, optimizationLevels } from "../ort.ts";
import { ProfileFolder } from "../profile.ts";
import { NativeBinding } from "./binding.ts";
import type { Environment } from "./environment.ts";
import { createValue, type Value } from "./values.ts";

export interface NativeSessionSettings extends SessionOptions {
  /** Threads of a pool for this session alone; undefined shares the environment's pool. */
  ownThreads: number | undefined;
}

export class NativeSession implements Session {
  /** @internal */ readonly environment: Environment;
  /** @internal */ readonly pointer: bigint;
  /** @internal */ readonly inputs: ReadonlyMap<string, Declared>;
  /** @internal */ readonly outputs: ReadonlyMap<string, Declared>;
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  private readonly weights: Value[] = [];
  private readonly bindings = new Set<NativeBinding>();
  private readonly onReleased: (session: NativeSession) => void;
  private profile: ProfileFolder | undefined;
  private disposed = false;
  private released = false;

  /** @internal */
  constructor(environment: Environment, model: Uint8Array, settings: NativeSessionSettings, onReleased: (session: NativeSession) => void) {
    this.environment = environment;
    this.onReleased = onReleased;
    const { functions, receive } = environment.library;
    try {
      if (settings.profile) this.profile = new ProfileFolder();
      const options = receive("createSession", (out) => functions.CreateSessionOptions(out));
      try {
        this.configure(options, settings);
        this.pointer = receive("createSession", (out) =>
          functions.CreateSessionFromArray(environment.pointer, model, model.byteLength, options, out),
        );
      } finally {
        functions.ReleaseSessionOptions(options);
      }
    } catch (error) {
      for (const { pointer } of this.weights) functions.ReleaseValue(pointer);
      this.removeProfile();
      throw error;
    }
    this.inputs = this.declared(functions.SessionGetInputCount, functions.SessionGetInputName, functions.SessionGetInputTypeInfo);
    this.outputs = this.declared(functions.SessionGetOutputCount, functions.SessionGetOutputName, functions.SessionGetOutputTypeInfo);
    this.inputNames = [...this.inputs.keys()];
    this.outputNames = [...this.outputs.keys()];
  }

  bind(inputs: ReadonlyMap<string, TensorBuffer>, outputs: ReadonlyMap<string, TensorBuffer>): Binding {
    this.refuseWhenDisposed();
    const binding = new NativeBinding(this, inputs, outputs);
    this.bindings.add(binding);
    return binding;
  }

  endProfile(): ProfileEvent[] {
    this.refuseWhenDisposed();
    if (this.profile === undefined) {
      throw new BackendError("endProfile: expected a session made with { profile: true }, got none in progress");
    }
    const { functions, receive, check } = this.environment.library;
    const name = receive("endProfile", (out) => functions.SessionEndProfiling(this.pointer, this.environment.allocator, out));
    check(functions.AllocatorFree(this.environment.allocator, name), "endProfile");
    try {
      return this.profile.read();
    } finally {
      this.removeProfile();
    }
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    for (const binding of [...this.bindings]) binding.dispose();
    this.releaseWhenIdle();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** @internal Called by a binding when it has released its memory. */
  forget(binding: NativeBinding): void {
    this.bindings.delete(binding);
    if (this.disposed) this.releaseWhenIdle();
  }

  private configure(options: bigint, settings: NativeSessionSettings): void {
    const { functions, check } = this.environment.library;
    const set = (status: bigint | null) => check(status, "createSession");
    const entry = (key: string, value: string) => set(functions.AddSessionConfigEntry(options, key, value));
    set(functions.SetSessionLogSeverityLevel(options, logFatal));
    set(functions.SetSessionGraphOptimizationLevel(options, optimizationLevels[settings.optimization ?? "all"]));
    set(functions.SetInterOpNumThreads(options, 1));
    if (settings.ownThreads === undefined) {
      set(functions.DisablePerSessionThreads(options));
    } else {
      set(functions.SetIntraOpNumThreads(options, settings.ownThreads));
      // Threads that spin would take the cores from the shared pool.
      entry("session.intra_op.allow_spinning", "0");
    }
    if (settings.arena === false) set(functions.DisableCpuMemArena(options));
    if (settings.prepack === false) entry("session.disable_prepacking", "1");
    if (this.profile !== undefined) set(functions.EnableProfiling(options, this.profile.prefix));
    for (const [name, buffer] of settings.initializers ?? []) {
      const value = createValue(this.environment, buffer, `initializer ${name}`);
      this.weights.push(value);
      set(functions.AddInitializer(options, name, value.pointer));
    }
  }

  private declared(
    count: (session: bigint, out: BigUint64Array) => bigint | null,
    nameAt: (session: bigint, index: number, allocator: bigint, out: BigUint64Array) => bigint | null,
    typeAt: (session: bigint, index: number, out: BigUint64Array) => bigint | null,
  ): Map<string, Declared> {
    const { functions, check, receive, textAt } = this.environment.library;
    const { allocator } = this.environment;
    const doing = "createSession: reading the signature";
    const entries = new Map<string, Declared>();
    const length = Number(receive(doing, (out) => count(this.pointer, out)));
    for (let index = 0; index < length; index++) {
      const text = receive(doing, (out) => nameAt(this.pointer, index, allocator, out));
      const name = textAt(text);
      check(functions.AllocatorFree(allocator, text), doing);
      const type = receive(doing, (out) => typeAt(this.pointer, index, out));
      try {
        entries.set(name, { name, ...this.tensorType(type) });
      } finally {
        functions.ReleaseTypeInfo(type);
      }
    }
    return entries;
  }

  private tensorType(type: bigint): Omit<Declared, "name"> {
    const { functions, check, receive } = this.environment.library;
    const doing = "createSession: reading the signature";
    // A view into `type`: not released. Null for a sequence or map.
    const tensor = receive(doing, (out) => functions.CastTypeInfoToTensorInfo(type, out));
    if (tensor === 0n) return { elementType: 0, shape: undefined };
    const elementType = Number(receive(doing, (out) => functions.GetTensorElementType(tensor, out)));
    const rank = Number(receive(doing, (out) => functions.GetDimensionsCount(tensor, out)));
    const shape = new BigInt64Array(Math.max(rank, 1));
    check(functions.GetDimensions(tensor, shape, rank), doing);
    return { elementType, shape: Array.from(shape.subarray(0, rank), Number) };
  }

  private refuseWhenDisposed(): void {
    if (this.disposed) throw new BackendError("Session: this session was disposed");
  }

  /** Order matters: bindings, then the session, then the weights it refers to. */
  private releaseWhenIdle(): void {
    if (this.released || this.bindings.size > 0) return;
    this.released = true;
    const { functions } = this.environment.library;
    functions.ReleaseSession(this.pointer);
    for (const { pointer } of this.weights) functions.ReleaseValue(pointer);
    this.removeProfile();
    this.onReleased(this);
  }

  private removeProfile(): void {
    this.profile?.remove();
    this.profile = undefined;
  }
}
