// Walks folders of golden data, lets the kinds recognise what they know, and runs it. Whatever goes wrong is a line, never a crash.
import { readdirSync, readFileSync, statSync } from "node:fs";
import { basename, resolve } from "node:path";
import { openBackend } from "../../src/runtime/open.ts";
import { Comparison } from "./compare.ts";
import { type Folder, foldersOf } from "./folder.ts";
import { type GoldenCase, type GoldenKind, lazy, type Session, type Unit } from "./kind.ts";
import { placeholders } from "./uncovered.ts";

export interface CaseResult {
  readonly status: "passed" | "failed" | "notCovered";
  readonly kind: string;
  /** File or folder, and the case in it. */
  readonly label: string;
  readonly detail: string;
}

export interface Counts {
  passed: number;
  failed: number;
  notCovered: number;
}

interface Coverage {
  covered: boolean;
  /** Why not. */
  reason?: string;
}

/** Every kind of case that the golden folders document, and whether it must run. */
export function readCoverage(): ReadonlyMap<string, Coverage> {
  const listed = JSON.parse(readFileSync(new URL("./kinds.json", import.meta.url), "utf8")) as Record<string, Coverage>;
  return new Map(Object.entries(listed));
}

async function loadKinds(): Promise<readonly GoldenKind[]> {
  const folder = new URL("./kinds/", import.meta.url);
  const names = readdirSync(folder).filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"));
  const modules = names.sort().map((name) => import(/* @vite-ignore */ new URL(name, folder).href) as Promise<{ kind: GoldenKind }>);
  return (await Promise.all(modules)).map(({ kind }) => kind);
}

/** Runs all cases in a folder, its sub-folders, or the units that a single file belongs to. */
export async function runGolden(path: string, { onResult = () => {} }: { onResult?: (result: CaseResult) => void } = {}): Promise<Counts> {
  const counts: Counts = { passed: 0, failed: 0, notCovered: 0 };
  const target = resolve(path);
  const only = statSync(target).isDirectory() ? undefined : basename(target);
  const open = lazy(() => openBackend({ threads: 1 }).backend);
  let isOpen = false;
  const session: Session = {
    get backend() {
      isOpen = true;
      return open();
    },
  };
  const runner = new Runner(await loadKinds(), session, (result) => {
    counts[result.status]++;
    onResult(result);
  });
  try {
    for (const folder of foldersOf(target)) await runner.runFolder(folder, only);
  } finally {
    if (isOpen) open().dispose();
  }
  return counts;
}

class Runner {
  readonly #kinds: readonly GoldenKind[];
  readonly #session: Session;
  readonly #report: (result: CaseResult) => void;
  readonly #coverage = readCoverage();

  constructor(kinds: readonly GoldenKind[], session: Session, report: (result: CaseResult) => void) {
    this.#kinds = kinds;
    this.#session = session;
    this.#report = report;
  }

  /** @param only the one file whose units are wanted. */
  async runFolder(folder: Folder, only: string | undefined): Promise<void> {
    const unclaimed = new Set(folder.files);
    const seenKinds = new Set<string>();
    for (const unit of this.#kinds.flatMap((kind) => kind.recognise(folder))) {
      if (!unit.shared) for (const file of unit.files) unclaimed.delete(file);
      if (only !== undefined && !unit.files.includes(only)) continue;
      await this.#runUnit(folder, unit, seenKinds);
    }
    for (const { files, kinds } of placeholders(folder, unclaimed)) {
      for (const file of files) unclaimed.delete(file);
      if (only !== undefined && !files.includes(only)) continue;
      for (const kind of kinds) if (!seenKinds.has(kind)) this.#notRun(kind, `${folder.label}/${files[0]}`);
    }
    for (const file of unclaimed) {
      if (only !== undefined && file !== only) continue;
      const label = `${folder.label}/${file}`;
      const problem = file.endsWith(".json") ? messageOf(() => folder.json(file)) : undefined;
      if (problem === undefined) this.#report({ status: "notCovered", kind: "", label, detail: "of no kind that is known" });
      else this.#report({ status: "failed", kind: "", label, detail: problem });
    }
  }

  async #runUnit(folder: Folder, unit: Unit, seenKinds: Set<string>): Promise<void> {
    const label = [folder.label, unit.name].filter(Boolean).join("/");
    // Kinds of this unit that are not covered get one line, not one for each case.
    const notCovered = new Set<string>();
    let numCases = 0;
    try {
      for (const item of unit.cases()) {
        numCases++;
        seenKinds.add(item.kind);
        const listed = this.#coverage.get(item.kind);
        if (listed?.covered) await this.#runCase(item, `${label} ${item.name}`);
        else if (!notCovered.has(item.kind)) {
          notCovered.add(item.kind);
          this.#notRun(item.kind, label);
        }
      }
      if (numCases === 0) this.#report({ status: "failed", kind: "", label, detail: "expected cases, found none" });
    } catch (error) {
      this.#report({ status: "failed", kind: "", label, detail: oneLine(error) });
    } finally {
      unit.dispose?.();
    }
  }

  async #runCase({ kind, run }: GoldenCase, label: string): Promise<void> {
    const comparison = new Comparison();
    try {
      await run(comparison, this.#session);
      this.#report({ status: comparison.passed ? "passed" : "failed", kind, label, detail: comparison.summary });
    } catch (error) {
      this.#report({ status: "failed", kind, label, detail: oneLine(error) });
    }
  }

  #notRun(kind: string, label: string): void {
    const listed = this.#coverage.get(kind);
    if (listed?.covered)
      this.#report({ status: "failed", kind, label, detail: `${kind} is listed as covered, but nothing here could run it` });
    else {
      const reason = listed ? (listed.reason ?? "not yet") : "an unknown kind";
      this.#report({ status: "notCovered", kind, label, detail: `${kind} (${reason})` });
    }
  }
}

const oneLine = (error: unknown): string => (error instanceof Error ? error.message : String(error)).split("\n")[0];

function messageOf(run: () => unknown): string | undefined {
  try {
    run();
    return undefined;
  } catch (error) {
    return oneLine(error);
  }
}
