// Whether a tokenizer that a user names belongs to a model.
import { UsageError } from "../../base/errors.ts";
import type { Tokenizer } from "../../text/index.ts";

/**
 * Tokens may have been added to a tokenizer; one that says something else with the same ids is another model's.
 * @throws UsageError naming the first such id.
 */
export function checkSameTokens(given: Tokenizer, own: Tokenizer): void {
  for (let id = 0; id < Math.min(given.vocabSize, own.vocabSize); id++) {
    const [got, expected] = [given.idToToken(id), own.idToToken(id)];
    if (got === expected || got === undefined || expected === undefined) continue;
    throw new UsageError(
      `tokenizer: expected that of this model, where id ${id} is ${JSON.stringify(expected)}, got one where it is ${JSON.stringify(got)}`,
      { hint: "Leave --tokenizer out: the right one lies beside the model." },
    );
  }
}
