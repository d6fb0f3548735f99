// The command line that repeats a run, from the configuration that it recorded: only what differs from the command's defaults.

import type { OptionInfo } from "../base/schema.ts";
import type { JsonRecord } from "../engine/index.ts";
import type { Command } from "./command.ts";
import { kebabCase } from "./flags.ts";
import type { CommandEntry } from "./registry.ts";
import { valueAt } from "./training-run.ts";

/** A run records a few things that are no options, such as the fingerprint of its data. */
const minKnownShare = 0.8;

export interface RecordedRun {
  /** Name of its folder, which ends with the name of its command where nothing else was asked for. */
  readonly id: string;
  readonly config: JsonRecord | undefined;
}

/** Undefined when no command has these settings. The commands' modules are imported, which takes a moment. */
export async function commandLineOf(run: RecordedRun, entries: readonly CommandEntry[]): Promise<string | undefined> {
  const { config } = run;
  const keys = Object.keys(config ?? {});
  if (!config || keys.length === 0) return undefined;
  const rated: { command: Command; share: number }[] = [];
  for (const entry of entries) {
    const command = await entry.load();
    const options = [...command.positionals, ...command.options];
    // Every command that makes runs has a number of steps or a folder of runs; those that only read runs have neither.
    if (!options.some(({ name }) => name === "runs")) continue;
    const known = new Set(options.map(({ path }) => path[0]));
    rated.push({ command, share: keys.filter((key) => known.has(key)).length / keys.length });
  }
  const best = Math.max(0, ...rated.map(({ share }) => share));
  if (best < minKnownShare) return undefined;
  const equal = rated.filter(({ share }) => share === best).map(({ command }) => command);
  const chosen = equal.find(({ name }) => run.id.includes(name.replaceAll(" ", "-"))) ?? equal.find(({ defaultPreset }) => !defaultPreset);
  return lineOf(chosen ?? equal[0], config);
}

function lineOf(command: Command, config: JsonRecord): string {
  const preset = command.defaultPreset === undefined ? {} : (command.presets[command.defaultPreset]?.values ?? {});
  const words = ["longwave", command.name];
  for (const option of command.positionals) for (const value of listed(valueAt(config, option.path))) words.push(quoted(textOf(value)));
  for (const option of command.options) {
    const value = valueAt(config, option.path);
    const usual = valueAt(preset, option.path) ?? option.defaultValue;
    if (value === undefined || JSON.stringify(value) === JSON.stringify(usual) || !applies(option, config)) continue;
    words.push(...flagOf(option, value));
  }
  return words.join(" ");
}

/** An option of a union counts only for the kind that was chosen. */
const applies = ({ onlyFor }: OptionInfo, config: JsonRecord): boolean =>
  onlyFor === undefined || onlyFor.values.includes(String(valueAt(config, onlyFor.option.split("."))));

function flagOf({ name, types }: OptionInfo, value: unknown): string[] {
  const flag = kebabCase(name);
  if (typeof value === "boolean" && types.includes("boolean")) return [`--${value ? "" : "no-"}${flag}`];
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value.flatMap((item) => [`--${flag}`, quoted(item)]);
  return [`--${flag}`, quoted(textOf(value))];
}

const listed = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : value === undefined ? [] : [value]);

const textOf = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));

/** For a POSIX shell. */
const quoted = (text: string): string => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);
