// File patterns: `*` (within a name), `?`, `**` (any number of folders), `{a,b}`. Everything else, brackets included, is literal.
// Names are matched by a two-pointer scan instead of a regular expression, so that no pattern can take exponential time.
// As in shells, wildcards do not match a leading dot, and `**` does not follow links to folders.
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { UsageError } from "../base/errors.ts";

const maxAlternatives = 1000;

/** Whether a text is a pattern rather than a plain path. */
export const isGlob = (text: string): boolean => /[*?{]/.test(text);

/** The texts that `{a,b}` stands for, nesting included. A brace without a comma or partner is literal. @throws UsageError above 1,000. */
export function expandBraces(pattern: string): string[] {
  const done: string[] = [];
  const waiting = [{ text: pattern, from: 0 }];
  for (let item = waiting.pop(); item !== undefined; item = waiting.pop()) {
    const { text, from } = item;
    const group = firstGroup(text, from);
    if (group === undefined) done.push(text);
    else {
      for (const option of group.options.reverse()) {
        waiting.push({ text: text.slice(0, group.open) + option + text.slice(group.close + 1), from: group.open });
      }
    }
    if (done.length + waiting.length > maxAlternatives) {
      throw new UsageError(`pattern ${pattern}: expected at most ${maxAlternatives} alternatives, got more`, {
        hint: "Use * instead of braces.",
      });
    }
  }
  return done;
}

/** Whether one name (no slashes) matches one part of a pattern. */
export function matchesName(pattern: string, name: string): boolean {
  if (name.startsWith(".") && !pattern.startsWith(".")) return false;
  let p = 0;
  let star = -1;
  let resume = 0;
  for (let n = 0; n < name.length; ) {
    if (pattern[p] === "*") {
      star = p++;
      resume = n;
    } else if (p < pattern.length && (pattern[p] === "?" || pattern[p] === name[n])) {
      p++;
      n++;
    } else if (star >= 0) {
      p = star + 1;
      n = ++resume;
    } else return false;
  }
  while (pattern[p] === "*") p++;
  return p === pattern.length;
}

/** All files that match, sorted by code unit, each once. Folders that cannot be read are errors, not silence. */
export function findFiles(pattern: string): string[] {
  const found = new Set<string>();
  for (const alternative of expandBraces(process.platform === "win32" ? pattern.replaceAll("\\", "/") : pattern)) {
    const parts = alternative.split("/");
    const absolute = parts[0] === "" || /^[A-Za-z]:$/.test(parts[0]);
    const root = absolute ? `${parts.shift()}/` : ".";
    walk(
      root,
      parts.filter((part) => part !== "" && part !== "."),
      found,
    );
  }
  return [...found].sort(byCodeUnit);
}

export const byCodeUnit = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

function walk(folder: string, parts: readonly string[], found: Set<string>): void {
  const [part, ...rest] = parts;
  if (part === undefined) return;
  if (part === "..") {
    walk(join(folder, ".."), rest, found);
    return;
  }
  const deep = part === "**";
  if (deep) walk(folder, rest.length === 0 ? ["*"] : rest, found);
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) return;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (deep) {
      if (entry.isDirectory() && !entry.name.startsWith(".")) walk(path, parts, found);
    } else if (matchesName(part, entry.name)) {
      if (rest.length > 0) walk(path, rest, found);
      else if (entry.isFile() || (entry.isSymbolicLink() && statSync(path, { throwIfNoEntry: false })?.isFile())) found.add(path);
    }
  }
}

/** The first outermost `{…}` at or after `from` that has a comma of its own. */
function firstGroup(text: string, from: number): { open: number; close: number; options: string[] } | undefined {
  for (let open = text.indexOf("{", from); open >= 0; open = text.indexOf("{", open + 1)) {
    const options: string[] = [];
    let depth = 0;
    let start = open + 1;
    for (let i = open; i < text.length; i++) {
      if (text[i] === "{") depth++;
      else if (text[i] === "," && depth === 1) {
        options.push(text.slice(start, i));
        start = i + 1;
      } else if (text[i] === "}" && --depth === 0) {
        if (options.length === 0) break;
        options.push(text.slice(start, i));
        return { open, close: i, options };
      }
    }
  }
  return undefined;
}
