// The command line that repeats a run, from the configuration that it recorded: only what differs from the command's defaults.

import { UsageError } from "../base/errors.ts";
import type { OptionInfo } from "../base/schema.ts";
import type { JsonRecord } from "../engine/index.ts";
import type { Command } from "./command.ts";
import { kebabCase } from "./flags.ts";
import type { Phrase } from "./io.ts";
import { createPhrase, type PhraseOptions } from "./phrase.ts";
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
export async function commandLineOf(run: RecordedRun, entries: readonly CommandEntry[], program = "longwave"): Promise<string | undefined> {
  const command = await commandOf(run, entries);
  return command && run.config && lineOf(command, run.config, program);
}

/** What the run was told, in the words of the command line that made it. */
export async function phraseOf(run: RecordedRun, entries: readonly CommandEntry[], options: PhraseOptions): Promise<Phrase> {
  return createPhrase({ ...options, options: (await commandOf(run, entries))?.options ?? [] });
}

/** The command that made a run, by the settings that it recorded. */
async function commandOf(run: RecordedRun, entries: readonly CommandEntry[]): Promise<Command | undefined> {
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
  return chosen ?? equal[0];
}

function lineOf(command: Command, config: JsonRecord, program: string): string {
  const preset = command.defaultPreset === undefined ? {} : (command.presets[command.defaultPreset]?.values ?? {});
  const words = [program, command.name];
  const given: Record<string, unknown> = {};
  for (const { name, path } of command.positionals) {
    const value = valueAt(config, path);
    if (value !== undefined) given[name] = value;
    for (const item of listed(value)) words.push(quoted(textOf(item)));
  }
  const options = command.options.filter((option) => {
    const value = valueAt(config, option.path);
    const usual = valueAt(preset, option.path) ?? option.defaultValue;
    if (value === undefined || isEqual(value, usual) || !applies(option, config)) return false;
    given[option.name] = value;
    return true;
  });
  // Some defaults depend on other options: what comes by itself is not said.
  for (const { name, path } of options) {
    const { [name]: value, ...others } = given;
    if (isEqual(valueAt(settled(command, [preset, others]), path), value)) delete given[name];
  }
  for (const option of options) if (Object.hasOwn(given, option.name)) words.push(...flagOf(option, given[option.name]));
  return words.join(" ");
}

const isEqual = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

/** What options come to; undefined where they do not do without more. */
function settled(command: Command, layers: readonly unknown[]): unknown {
  try {
    return command.resolve(layers.map((values) => ({ values })));
  } catch (error) {
    if (error instanceof UsageError) return undefined;
    throw error;
  }
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
