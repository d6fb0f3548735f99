// From a command's option list to commander's options, and from a command line to layers of settings:
// defaults < preset < configuration file < flags.
import { CommanderError, Command as Parser, Option as ParserOption } from "commander";
import { invariant, nearest, UsageError } from "../base/errors.ts";
import { calledElsewhere } from "../base/names-elsewhere.ts";
import { listOptions, type OptionInfo, type SettingsLayer, valueFromText } from "../base/schema.ts";
import { type Command, commonSchema } from "./command.ts";

export interface ParsedLine {
  readonly help: boolean;
  readonly json: boolean;
  readonly threads: unknown;
  /** Preset, configuration file, flags: lowest first. */
  readonly layers: readonly SettingsLayer[];
}

/** `optim.learningRate` → `optim.learning-rate`; runs of capitals are one word (`numKVHeads` → `num-kv-heads`). */
export const kebabCase = (name: string): string =>
  name
    .replace(/([a-z0-9])([A-Z])/g, "$1-$2")
    .replace(/([A-Z]+)([A-Z][a-z])/g, "$1-$2")
    .toLowerCase();

const isBoolean = (option: OptionInfo): boolean => option.types.length === 1 && option.types[0] === "boolean";

/** What a text is, where its type does not tell. */
const nouns: ReadonlyMap<string, string> = new Map([
  ...["output", "prompts", "data", "grammar"].map((name) => [name, "file"] as const),
  ...["runs", "cache", "texts"].map((name) => [name, "folder"] as const),
  ...["tokenizer", "init", "drafter"].map((name) => [name, "path"] as const),
  ...["name", "field"].map((name) => [name, "name"] as const),
  ["env", "id"],
  ["resume", "run"],
]);

function placeholderOf(option: OptionInfo): string {
  if (option.placeholder !== undefined) return option.placeholder;
  const named = nouns.get(option.name);
  if (named !== undefined && option.choices.length === 0) return named;
  if (option.choices.length > 0 && option.choices.join("|").length <= 24) return option.choices.join("|");
  const types = option.types.includes("list") ? option.itemTypes : option.types;
  const noun = types.includes("integer") ? "n" : types.includes("number") ? "x" : types.includes("string") ? "text" : "json";
  return option.types.includes("list") && noun !== "text" && noun !== "json" ? `${noun},...` : noun;
}

/** Default and choices in words, as help appends them. */
function notesOf(option: OptionInfo): string {
  const notes = [];
  const shown = placeholderOf(option);
  if (option.choices.length > 0 && shown !== option.choices.join("|")) notes.push(`one of ${option.choices.join(", ")}`);
  if (option.types.includes("list") && option.itemTypes.includes("string")) notes.push("repeatable");
  if (option.onlyFor) {
    const { option: kind, values } = option.onlyFor;
    // A long list belongs into the error message of a wrong combination, not into help.
    notes.push(values.length > 4 ? `only with some values of ${kind}` : `only with ${kind} ${values.join(" or ")}`);
  }
  const value = option.defaultValue;
  if (option.required) notes.push("required");
  else if (isBoolean(option) && value === true) notes.push("on by default");
  else if (isBoolean(option) && value === false) notes.push("off by default");
  else if (value !== undefined && value !== null && !(Array.isArray(value) && value.length === 0) && value !== "") {
    const isTexts = Array.isArray(value) && value.every((item) => typeof item === "string");
    notes.push(`default: ${isTexts ? value.join(", ") : typeof value === "object" ? JSON.stringify(value) : String(value)}`);
  }
  return notes.length === 0 ? "" : ` (${notes.join("; ")})`;
}

/** `earlyStopping` → `Early stopping`; headings written by hand stay as they are. */
const headingOf = (group: string): string => {
  const words = group.includes(" ") ? group : kebabCase(group).replaceAll("-", " ").replaceAll(".", ", ");
  return words[0].toUpperCase() + words.slice(1);
};

interface Flag {
  readonly option: OptionInfo;
  readonly parserOption: ParserOption;
}

