// A grammar that generated text has to keep to: from GBNF, from a JSON schema, or from rules made in code.
import { UsageError } from "../../base/errors.ts";
import { Automaton, dead } from "./automaton.ts";
import { compileRules } from "./compile-rules.ts";
import { checkRules, type Rules } from "./expression.ts";
import { parseGbnf } from "./gbnf.ts";
import { type JsonSchemaOptions, rulesOfSchema } from "./json-schema.ts";

export class Grammar {
  /** Shared by everything that uses this grammar: what one sequence taught it serves the next. */
  readonly automaton: Automaton;
  readonly rules: Rules;

  /** @throws UsageError for a rule that is not defined, left recursion, or a grammar that is too large. */
  constructor(rules: Rules, root = "root") {
    checkRules(rules, root);
    this.rules = rules;
    this.automaton = new Automaton(compileRules(rules, root));
    if (this.automaton.start === dead) {
      throw new UsageError(`grammar: expected a rule ${root} that some text satisfies, got one that refers to itself alone`, {
        hint: "Give the rule an alternative of characters.",
      });
    }
  }

  /** @param text in llama.cpp's notation (GBNF). @throws UsageError with line and column. */
  static parse(text: string, root = "root"): Grammar {
    return new Grammar(parseGbnf(text, root), root);
  }

  /** Texts that are JSON and satisfy a schema. @throws UsageError naming the part of the schema that is not supported. */
  static fromJsonSchema(schema: unknown, options: JsonSchemaOptions = {}): Grammar {
    return new Grammar(rulesOfSchema(schema, options));
  }

  /** Whether a whole text is of the language. */
  matches(text: string | Uint8Array): boolean {
    const { automaton } = this;
    let state = automaton.start;
    for (const byte of typeof text === "string" ? Buffer.from(text, "utf8") : text) {
      state = automaton.next(state, byte);
      if (state === dead) return false;
    }
    return automaton.isAccepting(state);
  }

  /** Whether a text can be continued to one of the language. */
  begins(text: string | Uint8Array): boolean {
    const { automaton } = this;
    let state = automaton.start;
    for (const byte of typeof text === "string" ? Buffer.from(text, "utf8") : text) state = automaton.next(state, byte);
    return state !== dead;
  }
}
