// From a description that any thread understands to a function that makes environments.
import { pathToFileURL } from "node:url";
import { UsageError } from "../../base/errors.ts";
import type { Environment } from "./environment.ts";

/** Registered environments by id, or a module's export: what a thread can make by itself. */
export type EnvironmentSpec =
  | { readonly id: string; readonly options?: Readonly<Record<string, unknown>> }
  | {
      /** URL or absolute path of an ES module. */
      readonly module: string | URL;
      /** Name of its export: a function `(index, options) => Environment`, or a promise of one. */
      readonly export: string;
      /** Handed to that function; plain data. */
      readonly options?: unknown;
    };

/** For messages and run folders. */
export const nameOf = (spec: EnvironmentSpec): string => ("id" in spec ? spec.id : spec.export);

/**
 * What makes the environment of a row. Loads what it needs: MuJoCo, or the module.
 * @throws UsageError for an unknown id or option, or a module without that function.
 */
export async function makerOf(spec: EnvironmentSpec): Promise<(index: number) => Environment | Promise<Environment>> {
  if ("id" in spec) {
    // A thread that needs one module does not read all environments.
    const { environmentFactory } = await import("./registry.ts");
    return environmentFactory(spec.id, spec.options);
  }
  const text = String(spec.module);
  const url = /^[a-z]+:\/\//.test(text) ? text : pathToFileURL(text).href;
  const exports = await importModule(url, text);
  const make = exports[spec.export];
  if (typeof make !== "function")
    throw new UsageError(`environments: expected a function \`${spec.export}\` in ${text}, got ${typeof make}`, {
      hint: `Its exports are: ${Object.keys(exports).join(", ") || "none"}.`,
    });
  return (index) => make(index, spec.options) as Environment | Promise<Environment>;
}

/** What a user's module does while it is read is told as a fault of the module. */
async function importModule(url: string, name: string): Promise<Readonly<Record<string, unknown>>> {
  try {
    return (await import(url)) as Readonly<Record<string, unknown>>;
  } catch (cause) {
    const isUnread = (cause as NodeJS.ErrnoException).code === "ERR_UNKNOWN_FILE_EXTENSION";
    const found = cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause);
    throw new UsageError(`environments: expected a module that can be loaded, got ${found} (${name})`, {
      hint: isUnread
        ? "This Node does not read TypeScript by itself: compile the module to .mjs, start node with `--import tsx`, or use Node 24."
        : "The error comes from the module's own code, or from what it imports: see its cause, which LONGWAVE_DEBUG=1 prints on the command line.",
      cause,
    });
  }
}
