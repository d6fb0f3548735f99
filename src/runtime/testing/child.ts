// Runs a script of this folder in its own process: crashes, forced garbage collection and the working directory stay there.
import { spawn } from "node:child_process";

export interface ChildOptions {
  /** Flags for node. */
  flags?: string[];
  environment?: Record<string, string>;
  args?: string[];
}

export interface ChildResult {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** @param script name of a file in src/runtime/testing, for example "stress-child.ts". */
export function runChild(script: string, { flags = [], environment = {}, args = [] }: ChildOptions = {}): Promise<ChildResult> {
  const here = (name: string) => new URL(name, import.meta.url);
  const hooks = here("./register-typescript.mjs").href;
  const child = spawn(process.execPath, [...flags, "--import", hooks, here(`./${script}`).pathname, ...args], {
    env: { ...process.env, ...environment },
  });
  const result = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => (result.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (result.stderr += text));
  return new Promise((resolve, reject) => {
    child.on("error", reject).on("close", (code, signal) => resolve({ code, signal, ...result }));
  });
}
