// Where in a chat template something is: the template engine knows no positions, so lines are found by matching its tokens and its
// syntax tree with the tags of the source, in order.
import { parse, tokenize } from "@huggingface/jinja";

type Tokens = ReturnType<typeof tokenize>;
/** A node of the syntax tree, as far as it matters here. */
interface Node {
  readonly type: string;
  readonly body?: readonly Node[];
  readonly alternate?: readonly Node[];
  readonly defaultBlock?: readonly Node[];
}

export interface ParsedTemplate {
  readonly program: ReturnType<typeof parse>;
  /** Lines of statements and of the expressions that are printed; empty when they cannot be told. */
  readonly lines: ReadonlyMap<object, number>;
}

const options = { lstrip_blocks: true, trim_blocks: true };

/** What is wrong with the source of a template, and in which line. */
export class TemplateSyntaxError extends Error {
  readonly line: number | undefined;

  constructor(message: string, line: number | undefined) {
    super(message);
    this.line = line;
  }
}

/** @throws TemplateSyntaxError. */
export function parseTemplate(source: string): ParsedTemplate {
  const tags = tagLines(source);
  let tokens: Tokens;
  try {
    tokens = tokenize(source, options);
  } catch (cause) {
    throw new TemplateSyntaxError((cause as Error).message, lexicalErrorLine(source, tags));
  }
  // The last token that the parser looked at tells how far it came.
  let reached = 0;
  const watched = new Proxy(tokens, {
    get(target, key, receiver) {
      if (typeof key === "string" && /^\d+$/.test(key)) reached = Math.max(reached, Number(key));
      return Reflect.get(target, key, receiver);
    },
  });
  try {
    const program = parse(watched);
    return { program, lines: linesOf(program as unknown as Node, tokens, tags) };
  } catch (cause) {
    const numTags = tokens.slice(0, reached + 1).filter(isOpening).length;
    throw new TemplateSyntaxError((cause as Error).message, tags[Math.max(0, numTags - 1)]?.line);
  }
}

interface Tag {
  readonly line: number;
  /** Offset behind the tag; the source's length when it is not closed. */
  readonly end: number;
}

/** Expressions, statements and comments of a template. */
function tagLines(source: string): Tag[] {
  const tags: Tag[] = [];
  let line = 1;
  let counted = 0;
  const lineAt = (offset: number): number => {
    for (; counted < offset; counted++) if (source.charCodeAt(counted) === 0x0a) line++;
    return line;
  };
  const opening = /\{[{%#]/g;
  for (let match = opening.exec(source); match; match = opening.exec(source)) {
    const end = tagEnd(source, match.index);
    tags.push({ line: lineAt(match.index), end });
    opening.lastIndex = end;
  }
  return tags;
}

function tagEnd(source: string, start: number): number {
  const close = { "{": "}}", "%": "%}", "#": "#}" }[source[start + 1]] as string;
  let quote = "";
  let depth = 0;
  for (let at = start + 2; at < source.length; at++) {
    const character = source[at];
    if (quote !== "") {
      if (character === "\\") at++;
      else if (character === quote) quote = "";
    } else if (depth === 0 && source.startsWith(close, at)) return at + 2;
    else if (close !== "#}" && (character === "'" || character === '"')) quote = character;
    else if (close === "}}" && character === "{") depth++;
    else if (close === "}}" && character === "}") depth--;
  }
  return source.length;
}

/** The first tag up to which the source cannot be read. */
function lexicalErrorLine(source: string, tags: readonly Tag[]): number | undefined {
  const isWrong = (numTags: number): boolean => {
    try {
      tokenize(source.slice(0, tags[numTags - 1].end), options);
      return false;
    } catch {
      return true;
    }
  };
  let [low, high] = [1, tags.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isWrong(middle)) high = middle;
    else low = middle + 1;
  }
  return tags[low - 1]?.line;
}

const isOpening = ({ type }: { type: string }): boolean => type === "OpenExpression" || type === "OpenStatement" || type === "Comment";

/** Walks the tree in the order of the source, one tag for each node that is not plain text. */
function linesOf(program: Node, tokens: Tokens, tags: readonly Tag[]): Map<object, number> {
  const lines = new Map<object, number>();
  if (tokens.filter(isOpening).length !== tags.length) return lines;
  let tag = -1;
  let at = 0;
  /** Skips what only closes or divides a statement. Returns whether the next node is plain text. */
  const next = (): boolean => {
    for (; at < tokens.length; at++) {
      if (tokens[at].type === "Text") {
        at++;
        return true;
      }
      if (!isOpening(tokens[at])) continue;
      tag++;
      const keyword = tokens[at].type === "OpenStatement" ? tokens[at + 1]?.value : "";
      if (keyword === "else" || keyword?.startsWith("end")) continue;
      at++;
      return false;
    }
    return true;
  };
  const visit = (nodes: readonly Node[]): void => {
    for (const node of nodes) {
      if (!next()) lines.set(node, tags[tag].line);
      for (const inner of [node.body, node.alternate, node.defaultBlock]) if (Array.isArray(inner)) visit(inner);
    }
  };
  visit(program.body ?? []);
  return lines;
}
