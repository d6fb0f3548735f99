// ONNX Runtime writes its profile as a Chrome trace into a file; it is read back and the file removed.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ProfileEvent } from "./backend.ts";

/** A fresh folder below the system's temporary folder, for one session's trace. */
export class ProfileFolder {
  private readonly path = mkdtempSync(join(tmpdir(), "longwave-profile-"));

  /** What ONNX Runtime puts before the time and ".json". */
  get prefix(): string {
    return join(this.path, "trace");
  }

  /** Rows of the trace, in the order of the file. Call after profiling has ended. */
  read(): ProfileEvent[] {
    return readdirSync(this.path)
      .filter((name) => name.endsWith(".json"))
      .flatMap((name) => parseTrace(readFileSync(join(this.path, name), "utf8")));
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

interface TraceRow {
  cat?: string;
  name?: string;
  dur?: number;
  args?: { op_name?: string };
}

/** Rows of a Chrome trace that have a duration: kernels by operator, and the session's own phases. */
export function parseTrace(json: string): ProfileEvent[] {
  return (JSON.parse(json) as TraceRow[])
    .filter((row) => row.dur !== undefined && row.name !== undefined)
    .map(({ name = "", dur = 0, args }) => ({
      operator: args?.op_name ?? name,
      name: name.replace(/_kernel_time$/, ""),
      microseconds: dur,
    }));
}
