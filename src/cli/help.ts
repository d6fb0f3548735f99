// Help texts: of the whole program, of a group of commands, of one command. Generated; there is no second list of flags.
import { Argument } from "commander";
import type { Command } from "./command.ts";
import { kebabCase, parserOf } from "./flags.ts";
import type { Output } from "./io.ts";
import { createPhrase } from "./phrase.ts";
import type { CommandEntry } from "./registry.ts";

/** `--help` of one command: usage, arguments, options by group with defaults, presets, examples. */
export function commandHelp(command: Command, output: Output, program = "longwave", entries: readonly CommandEntry[] = []): string {
  const { parser } = parserOf(command);
  const phrase = createPhrase({ options: command.options, program });
  for (const option of command.positionals) {
    const name = kebabCase(option.name) + (option.types.includes("list") ? "..." : "");
    const isEmpty = option.defaultValue === undefined || (Array.isArray(option.defaultValue) && option.defaultValue.length === 0);
    const note = isEmpty ? "" : ` (default: ${JSON.stringify(option.defaultValue)})`;
    parser.addArgument(new Argument(option.required ? `<${name}>` : `[${name}]`, option.description + note));
  }
  const { colors } = output;
  const text = parser
    .description(reflow([`${command.summary}.`, command.description].filter((part) => part !== "").join("\n\n"), helpWidth(output)))
    .configureOutput({ getOutHelpWidth: () => helpWidth(output), getOutHasColors: () => colors.isColorSupported })
    .configureHelp({
      styleTitle: (title) => colors.bold(title),
      styleOptionTerm: (term) => colors.cyan(term),
      styleArgumentTerm: (term) => colors.cyan(term),
      optionDescription: ({ description }) => phrase(description),
      padWidth: (parser, helper) =>
        Math.min(maxTermWidth, Math.max(helper.longestOptionTermLength(parser, helper), helper.longestArgumentTermLength(parser, helper))),
      formatItem: (term, termWidth, description, helper) => {
        const indent = " ".repeat(2 + termWidth + 2);
        const text = wrap(description, helpWidth(output) - indent.length).replaceAll("\n", `\n${indent}`);
        const width = helper.displayWidth(term);
        // A long flag has a line of its own.
        return width > termWidth ? `  ${term}\n${indent}${text}` : `  ${term}${" ".repeat(termWidth - width + 2)}${text}`;
      },
    })
    .helpInformation();
  const examples = command.examples.map(
    ({ command: line, note }) => `  ${colors.dim(`# ${note}`)}\n  ${program} ${line.replaceAll("| longwave ", `| ${program} `)}`,
  );
  const below = entries.filter(({ name }) => name.startsWith(`${command.name} `));
  const parts = [text];
  if (below.length > 0) parts.push(`${colors.bold("Further commands:")}\n${commandList(below, output)}\n`);
  if (examples.length > 0) parts.push(`${colors.bold("Examples:")}\n${examples.join("\n\n")}\n`);
  return parts.join("\n");
}

/** Flags that are longer do not push all descriptions to the right. */
const maxTermWidth = 26;

/** Lines of a paragraph joined and broken anew at `width`. A line that begins with a space stays one, and goes on below its second column. */
export function reflow(text: string, width: number): string {
  const joined = text.replace(/(?<=\S)\n(?=\S)/g, " ");
  return joined
    .split("\n")
    .map((line) => {
      if (line.length <= width) return line;
      const head = /^ +(?:\S+ {2,})?/.exec(line)?.[0] ?? "";
      return head + wrap(line.slice(head.length), width - head.length).replaceAll("\n", `\n${" ".repeat(head.length)}`);
    })
    .join("\n");
}

function wrap(line: string, width: number): string {
  const lines = [""];
  for (const word of line.split(" ")) {
    const last = lines.length - 1;
    if (lines[last] !== "" && lines[last].length + 1 + word.length > width) lines.push(word);
    else lines[last] += lines[last] === "" ? word : ` ${word}`;
  }
  return lines.join("\n");
}

const helpWidth = (output: Output): number => Math.min(Math.max(output.columns, 60), 110);

function commandList(entries: readonly CommandEntry[], output: Output): string {
  const width = Math.max(...entries.map(({ name }) => name.length), 10);
  const indent = " ".repeat(width + 4);
  const lines = entries.map(({ name, summary }) => {
    const text = wrap(summary, helpWidth(output) - indent.length).replaceAll("\n", `\n${indent}`);
    return `  ${output.colors.cyan(name.padEnd(width))}  ${text}`;
  });
  return lines.join("\n");
}

/** Commands and their summaries, of all or of one group. */
export function overview(entries: readonly CommandEntry[], output: Output, group?: string): string {
  const { colors } = output;
  const shown = group === undefined ? entries : entries.filter(({ name }) => name.startsWith(`${group} `));
  return [
    group === undefined ? "longwave: train, align and accelerate language models in TypeScript." : `longwave ${group}`,
    "",
    `${colors.bold("Usage:")} longwave ${group === undefined ? "" : `${group} `}<command> [options]`,
    "",
    colors.bold("Commands:"),
    commandList(shown, output),
    "",
    "`longwave <command> --help` lists the options of a command, `longwave --version`",
    "prints the version.",
    "",
  ].join("\n");
}
