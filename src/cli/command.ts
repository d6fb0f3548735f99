// A command is data: a name, a zod schema and a function. Flags, help and validation come from the schema (flags.ts, help.ts).
import { z } from "zod";
import { invariant } from "../base/errors.ts";
import { listOptions, type OptionInfo, resolveLayers, type SettingsLayer } from "../base/schema.ts";
import type { OpenedBackend, OpenOptions } from "../runtime/open.ts";
import type { Headings } from "./headings.ts";
import type { CliIo, Phrase } from "./io.ts";
import type { CommandEntry } from "./registry.ts";

export interface Example {
  /** Without the leading `longwave`. */
  readonly command: string;
  readonly note: string;
}

/** A named partial value of the schema. */
export interface Preset {
  readonly summary: string;
  readonly values: Readonly<Record<string, unknown>>;
}

/** What `run` gets besides its options. */
export interface CommandContext extends CliIo {
  readonly program: string;
  /** Puts what the library says into the words of the command line. */
  readonly phrase: Phrase;
  /** `--threads`; undefined leaves the choice to the runtime. */
  readonly threads: number | undefined;
  /** Every command of this command line, for those that speak of others. */
  readonly commands: readonly CommandEntry[];
  /** `--json` was given: print one JSON value and nothing else on standard output. */
  readonly json: boolean;
  /** Writes one line to standard output. */
  print(line?: string): void;
  /** Writes a value as indented JSON to standard output. */
  printJson(value: unknown): void;
  /**
   * Opens ONNX Runtime with `--threads`; it is disposed when the command ends. The caller shows `fallbackReason`.
   * @throws BackendError
   */
  openRuntime(options?: OpenOptions): Promise<OpenedBackend>;
}

export interface CommandDefinition<S extends z.ZodObject> {
  /** One word, or a group and a word: `tokenizer train`. */
  readonly name: string;
  /** One line without a full stop. */
  readonly summary: string;
  /** More lines for `--help`. */
  readonly description?: string;
  /** Every field with `.describe()`; a field without default is required. */
  readonly schema: S;
  /** Fields given by position instead of by flag. The last one may be a list. */
  readonly positionals?: readonly (keyof S["shape"] & string)[];
  /** Headings of help for settings without a group of their own, in this order. */
  readonly headings?: Headings;
  /** Values for `--preset`. */
  readonly presets?: Readonly<Record<string, Preset>>;
  readonly defaultPreset?: string;
  /** The command prints results, and offers `--json`. */
  readonly hasJson?: boolean;
  readonly examples: readonly Example[];
  run(options: z.output<S>, context: CommandContext): Promise<void>;
}

/** A command with its schema's type erased, as the framework holds it. */
export interface Command {
  readonly name: string;
  readonly summary: string;
  readonly description: string;
  readonly positionals: readonly OptionInfo[];
  /** Everything that has a flag. */
  readonly options: readonly OptionInfo[];
  /** Groups of options in the order of help; others come behind them, options without a group before. */
  readonly headings: readonly string[];
  readonly presets: Readonly<Record<string, Preset>>;
  readonly defaultPreset: string | undefined;
  readonly hasJson: boolean;
  readonly examples: readonly Example[];
  /** The settings that layers come to. @throws UsageError. */
  resolve(layers: readonly SettingsLayer[]): Readonly<Record<string, unknown>>;
  /** Validates the merged layers and runs. @throws UsageError before anything is done. */
  execute(layers: readonly SettingsLayer[], context: CommandContext): Promise<void>;
}

/** Options that every command has; they are not part of its schema. */
export const commonSchema = z.object({
  threads: z
    .int()
    .min(1)
    .max(1024)
    .optional()
    .describe("Threads for ONNX Runtime. Default: the number of physical cores.")
    .meta({ group: "General", placeholder: "n" }),
});

/** The same options with their headings as groups. */
function underHeadings(command: string, options: readonly OptionInfo[], headings: Headings): OptionInfo[] {
  const groups = new Map(Object.entries(headings).flatMap(([group, names]) => names.map((name) => [name, group] as const)));
  for (const name of groups.keys())
    invariant(
      options.some((option) => option.name === name),
      `command ${command}: no field for ${name} under a heading`,
    );
  return options.map((option) => ({ ...option, group: groups.get(option.name) ?? option.group }));
}

const reservedNames = ["threads", "config", "preset", "json", "help"];

/** Makes a command of its definition. Pure: nothing runs before `execute`. */
export function defineCommand<S extends z.ZodObject>(definition: CommandDefinition<S>): Command {
  const all = listOptions(definition.schema);
  const names: readonly string[] = definition.positionals ?? [];
  for (const { name } of all)
    invariant(!reservedNames.includes(name), `command ${definition.name}: the field ${name} is taken by the framework`);
  const positionals = names.map((name) => {
    const option = all.find((candidate) => candidate.name === name);
    invariant(option, `command ${definition.name}: no field for the positional ${name}`);
    return option;
  });
  return {
    name: definition.name,
    summary: definition.summary,
    description: definition.description ?? "",
    positionals,
    options: underHeadings(
      definition.name,
      all.filter((option) => !names.includes(option.name)),
      definition.headings ?? {},
    ),
    headings: Object.keys(definition.headings ?? {}),
    presets: definition.presets ?? {},
    defaultPreset: definition.defaultPreset,
    hasJson: definition.hasJson ?? false,
    examples: definition.examples,
    resolve: (layers) => resolveLayers(definition.schema, layers),
    execute: async (layers, context) => definition.run(resolveLayers(definition.schema, layers), context),
  };
}