/** Adds one schema option to the parser: `--x <value>`, or `--x` and `--no-x`. */
function addFlag(parser: Parser, option: OptionInfo): Flag {
  const long = kebabCase(option.name);
  const second = option.flag ?? option.short;
  invariant(option.flag === undefined || option.short === undefined, `option ${option.name}: one second flag, not two`);
  const prefix = second === undefined ? "" : `${option.short === undefined ? "--" : "-"}${second}, `;
  const heading = `${headingOf(option.group ?? "options")}:`;
  const description = `${option.description}${notesOf(option)}`;
  const add = (flags: string, hidden = false, shown = flags): ParserOption => {
    const made = new ParserOption(flags, description).helpGroup(heading).hideHelp(hidden);
    made.flags = shown;
    // A setting whose own name begins with "no" (noRepeatNgramSize) is no negation.
    if (!isBoolean(option)) made.negate = false;
    if (!isBoolean(option) && option.types.includes("list")) {
      made.argParser((text: string, before: unknown) => {
        const value = valueFromText(option, text);
        return Array.isArray(before) && Array.isArray(value) ? [...before, ...value] : value;
      });
    } else if (!isBoolean(option)) made.argParser((text: string) => valueFromText(option, text));
    parser.addOption(made);
    return made;
  };
  if (!isBoolean(option)) return { option, parserOption: add(`${prefix}--${long} <${placeholderOf(option)}>`) };
  // One line of help for both forms, unless only one of them changes anything.
  const parserOption = add(`${prefix}--${long}`, false, `${prefix}--${option.defaultValue === false ? "" : "[no-]"}${long}`);
  add(`--no-${long}`, true);
  if (option.flag !== undefined) add(`--no-${option.flag}`, true);
  return { option, parserOption };
}

export interface CommandParser {
  readonly parser: Parser;
  readonly flags: readonly Flag[];
}

/** The commander parser of a command. It prints nothing and never exits. */
export function parserOf(command: Command): CommandParser {
  const parser = new Parser(`longwave ${command.name}`)
    .exitOverride()
    .helpOption(false)
    .configureOutput({ writeErr: () => {} });
  // Help lists groups in the order in which they first appear.
  const rank = ({ group }: OptionInfo): number => {
    const at = group === undefined ? -1 : command.headings.indexOf(group);
    return group !== undefined && at < 0 ? command.headings.length : at;
  };
  const ordered = command.headings.length === 0 ? command.options : command.options.toSorted((a, b) => rank(a) - rank(b));
  const flags = [...ordered, ...listOptions(commonSchema)].map((option) => addFlag(parser, option));
  const general = (flag: string, description: string): Parser =>
    parser.addOption(new ParserOption(flag, description).helpGroup("General:"));
  general("--config <file>", "Settings from a JSON or YAML file; flags win over it.");
  const presets = Object.entries(command.presets);
  if (presets.length > 0) {
    const list = presets.map(([name, preset]) => `${name}: ${preset.summary}`).join("; ");
    general(
      "--preset <name>",
      `Settings under the configuration file. ${list}${command.defaultPreset ? ` (default: ${command.defaultPreset})` : ""}`,
    );
  }
  if (command.hasJson) general("--json", "Print the result as one JSON value.");
  general("-h, --help", "Show this help.");
  return { parser, flags };
}

/**
 * Reads the arguments after the command's name.
 * @throws UsageError for an unknown flag (naming the nearest), a flag without its value, and surplus or missing arguments.
 */
export async function parseLine(command: Command, argv: readonly string[]): Promise<ParsedLine> {
  const { parser, flags } = parserOf(command);
  let rest: { operands: string[]; unknown: string[] };
  try {
    rest = parser.parseOptions([...argv]);
  } catch (error) {
    if (error instanceof CommanderError) throw new UsageError(plainMessage(error), { hint: helpHint(command), cause: error });
    throw error;
  }
  const values = parser.opts() as Record<string, unknown>;
  if (values.help === true) return { help: true, json: false, threads: undefined, layers: [] };
  if (rest.unknown.length > 0) throw unknownFlag(rest.unknown[0], parser, command);

  const given: Record<string, unknown> = {};
  for (const { option, parserOption } of flags) given[option.name] = values[parserOption.attributeName()];
  const { threads, ...own } = given;
  Object.assign(own, positionalValues(command, rest.operands));
  // The reader of YAML is a quarter of all code that a command loads.
  const file = typeof values.config === "string" ? (await import("../base/config.ts")).readConfigFile(values.config) : undefined;
  // A configuration file may choose the preset and the threads as well.
  const { preset: filePreset, threads: fileThreads, ...fileValues } = file?.values ?? {};
  const layers: SettingsLayer[] = [];
  const preset = values.preset ?? filePreset ?? command.defaultPreset;
  if (preset !== undefined) layers.push(presetLayer(command, preset));
  if (file) layers.push({ values: fileValues, locate: file.locate });
  layers.push({ values: own });
  const missing = command.positionals.find(
    ({ name, required }) => required && !layers.some(({ values: layer }) => (layer as Record<string, unknown>)[name] !== undefined),
  );
  if (missing)
    throw new UsageError(`argument <${kebabCase(missing.name)}>: expected ${missing.expected}, got nothing`, { hint: helpHint(command) });
  return { help: false, json: values.json === true, threads: threads ?? fileThreads, layers };
}

