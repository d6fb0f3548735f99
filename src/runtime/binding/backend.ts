// The fallback backend: onnxruntime-node as it comes. Correct everywhere, slower: it copies weights, inputs' views and outputs.
import { BackendError } from "../../base/errors.ts";
import type { Backend, BackendOptions, Session, SessionOptions } from "../backend.ts";
import { threadsFrom } from "../physical-cores.ts";
import { type Addon, loadAddon } from "./addon.ts";
import { AddonBackedSession } from "./session.ts";

/** @throws BackendError when onnxruntime-node does not load, UsageError for a wrong number of threads. */
export function openBindingBackend(options: BackendOptions = {}): Backend {
  const threads = threadsFrom(options.threads);
  try {
    return new BindingBackend(loadAddon(), threads);
  } catch (cause) {
    throw new BackendError(`onnxruntime-node: ${cause instanceof Error ? cause.message.split("\n")[0] : cause}`, {
      cause,
      hint: "Run `ONNXRUNTIME_NODE_INSTALL=skip npm install`.",
    });
  }
}

/** Each session has its own pool of `threads` threads: the addon offers no shared one. */
class BindingBackend implements Backend {
  readonly name = "binding";
  readonly version: string;
  readonly threads: number;
  readonly operators: ReadonlySet<string> = new Set();
  private readonly addon: Addon;
  private readonly sessions = new Set<AddonBackedSession>();
  private disposed = false;

  constructor(addon: Addon, threads: number) {
    this.addon = addon;
    this.version = addon.version;
    this.threads = threads;
  }

  createSession(model: Uint8Array, options: SessionOptions = {}): Session {
    if (this.disposed) throw new BackendError("Backend: this backend was disposed");
    const settings = { ...options, threads: threadsFrom(options.threads ?? this.threads) };
    const session = new AddonBackedSession(this.addon, model, settings, (released) => this.sessions.delete(released));
    this.sessions.add(session);
    return session;
  }

  /** The addon makes sessions on the calling thread. */
  async createSessionAsync(model: Uint8Array, options: SessionOptions = {}): Promise<Session> {
    return this.createSession(model, options);
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    for (const session of [...this.sessions]) session.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
