// One IoBinding: the memory of all inputs and outputs, fixed once. A run is then a single C call and a status check.
import { AbortedError, BackendError } from "../../base/errors.ts";
import type { Binding } from "../backend.ts";
import type { TensorBuffer } from "../buffer.ts";
import { checkComplete, checkFits, type Declared, lookUp } from "../declared.ts";
import type { NativeSession } from "./session.ts";
import type { NativeFunction, signatures } from "./signatures.ts";
import { ValueCache } from "./values.ts";

interface Slot {
  readonly declared: Declared;
  readonly values: ValueCache;
}

type State = "ready" | "running" | "disposed";

export class NativeBinding implements Binding {
  private readonly session: NativeSession;
  private readonly pointer: bigint;
  private readonly sessionPointer: bigint;
  private readonly runWithBinding: NativeFunction<(typeof signatures)["RunWithBinding"]>;
  private readonly inputs = new Map<string, Slot>();
  private readonly outputs = new Map<string, Slot>();
  /** Only asynchronous runs can be stopped, so only they need options. */
  private runOptions: bigint | null = null;
  private state: State = "ready";
  private inFlight = false;

  /** @internal */
  constructor(session: NativeSession, inputs: ReadonlyMap<string, TensorBuffer>, outputs: ReadonlyMap<string, TensorBuffer>) {
    const { environment } = session;
    checkComplete("input", session.inputs, inputs);
    checkComplete("output", session.outputs, outputs);
    this.session = session;
    this.sessionPointer = session.pointer;
    this.runWithBinding = environment.library.functions.RunWithBinding;
    this.pointer = environment.library.receive("bind", (out) => environment.library.functions.CreateIoBinding(session.pointer, out));
    for (const [name, declared] of session.inputs)
      this.inputs.set(name, { declared, values: new ValueCache(environment, `input ${name}`) });
    for (const [name, declared] of session.outputs)
      this.outputs.set(name, { declared, values: new ValueCache(environment, `output ${name}`) });
    try {
      for (const [name, buffer] of inputs) this.setInput(name, buffer);
      for (const [name, buffer] of outputs) this.setOutput(name, buffer);
    } catch (error) {
      this.release();
      throw error;
    }
  }

  setInput(name: string, buffer: TensorBuffer): void {
    this.refuseUnlessReady();
    const { functions, check } = this.session.environment.library;
    const { declared, values } = lookUp("input", this.inputs, name);
    if (values.current === buffer) return;
    checkFits("input", declared, buffer);
    values.use(buffer, (value) => check(functions.BindInput(this.pointer, name, value), `input ${name}`));
  }

  setOutput(name: string, buffer: TensorBuffer): void {
    this.refuseUnlessReady();
    const { functions, check } = this.session.environment.library;
    const { declared, values } = lookUp("output", this.outputs, name);
    if (values.current === buffer) return;
    checkFits("output", declared, buffer);
    values.use(buffer, (value) => check(functions.BindOutput(this.pointer, name, value), `output ${name}`));
  }

  run(): void {
    if (this.state !== "ready") this.refuseUnlessReady();
    const status = this.runWithBinding(this.sessionPointer, null, this.pointer);
    if (status !== null) this.session.environment.library.check(status, "run");
  }

  async runAsync(signal?: AbortSignal): Promise<void> {
    this.refuseUnlessReady();
    if (signal?.aborted) throw aborted(signal);
    const { functions, check, receive } = this.session.environment.library;
    this.runOptions ??= receive("run", (out) => functions.CreateRunOptions(out));
    const options = this.runOptions;
    const stop = () => check(functions.RunOptionsSetTerminate(options), "stopping a run");
    this.state = "running";
    this.inFlight = true;
    signal?.addEventListener("abort", stop, { once: true });
    try {
      const status = await this.runOnPoolThread(options);
      if (status !== null && signal?.aborted) functions.ReleaseStatus(status);
      else check(status, "run");
      if (signal?.aborted) throw aborted(signal);
    } finally {
      this.inFlight = false;
      signal?.removeEventListener("abort", stop);
      if (this.isDisposed()) {
        this.release();
      } else {
        this.state = "ready";
        if (signal?.aborted) check(functions.RunOptionsUnsetTerminate(options), "run");
      }
    }
  }

  dispose(): void {
    if (this.state === "disposed") return;
    this.state = "disposed";
    // Memory in use by a run in flight is released when that run has ended.
    if (!this.inFlight) this.release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  private isDisposed(): boolean {
    return this.state === "disposed";
  }

  private runOnPoolThread(options: bigint): Promise<bigint | null> {
    return new Promise<bigint | null>((resolve, reject) => {
      this.runWithBinding.async(this.sessionPointer, options, this.pointer, (error, status) => (error ? reject(error) : resolve(status)));
    }).catch((cause: unknown) => {
      throw new BackendError(`runAsync: ${cause instanceof Error ? cause.message : cause}`, {
        cause,
        hint: "At most 256 runs may be in flight in one process: await some before starting others.",
      });
    });
  }

  private refuseUnlessReady(): void {
    if (this.state === "disposed") throw new BackendError("Binding: this binding was disposed");
    if (this.state === "running") {
      throw new BackendError("Binding: expected no run in flight, got a second call", { hint: "Await runAsync, or bind once more." });
    }
  }

  /** Order matters: the binding refers to the values, the values to the arrays, the session to neither. */
  private release(): void {
    const { functions } = this.session.environment.library;
    this.state = "disposed";
    functions.ReleaseIoBinding(this.pointer);
    for (const { values } of [...this.inputs.values(), ...this.outputs.values()]) values.release();
    if (this.runOptions !== null) functions.ReleaseRunOptions(this.runOptions);
    this.session.forget(this);
  }
}

const aborted = (signal: AbortSignal): AbortedError => new AbortedError("run: stopped by its AbortSignal", { cause: signal.reason });
