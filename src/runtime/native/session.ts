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
  private readonly weights: readonly Value[];
  private readonly bindings = new Set<NativeBinding>();
  private readonly onReleased: (session: NativeSession) => void;
  private profile: ProfileFolder | undefined;
  private disposed = false;
  private released = false;

  /** @internal */
  constructor({ environment, weights, profile }: SessionSetup, pointer: bigint, onReleased: (session: NativeSession) => void) {
    this.environment = environment;
    this.weights = weights;
    this.profile = profile;
    this.onReleased = onReleased;
    this.pointer = pointer;
    this.inputs = readDeclared(environment, pointer, "Input");
    this.outputs = readDeclared(environment, pointer, "Output");
    checkNoPassThrough(this.inputs, this.outputs);
    this.inputNames = [...this.inputs.keys()];
    this.outputNames = [...this.outputs.keys()];
  }

  /** @internal */
  static open(
    environment: Environment,
    model: Uint8Array,
    settings: NativeSessionSettings,
    onReleased: (session: NativeSession) => void,
  ): NativeSession {
    const setup = new SessionSetup(environment, model, settings);
    return setup.finish(() => setup.create(model), onReleased);
  }

  /** @internal On a pool thread. */
  static async openAsync(
    environment: Environment,
    model: Uint8Array,
    settings: NativeSessionSettings,
    onReleased: (session: NativeSession) => void,
  ): Promise<NativeSession> {
    const setup = new SessionSetup(environment, model, settings);
    const made = await setup.createAsync(model);
    return setup.finish(made, onReleased);
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

/** What a session is made of until there is one: its options, and the weights that it refers to. */
class SessionSetup {
  readonly environment: Environment;
  readonly weights: Value[] = [];
  readonly profile: ProfileFolder | undefined;
  private readonly options: bigint;
  /** Held while a thread reads it. */
  model: Uint8Array | undefined;

  constructor(environment: Environment, model: Uint8Array, settings: NativeSessionSettings) {
    this.environment = environment;
    checkInitializers(model, settings.initializers ?? new Map());
    const { functions, receive } = environment.library;
    this.options = receive("createSession", (out) => functions.CreateSessionOptions(out));
    try {
      if (settings.profile) this.profile = new ProfileFolder();
      this.configure(settings);
    } catch (error) {
      this.giveUp();
      throw error;
    }
  }

  create(model: Uint8Array): bigint {
    const { functions, receive } = this.environment.library;
    return receive("createSession", (out) =>
      functions.CreateSessionFromArray(this.environment.pointer, model, model.byteLength, this.options, out),
    );
  }

  /** Resolves to what gives the pointer or throws, when the thread has ended. */
  async createAsync(model: Uint8Array): Promise<() => bigint> {
    const { functions, check } = this.environment.library;
    // Memory of its own, which garbage collection does not move.
    const out = new BigUint64Array(new ArrayBuffer(8));
    const { pointer } = this.environment;
    this.model = model;
    try {
      const status = await new Promise<bigint | null>((resolve, reject) => {
        functions.CreateSessionFromArray.async(pointer, model, model.byteLength, this.options, out, (error, result) =>
          error ? reject(error) : resolve(result),
        );
      });
      return () => {
        check(status, "createSession");
        return out[0];
      };
    } catch (cause) {
      return () => {
        throw new BackendError(`createSession: ${cause instanceof Error ? cause.message : cause}`, {
          cause,
          hint: "At most 256 asynchronous calls may be in flight in one process: await some before starting others.",
        });
      };
    } finally {
      this.model = undefined;
    }
  }

  /** The session that `make` gives a pointer to; without one nothing is left behind. */
  finish(make: () => bigint, onReleased: (session: NativeSession) => void): NativeSession {
    const { functions } = this.environment.library;
    let pointer: bigint | undefined;
    try {
      pointer = make();
      const session = new NativeSession(this, pointer, onReleased);
      functions.ReleaseSessionOptions(this.options);
      return session;
    } catch (error) {
      if (pointer !== undefined) functions.ReleaseSession(pointer);
      this.giveUp();
      throw error;
    }
  }

  private giveUp(): void {
    const { functions } = this.environment.library;
    functions.ReleaseSessionOptions(this.options);
    for (const weight of this.weights) functions.ReleaseValue(weight.pointer);
    this.profile?.remove();
  }

  private configure(settings: NativeSessionSettings): void {
    const { options } = this;
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
    if (settings.ownOperators && this.environment.ownDomain !== undefined)
      set(functions.AddCustomOpDomain(options, this.environment.ownDomain.pointer));
    // Where the external data would lie: a folder that is always there, whatever becomes of the working directory.
    if (settings.initializers?.size) entry("session.model_external_initializers_file_folder_path", dirname(this.environment.library.path));
    for (const [name, buffer] of settings.initializers ?? []) {
      const value = createValue(this.environment, buffer, `initializer ${name}`);
      this.weights.push(value);
      set(functions.AddInitializer(options, name, value.pointer));
    }
  }
}
