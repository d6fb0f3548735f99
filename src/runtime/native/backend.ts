// The default backend: ONNX Runtime's C API through koffi. Tensors are memory that is ours, read and written in place.
import { BackendError } from "../../base/errors.ts";
import type { Backend, BackendOptions, Session, SessionOptions } from "../backend.ts";
import { ownKernels } from "../own-kernels.ts";
import { threadsFrom } from "../physical-cores.ts";
import { acquireEnvironment, type Environment, loadOwnKernels, releaseEnvironment } from "./environment.ts";
import { NativeSession } from "./session.ts";

/** Bytes of weights. */
const worthTrimming = 1 << 25;

/** @throws BackendError when koffi or the library does not load, UsageError for a wrong number of threads. */
export function openNativeBackend(options: BackendOptions = {}): Backend {
  const threads = threadsFrom(options.threads);
  const kernels = ownKernels(options.ownKernels);
  return new NativeBackend(acquireEnvironment(threads), threads, kernels);
}

class NativeBackend implements Backend {
  readonly name = "native";
  readonly version: string;
  readonly threads: number;
  readonly operators: ReadonlySet<string>;
  readonly operatorsFailure: string | undefined;
  private readonly environment: Environment;
  private readonly sessions = new Set<NativeSession>();
  /** Sessions that a pool thread is making. */
  private inProgress = 0;
  private disposed = false;
  private released = false;

  /** @param kernels path of the library of our own kernels. */
  constructor(environment: Environment, threads: number, kernels: string | undefined) {
    this.environment = environment;
    this.version = environment.library.version;
    this.threads = threads;
    try {
      this.operators = kernels === undefined ? new Set() : loadOwnKernels(environment, kernels);
    } catch (error) {
      if (!(error instanceof BackendError)) throw error;
      this.operators = new Set();
      this.operatorsFailure = error.message;
    }
  }

  createSession(model: Uint8Array, options: SessionOptions = {}): Session {
    if (this.disposed) throw new BackendError("Backend: this backend was disposed");
    if (options.threads !== undefined) threadsFrom(options.threads);
    const session = this.sharesPool(options)
      ? this.createInPool(model, options)
      : this.create(model, options, options.threads ?? this.threads);
    this.sessions.add(session);
    this.trimAfter(options);
    return session;
  }

  async createSessionAsync(model: Uint8Array, options: SessionOptions = {}): Promise<Session> {
    if (this.disposed) throw new BackendError("Backend: this backend was disposed");
    if (options.threads !== undefined) threadsFrom(options.threads);
    this.inProgress++;
    try {
      const session = await this.createLater(model, options);
      if (this.disposed) {
        session.dispose();
        throw new BackendError("Backend: this backend was disposed while a session was made");
      }
      this.sessions.add(session);
      this.trimAfter(options);
      return session;
    } finally {
      this.inProgress--;
      this.releaseWhenIdle();
    }
  }

  /** Packing leaves megabytes of freed memory behind. */
  private trimAfter({ initializers, prepack = true }: SessionOptions): void {
    if (!prepack || initializers === undefined) return;
    const bytes = [...initializers.values()].reduce((sum, { data }) => sum + data.byteLength, 0);
    if (bytes >= worthTrimming) this.environment.library.trim();
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    for (const session of [...this.sessions]) session.dispose();
    this.releaseWhenIdle();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** A process has one shared pool. A backend of another size gives each of its sessions a pool of that size. */
  private sharesPool(options: SessionOptions): boolean {
    return options.threads === undefined && this.threads === this.environment.poolThreads;
  }

  private createInPool(model: Uint8Array, options: SessionOptions): NativeSession {
    try {
      return this.create(model, options, undefined);
    } catch (error) {
      if (!this.hasNoPool(error)) throw error;
      return this.create(model, options, this.threads);
    }
  }

  private async createLater(model: Uint8Array, options: SessionOptions): Promise<NativeSession> {
    const open = (ownThreads: number | undefined): Promise<NativeSession> =>
      NativeSession.openAsync(this.environment, model, { ...options, ownThreads }, this.onReleased);
    if (!this.sharesPool(options)) return open(options.threads ?? this.threads);
    try {
      return await open(undefined);
    } catch (error) {
      if (!this.hasNoPool(error)) throw error;
      return open(this.threads);
    }
  }

  private create(model: Uint8Array, options: SessionOptions, ownThreads: number | undefined): NativeSession {
    return NativeSession.open(this.environment, model, { ...options, ownThreads }, this.onReleased);
  }

  private readonly onReleased = (session: NativeSession): void => {
    this.sessions.delete(session);
    this.releaseWhenIdle();
  };

  /** onnxruntime-node's addon makes an environment without a pool; where it was first, sessions get their own from now on. */
  private hasNoPool(error: unknown): boolean {
    if (!(error instanceof BackendError && /EnvCreatedWithGlobalThreadPools/.test(error.message))) return false;
    this.environment.poolThreads = undefined;
    return true;
  }

  private releaseWhenIdle(): void {
    if (!this.disposed || this.released || this.sessions.size > 0 || this.inProgress > 0) return;
    this.released = true;
    releaseEnvironment(this.environment);
  }
}
