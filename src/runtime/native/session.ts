// One compiled program: ONNX bytes in, bindings out. Weights handed over as shared initializers are referred to, never copied.
import { dirname } from "node:path";
import { BackendError } from "../../base/errors.ts";
import type { Binding, ProfileEvent, Session, SessionOptions } from "../backend.ts";
import type { TensorBuffer } from "../buffer.ts";
import { checkNoPassThrough, type Declared } from "../declared.ts";
import { checkInitializers } from "../initializers.ts";
import { logFatal, optimizationLevels } from "../ort.ts";
import { ProfileFolder } from "../profile.ts";
import { NativeBinding } from "./binding.ts";
import type { Environment } from "./environment.ts";
import { readDeclared } from "./signature.ts";
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
    const { functions } = environment.library;
    checkInitializers(model, settings.initializers ?? new Map());
    let pointer: bigint | undefined;
    try {
      if (settings.profile) this.profile = new ProfileFolder();
      pointer = this.create(model, settings);
      this.inputs = readDeclared(environment, pointer, "Input");
      this.outputs = readDeclared(environment, pointer, "Output");
      checkNoPassThrough(this.inputs, this.outputs);
    } catch (error) {
      if (pointer !== undefined) functions.ReleaseSession(pointer);
      for (const weight of this.weights) functions.ReleaseValue(weight.pointer);
      this.removeProfile();
      throw error;
    }
    this.pointer = pointer;
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

  private create(model: Uint8Array, settings: NativeSessionSettings): bigint {
    const { functions, receive } = this.environment.library;
    const options = receive("createSession", (out) => functions.CreateSessionOptions(out));
    try {
      this.configure(options, settings);
      return receive("createSession", (out) =>
        functions.CreateSessionFromArray(this.environment.pointer, model, model.byteLength, options, out),
      );
    } finally {
      functions.ReleaseSessionOptions(options);
    }
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
    // Where the external data would lie: a folder that is always there, whatever becomes of the working directory.
    if (settings.initializers?.size) entry("session.model_external_initializers_file_folder_path", dirname(this.environment.library.path));
    for (const [name, buffer] of settings.initializers ?? []) {
      const value = createValue(this.environment, buffer, `initializer ${name}`);
      this.weights.push(value);
      set(functions.AddInitializer(options, name, value.pointer));
    }
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
