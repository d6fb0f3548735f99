// What the library says, in the words of the command line: options as flags, paths from where the user is, commands that work there.
import { existsSync, readFileSync } from "node:fs";
import { basename, delimiter, dirname, join, sep } from "node:path";
import type { OptionInfo } from "../base/schema.ts";
import { kebabCase } from "./flags.ts";
import type { Phrase } from "./io.ts";

export interface PhraseOptions {
  /** Options of the command, without its positional ones. */
  options?: readonly OptionInfo[];
  /** How the user calls longwave. Default `longwave`. */
  program?: string;
  /** Absolute paths below it become relative. Default: none do. */
  cwd?: string;
}

/** A wrong value that was read from a file, a preset or a former run is named as it stands there. */
const located = /\((?:[^()]*\.(?:ya?ml|json)(?::\d+)?|preset [^()]*|settings of [^()]*)\)/;

export function createPhrase({ options = [], program = "longwave", cwd }: PhraseOptions): Phrase {
  const flags = new Map<string, string>();
  for (const { path } of options)
    for (let length = path.length; length > 0; length--) {
      const name = path.slice(0, length).join(".");
      flags.set(name, `--${kebabCase(name)}`);
    }
  const flagOf = (name: string): string => flags.get(name) ?? name;
  const withFlags = (text: string): string =>
    located.test(text)
      ? text
      : text
          // No other word looks like these: evaluateEvery, optimizer.kind.
          .replace(/(?<![\w./\\"'-])[a-z][a-z0-9]*(?:[A-Z]\w*|\.[a-z]\w*)+(?:\.\w+)*(?![\w/\\(])/g, flagOf)
          // Plain words where they can only be options.
          .replace(/(?<=option `)\w+(?=`)|^\w+(?=: expected| has no effect)|(?<=has no effect: )\w+(?= (?:is|sets|brings) )/g, flagOf)
          .replace(/(?<=\b[Ss]et )\w+(?= to | and | above |[.,])|(?<=\ba larger )\w+(?= where )/g, flagOf)
          .replace(/(?<![\w.-])[a-z]\w*(?= \(saved )/g, flagOf);
  const below = cwd === undefined || cwd.length < 2 ? undefined : new RegExp(`(?<![\\w./-])${escaped(cwd + sep)}`, "g");
  return (text) => {
    const short = below === undefined ? text : text.replace(below, "");
    return withFlags(short)
      .replace(/(?<=--)([\w.-]+): false\b/g, "no-$1")
      .replace(/(?<=`|: +)longwave (?=[a-z<-])/g, `${program} `);
  };
}

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

export interface Surroundings {
  env: Readonly<Record<string, string | undefined>>;
  cwd: string;
  /** The file that runs. */
  script: string;
}

/** How the user calls longwave from where they are: by its name when it is on the PATH, through npx in a folder that has it, else as a file. */
export function programName({ env, cwd, script }: Surroundings): string {
  const file = process.platform === "win32" ? "longwave.cmd" : "longwave";
  // npx and npm run put node_modules/.bin on the path of what they start, which is not the user's.
  const folders = (env.PATH ?? env.Path ?? "").split(delimiter).filter((folder) => folder !== "" && basename(folder) !== ".bin");
  if (folders.some((folder) => existsSync(join(folder, file)))) return "longwave";
  if (env.npm_command === "exec") return "npx longwave";
  for (let folder = cwd; ; folder = dirname(folder)) {
    if (existsSync(join(folder, "node_modules", ".bin", file)) || isOwnFolder(folder)) return "npx longwave";
    if (folder === dirname(folder)) return `node ${script}`;
  }
}

/** A clone: npx finds the package in its own folder. */
function isOwnFolder(folder: string): boolean {
  try {
    return (JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as { name?: unknown }).name === "longwave";
  } catch {
    return false;
  }
}
