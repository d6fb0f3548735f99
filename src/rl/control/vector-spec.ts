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
  const exports = (await import(url)) as Readonly<Record<string, unknown>>;
  const make = exports[spec.export];
  if (typeof make !== "function")
    throw new UsageError(`environments: expected a function \`${spec.export}\` in ${text}, got ${typeof make}`, {
      hint: `Its exports are: ${Object.keys(exports).join(", ") || "none"}.`,
    });
  return (index) => make(index, spec.options) as Environment | Promise<Environment>;
}
