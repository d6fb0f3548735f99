// The default backend: ONNX Runtime's C API through koffi. Tensors are memory that is ours, read and written in place.
import { BackendError } from "../../base/errors.ts";
import type { Backend, BackendOptions, Session, SessionOptions } from "../backend.ts";
import { threadsFrom } from "../physical-cores.ts";
import { acquireEnvironment, type Environment, releaseEnvironment } from "./environment.ts";
import { NativeSession } from "./session.ts";

/** @throws BackendError when koffi or the library does not load, UsageError for a wrong number of threads. */
export function openNativeBackend(options: BackendOptions = {}): Backend {
  const threads = threadsFrom(options.threads);
  return new NativeBackend(acquireEnvironment(threads), threads);
}

class NativeBackend implements Backend {
  readonly name = "native";
  readonly version: string;
  readonly threads: number;
  private readonly environment: Environment;
  private readonly sessions = new Set<NativeSession>();
  private disposed = false;
  private released = false;

  constructor(environment: Environment, threads: number) {
    this.environment = environment;
    this.version = environment.library.version;
    this.threads = threads;
  }

  createSession(model: Uint8Array, options: SessionOptions = {}): Session {
    if (this.disposed) throw new BackendError("Backend: this backend was disposed");
    // A process has one shared pool. A backend of another size gives each of its sessions a pool of that size.
    const fallback = this.threads === this.environment.poolThreads ? undefined : this.threads;
    const settings = { ...options, ownThreads: options.threads === undefined ? fallback : options.threads };
    const session = new NativeSession(this.environment, model, settings, (released) => {
      this.sessions.delete(released);
      this.releaseWhenIdle();
    });
    this.sessions.add(session);
    return session;
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

  private releaseWhenIdle(): void {
    if (!this.disposed || this.released || this.sessions.size > 0) return;
    this.released = true;
    releaseEnvironment(this.environment);
  }
}
