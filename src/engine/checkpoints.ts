// The checkpoints of one run: `checkpoints/step-00000123/`, each written aside and renamed whole, the last k and the best kept.
// `index.json` beside them records the latest and the best for other programs. It is a record only: the newest checkpoint is found by
// looking, so that a crash between a checkpoint and the record loses nothing.
import { existsSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { recoverDirectory, stageDirectory, storageError, writeFileAtomic } from "../base/atomic.ts";
import { CheckpointError } from "../base/errors.ts";
import {
  type Checkpoint,
  checkpointBytes,
  describeCheckpoint,
  manifestName,
  type Progress,
  readCheckpoint,
} from "./checkpoint-manifest.ts";
import type { JsonRecord } from "./events.ts";

/** `"latest"`, `"best"`, a step, or the path of a checkpoint or run folder. */
export type CheckpointReference = "latest" | "best" | number | (string & {});

export interface SaveRequest {
  readonly step: number;
  readonly config: JsonRecord;
  /** The trainable's own values (data position, random states); tensors go into files. */
  readonly state: JsonRecord;
  readonly progress: Progress;
  /** Fills a fresh directory with everything but trainer.json. */
  readonly write: (directory: string) => unknown;
  /** Step of the checkpoint before this one in the run's history. Default: the newest one up to this step. */
  readonly previous?: number;
  /** How many of the newest checkpoints stay, at least 1; the best one (`progress.best`) stays besides. */
  readonly keepLast: number;
}

/** Step directories have eight digits at least, so that they sort by name. */
const directoryName = (step: number): string => `step-${String(step).padStart(8, "0")}`;

/** Of the folders of checkpoints that a run left when it went back. */
export const leftPrefix = "left-";

export class CheckpointStore {
  /** `<run directory>/checkpoints`. */
  readonly directory: string;
  readonly runDirectory: string;

  constructor(runDirectory: string) {
    this.runDirectory = resolve(runDirectory);
    this.directory = join(this.runDirectory, "checkpoints");
  }

  /** Steps that have a checkpoint, in rising order. Nothing is read: some may turn out to be incomplete. */
  steps(): number[] {
    this.#recover();
    return this.#entries()
      .map((name) => /^step-(\d{8,15})$/.exec(name)?.[1])
      .filter((digits) => digits !== undefined)
      .map(Number)
      .sort((a, b) => a - b);
  }

  pathOf(step: number): string {
    return join(this.directory, directoryName(step));
  }

  /** All complete checkpoints, oldest first. */
  list(): Checkpoint[] {
    return this.steps().flatMap((step) => this.#readIfComplete(step) ?? []);
  }

  /** The newest complete checkpoint. `onUnreadable` hears of every newer one that had to be passed over. */
  latest(onUnreadable?: (error: CheckpointError) => void): Checkpoint | undefined {
    for (const step of this.steps().reverse()) {
      const checkpoint = this.#readIfComplete(step, onUnreadable);
      if (checkpoint) return checkpoint;
    }
    return undefined;
  }

  /** The checkpoint of the best evaluation, as the newest complete checkpoint remembers it. */
  best(): Checkpoint | undefined {
    const step = this.latest()?.progress.best?.step;
    return step === undefined ? undefined : this.#readIfComplete(step);
  }

  /**
   * The complete checkpoint that a reference means.
   * @throws CheckpointError when there is none, or when the one named is incomplete (`latest` and `best` pass over such ones).
   */
  resolve(reference: CheckpointReference): Checkpoint {
    if (reference === "latest" || reference === "best") {
      const unreadable: string[] = [];
      const found = reference === "best" ? this.best() : this.latest((error) => unreadable.push(error.message));
      if (found) return found;
      throw new CheckpointError(
        `${this.directory}: expected a complete ${reference} checkpoint, got ${unreadable.length > 0 ? unreadable.join("; ") : "none"}`,
        { hint: reference === "best" ? "Was the run started with keepBest? Try latest." : "Start the run anew." },
      );
    }
    const step = typeof reference === "number" ? reference : stepOf(reference);
    if (step !== undefined) {
      const steps = this.steps();
      if (steps.includes(step)) return readCheckpoint(this.pathOf(step));
      throw new CheckpointError(`${this.directory}: expected a checkpoint of step ${step}, got steps ${steps.join(", ") || "none"}`);
    }
    return openCheckpoint(String(reference));
  }

  /**
   * Saves one checkpoint, then removes what need not be kept. A checkpoint of the same step is replaced. Those after `previous` belong
   * to a continuation that was left when the run went back: just before this one appears they are renamed to `left-step-…`, where they are
   * no checkpoints of the run any more, but nothing is lost.
   * @throws CheckpointError when it cannot be written; earlier checkpoints are then still there.
   */
  async save(request: SaveRequest): Promise<{ path: string; bytes: number }> {
    const { step, config, state, progress } = request;
    const path = this.pathOf(step);
    try {
      this.#recover();
      const staged = stageDirectory(path);
      try {
        await request.write(staged.path);
        writeFileSync(join(staged.path, manifestName), describeCheckpoint(staged.path, { step, config, state, progress }));
        const left = this.steps().filter((other) => other > (request.previous ?? step));
        for (const other of left.reverse()) this.#setAside(other);
        staged.commit();
      } finally {
        staged.discard();
      }
      writeFileAtomic(
        join(this.directory, "index.json"),
        `${JSON.stringify({ latest: basename(path), best: this.#bestEntry(progress) })}\n`,
      );
      this.#prune(step, request);
      return { path, bytes: checkpointBytes(path) };
    } catch (cause) {
      throw storageError(cause, path);
    }
  }

  #bestEntry({ best }: Progress): JsonRecord | undefined {
    return best && { ...best, path: directoryName(best.step) };
  }

  #prune(newest: number, { keepLast, progress }: SaveRequest): void {
    const kept = new Set([...this.steps().slice(-Math.max(1, keepLast)), newest, progress.best?.step]);
    for (const step of this.steps()) {
      if (!kept.has(step)) this.#remove(step);
    }
  }

  #setAside(step: number): void {
    const name = `${leftPrefix}${directoryName(step)}`;
    let aside = join(this.directory, name);
    for (let i = 2; existsSync(aside); i++) aside = join(this.directory, `${name}-${i}`);
    renameSync(this.pathOf(step), aside);
  }

  /** Renamed first: a process that dies while it deletes must not leave half a checkpoint under a checkpoint's name. */
  #remove(step: number): void {
    const doomed = join(this.directory, `removed-${directoryName(step)}`);
    rmSync(doomed, { recursive: true, force: true });
    renameSync(this.pathOf(step), doomed);
    rmSync(doomed, { recursive: true, force: true });
  }

  #readIfComplete(step: number, onUnreadable?: (error: CheckpointError) => void): Checkpoint | undefined {
    try {
      return readCheckpoint(this.pathOf(step));
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
      onUnreadable?.(error);
      return undefined;
    }
  }

  /** Completes or removes what a killed process left half done. */
  #recover(): void {
    const entries = this.#entries();
    const cut = entries.flatMap((name) => /^(step-\d+|index\.json)\.(?:tmp|old)-/.exec(name)?.[1] ?? []);
    try {
      for (const name of new Set(cut)) recoverDirectory(join(this.directory, name));
      for (const name of entries)
        if (name.startsWith("removed-step-")) rmSync(join(this.directory, name), { recursive: true, force: true });
    } catch {
      // A folder that may only be read still has readable checkpoints; writing will report the reason.
    }
  }

  #entries(): string[] {
    try {
      return readdirSync(this.directory);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === "ENOENT") return [];
      throw new CheckpointError(`${this.directory}: expected a readable folder, got ${(cause as Error).message}`, { cause });
    }
  }
}

/** A checkpoint by the path of its folder, or the latest one of a run folder. @throws CheckpointError when it is missing or incomplete. */
export function openCheckpoint(path: string): Checkpoint {
  if (existsSync(join(path, "checkpoints"))) return new CheckpointStore(path).resolve("latest");
  if (!existsSync(path)) throw new CheckpointError(`checkpoint ${path}: expected a folder, got none`);
  return readCheckpoint(resolve(path));
}

/** `12` and `step-00000012` are names of a step within the run. */
function stepOf(reference: string): number | undefined {
  const digits = /^(?:step-)?(\d{1,15})$/.exec(reference)?.[1];
  return digits === undefined ? undefined : Number(digits);
}
