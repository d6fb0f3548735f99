// The main thread's side of one worker: commands out, replies in, and what becomes of a thread that ends or does not answer.
import { type MessagePort, receiveMessageOnPort, type Worker } from "node:worker_threads";
import { EnvironmentError } from "../../base/errors.ts";
import { outcomes, type RemoteError, waitWhile, word } from "./vector-protocol.ts";

/** Atomics.waitAsync exists in Node 20; the types come with a later library. */
interface WaitAsync {
  waitAsync(
    array: Int32Array,
    index: number,
    value: number,
    timeout?: number,
  ): { async: false; value: string } | { async: true; value: Promise<string> };
}

/** One worker thread as the main thread sees it. */
export class Connection {
  readonly control: Int32Array;
  readonly port: MessagePort;
  readonly place: string;
  readonly #worker: Worker;
  /** Why the worker can do nothing any more. */
  ended: EnvironmentError | undefined;
  readonly #whenEnded: Promise<void>;

  constructor(worker: Worker, port: MessagePort, control: Int32Array, place: string) {
    this.control = control;
    this.port = port;
    this.place = place;
    this.#worker = worker;
    this.#whenEnded = new Promise((resolve) => {
      worker.once("error", (cause) => {
        this.end(`expected it to go on, got ${(cause as Error)?.name}: ${(cause as Error)?.message}`, cause);
        resolve();
      });
      worker.once("exit", (code) => {
        this.end(`expected it to go on, got its end with exit code ${code}`);
        resolve();
      });
    });
    worker.unref();
  }

  end(what: string, cause?: unknown): void {
    this.ended ??= new EnvironmentError(`${this.place}: ${what}`, {
      cause,
      hint: "The environment's own code ended its thread, or ran out of memory. Make a new batch to go on.",
    });
  }

  send(code: number): void {
    Atomics.store(this.control, word.code, code);
    Atomics.add(this.control, word.command, 1);
    Atomics.notify(this.control, word.command);
  }

  get isDone(): boolean {
    return this.ended !== undefined || Atomics.load(this.control, word.reply) === Atomics.load(this.control, word.command);
  }

  /** Blocks this thread. @returns whether the reply has come. */
  wait(spins: number, milliseconds: number): boolean {
    // Read before it is judged: a reply that comes in between ends the wait at once.
    const before = Atomics.load(this.control, word.reply);
    if (this.isDone) return true;
    waitWhile(this.control, word.reply, before, spins, milliseconds);
    return this.isDone;
  }

  /** Lets the event loop turn until the reply has come or the worker has ended. */
  async waitTurning(milliseconds: number): Promise<void> {
    // While something is waited for, the process must not end.
    this.#worker.ref();
    try {
      const { control } = this;
      while (!this.isDone) {
        const before = Atomics.load(control, word.reply);
        if (this.isDone) return;
        const result = (Atomics as unknown as WaitAsync).waitAsync(control, word.reply, before, milliseconds);
        if (!result.async) continue;
        const outcome = await Promise.race([result.value, this.#whenEnded]);
        if (outcome === "timed-out" && !this.isDone) {
          this.end(`expected an answer within ${milliseconds / 1000} s, got none`);
          this.terminate();
        }
      }
    } finally {
      this.#worker.unref();
    }
  }

  /** The error of the last command, if it failed. */
  takeError(): EnvironmentError | undefined {
    if (this.ended) return this.ended;
    const outcome = Atomics.load(this.control, word.outcome);
    if (outcome === outcomes.done) return undefined;
    if (outcome === outcomes.ended) {
      this.end(`expected it to go on, got its end with exit code ${Atomics.load(this.control, word.exitCode)}`);
      return this.ended;
    }
    return errorOf(receiveMessageOnPort(this.port)?.message as RemoteError, "");
  }

  terminate(): void {
    void this.#worker.terminate();
  }
}

/** What a worker said went wrong. */
export function errorOf({ message, hint, stack }: RemoteError, prefix: string): EnvironmentError {
  const cause = new Error(message);
  cause.stack = stack;
  return new EnvironmentError(prefix + message, { hint, cause });
}