function presetLayer(command: Command, name: unknown): SettingsLayer {
  const names = Object.keys(command.presets);
  if (typeof name === "string" && Object.hasOwn(command.presets, name)) {
    return { values: command.presets[name].values, locate: () => `preset ${name}` };
  }
  const guess = nearest(String(name), names);
  const expected = names.length === 0 ? "no preset" : `one of ${names.join(", ")}`;
  throw new UsageError(`option \`preset\`: expected ${expected}, got ${JSON.stringify(name)}`, {
    hint: guess === undefined ? helpHint(command) : `Did you mean "${guess}"?`,
  });
}

function positionalValues(command: Command, operands: readonly string[]): Record<string, unknown> {
  const values: Record<string, unknown> = {};
  const { positionals } = command;
  const last = positionals.at(-1);
  const takesMany = last?.types.includes("list") === true;
  if (operands.length > positionals.length && !takesMany) {
    const surplus = operands[positionals.length];
    throw new UsageError(
      `longwave ${command.name}: expected ${positionals.length === 0 ? "no argument" : `at most ${positionals.length}`}, got "${surplus}" as well`,
      { hint: helpHint(command) },
    );
  }
  for (const [index, option] of positionals.entries()) {
    if (index >= operands.length) break;
    const isList = option === last && takesMany;
    values[option.name] = isList
      ? operands.slice(index).flatMap((text) => valueFromText(option, text))
      : valueFromText(option, operands[index]);
  }
  return values;
}

function unknownFlag(argument: string, parser: Parser, command: Command): UsageError {
  const [flag] = argument.split("=", 1);
  const known = parser.options.flatMap(({ long, short }) => [long, short]).filter((name) => name !== undefined);
  if (known.includes(flag)) {
    return new UsageError(`option \`${flag}\`: expected no value, got "${argument.slice(flag.length + 1)}"`, {
      hint: `Write ${flag} or --no-${flag.replace(/^(--no-|--?)/, "")}.`,
    });
  }
  const lastPart = (name: string): string => name.replace(/^-+/, "").split(".").at(-1) ?? name;
  const alike = known.filter((name) => lastPart(name) === lastPart(flag));
  // Every letter is as near to another as the next: the long option that starts with it is meant.
  const isLetter = /^-[a-z]$/i.test(flag);
  const elsewhere = calledElsewhere(
    flag,
    [...command.options, ...listOptions(commonSchema)].map(({ name }) => name),
  );
  const guess = isLetter
    ? known.find((name) => name.startsWith(`--${flag[1].toLowerCase()}`))
    : (nearest(flag, alike) ?? alike[0] ?? (elsewhere && `--${kebabCase(elsewhere)}`) ?? nearest(flag, known));
  return new UsageError(`option \`${flag}\`: expected an option that exists, got none of that name`, {
    hint: guess === undefined ? helpHint(command) : `Did you mean ${guess}?`,
  });
}

const plainMessage = (error: CommanderError): string => {
  const missing = /^error: option '(.*)' argument missing$/.exec(error.message);
  if (!missing) return error.message.replace(/^error: /, "");
  const [flag, value] = missing[1].split(/ (?=<)/);
  return `option \`${flag.split(", ").at(-1)}\`: expected a value ${value ?? ""}, got nothing`;
};

export const helpHint = (command: Command): string => `See \`longwave ${command.name} --help\`.`;
