// A peer is a Python process that lives as long as the benchmark: one JSON line a request, one a reply. Between requests it sleeps.
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const folder = join(fileURLToPath(new URL(".", import.meta.url)), "..", "peers");

export type PeerFactory = (script: string) => Peer;

/**
 * What OpenMP threads do at a barrier: `passive` sleeps at once; `default` spins for about a millisecond first, which is faster when the
 * cores are free and far slower when they are not.
 */
export type WaitPolicy = "passive" | "default";

export interface PeerOptions {
  python: string;
  threads: number;
  wait: WaitPolicy;
}

/** @param defer registers the end of each process. */
export function pythonPeers(options: PeerOptions, defer: (close: () => Promise<void>) => void): PeerFactory {
  return (script) => {
    const peer = new Peer(script, options);
    defer(() => peer.close());
    return peer;
  };
}

/**
 * node-llama-cpp, from a folder where it is installed (LONGWAVE_BENCH_NODE_LLAMA): a process of this Node that speaks the same lines.
 * Undefined where the variable is not set.
 */
export function nodeLlamaPeer(threads: number, defer: (close: () => Promise<void>) => void): Peer | undefined {
  const installed = process.env.LONGWAVE_BENCH_NODE_LLAMA;
  if (!installed) return undefined;
  const peer = new Peer("node_llama.mjs", { python: process.execPath, threads, wait: "default" }, [installed]);
  defer(() => peer.close());
  return peer;
}

export class Peer {
  readonly #script: string;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #waiting: { resolve: (value: unknown) => void; reject: (error: Error) => void }[] = [];
  readonly #ended: Promise<void>;
  #errors = "";
  #gone = false;

  constructor(script: string, { python, threads, wait }: PeerOptions, args: readonly string[] = []) {
    this.#script = script;
    const file = join(folder, script);
    this.#child = spawn(python, script.endsWith(".py") ? ["-u", file] : [file, ...args], {
      env: {
        ...process.env,
        PYTHONDONTWRITEBYTECODE: "1",
        OMP_NUM_THREADS: String(threads),
        MKL_NUM_THREADS: String(threads),
        ...(wait === "passive" ? { OMP_WAIT_POLICY: "PASSIVE" } : {}),
        TOKENIZERS_PARALLELISM: "true",
        RAYON_NUM_THREADS: String(threads),
      },
    });
    this.#child.stderr.on("data", (data: Buffer) => {
      this.#errors = (this.#errors + data.toString()).slice(-4000);
    });
    createInterface({ input: this.#child.stdout }).on("line", (line) => this.#reply(line));
    this.#ended = new Promise((resolve) => {
      const end = (why: string) => {
        this.#gone = true;
        for (const { reject } of this.#waiting.splice(0)) reject(new Error(`${script}: ${why}\n${this.#errors}`));
        resolve();
      };
      this.#child.on("error", (error) => end(error.message));
      this.#child.on("exit", (code, signal) => end(`the process ended (${signal ?? code})`));
    });
  }

  /** @throws Error with the last lines that the process wrote when it failed. */
  call<T>(method: string, parameters: Record<string, unknown> = {}): Promise<T> {
    if (this.#gone) return Promise.reject(new Error(`${this.#script}: the process has ended\n${this.#errors}`));
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push({ resolve: resolve as (value: unknown) => void, reject });
      this.#child.stdin.write(`${JSON.stringify({ method, parameters })}\n`);
    });
  }

  async close(): Promise<void> {
    if (!this.#gone) this.#child.stdin.end();
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), 5000);
    await this.#ended;
    clearTimeout(timer);
  }

  #reply(line: string): void {
    // Libraries print what they like; replies are JSON objects with a marker.
    if (!line.startsWith('{"reply"') && !line.startsWith('{"error"')) return;
    const { reply, error } = JSON.parse(line) as { reply?: unknown; error?: string };
    const waiting = this.#waiting.shift();
    if (error === undefined) waiting?.resolve(reply);
    else waiting?.reject(new Error(`${this.#script}: ${error}`));
  }
}
